package bench

import (
	"cmp"
	"slices"
)

// Spread of a figure over the rounds.
type Spread struct {
	Median float64 `json:"median"`
	Low    float64 `json:"low"`
	High   float64 `json:"high"`
}

// spread of some values, at least one.
func spread(values []float64) Spread {
	return Spread{Median: median(values), Low: slices.Min(values), High: slices.Max(values)}
}

// median of some values, at least one; of an even number of them the mean of the two in the middle.
func median(values []float64) float64 {
	sorted := slices.SortedFunc(slices.Values(values), cmp.Compare[float64])
	middle := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[middle]
	}
	return (sorted[middle-1] + sorted[middle]) / 2
}

// Spreads are each path's figures, by path and metric.
func Spreads(samples []Sample, tunnel string) map[string]map[string]Spread {
	all := map[string]map[string][]float64{}
	for _, s := range samples {
		if s.Tunnel != tunnel {
			continue
		}
		if all[s.Path] == nil {
			all[s.Path] = map[string][]float64{}
		}
		for k, v := range s.Values {
			all[s.Path][k] = append(all[s.Path][k], v)
		}
	}
	out := map[string]map[string]Spread{}
	for path, metrics := range all {
		out[path] = map[string]Spread{}
		for k, values := range metrics {
			out[path][k] = spread(values)
		}
	}
	return out
}

// Over are the ratios of a path's figures to another's: taken within a round, where the machine was the same, and the
// median over the rounds. A metric that was not measured of both is absent.
func Over(samples []Sample, tunnel, path, other string) map[string]float64 {
	type at struct {
		round int
		key   string
	}
	base := map[at]float64{}
	for _, s := range samples {
		if s.Tunnel == tunnel && s.Path == other {
			for k, v := range s.Values {
				base[at{s.Round, k}] = v
			}
		}
	}
	each := map[string][]float64{}
	for _, s := range samples {
		if s.Tunnel != tunnel || s.Path != path {
			continue
		}
		for k, v := range s.Values {
			if b := base[at{s.Round, k}]; b > 0 {
				each[k] = append(each[k], v/b)
			}
		}
	}
	out := map[string]float64{}
	for k, values := range each {
		out[k] = median(values)
	}
	return out
}

// Rounds that were measured over a tunnel.
func Rounds(samples []Sample, tunnel string) int {
	n := 0
	for _, s := range samples {
		if s.Tunnel == tunnel {
			n = max(n, s.Round+1)
		}
	}
	return n
}
