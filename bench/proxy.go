package bench

import (
	"fmt"
	"strings"

	"github.com/ravencni/raven/bench/l7"
)

// ProxyResult is what the L7 proxy was measured to cost, beside haproxies and beside a direct connection.
type ProxyResult struct {
	Rounds      int     `json:"rounds"`
	EachSeconds float64 `json:"each_seconds"`
	// Fronts are the spreads by front (http, tls), path (direct, haproxy, raven) and metric.
	Fronts map[string]map[string]map[string]Spread `json:"fronts"`
	// AddedP50 and AddedP99 are what a request takes longer than by a direct connection in microseconds, by front and path:
	// medians over the rounds of the differences within a round.
	AddedP50 map[string]map[string]float64 `json:"added_p50_us"`
	AddedP99 map[string]map[string]float64 `json:"added_p99_us"`
	// OverHAProxy are the ratios of Raven's figures to haproxy's, by front and metric.
	OverHAProxy map[string]map[string]float64 `json:"over_haproxy"`
}

// frontPrefix makes of a front's name what stands in a Sample's place for the tunnel.
const frontPrefix = "l7-"

// ProxySamples are the L7 proxy's samples among the others.
func ProxySamples(in []l7.Sample) []Sample {
	out := make([]Sample, 0, len(in))
	for _, s := range in {
		out = append(out, Sample{Tunnel: frontPrefix + s.Front, Path: s.Path, Round: s.Round, Values: s.Values})
	}
	return out
}

// SummarizeProxy computes the L7 proxy's result from the samples.
func SummarizeProxy(samples []Sample, o l7.Options) *ProxyResult {
	r := &ProxyResult{Rounds: Rounds(samples, frontPrefix+l7.HTTP), EachSeconds: o.Each.Seconds(), Fronts: map[string]map[string]map[string]Spread{},
		AddedP50: map[string]map[string]float64{}, AddedP99: map[string]map[string]float64{}, OverHAProxy: map[string]map[string]float64{}}
	for _, front := range []string{l7.HTTP, l7.TLS} {
		r.Fronts[front] = Spreads(samples, frontPrefix+front)
		r.OverHAProxy[front] = Over(samples, frontPrefix+front, l7.Raven, l7.HAProxy)
		r.AddedP50[front], r.AddedP99[front] = map[string]float64{}, map[string]float64{}
		for _, path := range []string{l7.HAProxy, l7.Raven} {
			if v, ok := added(samples, frontPrefix+front, path, l7.RTT50); ok {
				r.AddedP50[front][path] = v
			}
			if v, ok := added(samples, frontPrefix+front, path, l7.RTT99); ok {
				r.AddedP99[front][path] = v
			}
		}
	}
	return r
}

// added is the median over the rounds of a path's figure less that of a direct connection.
func added(samples []Sample, tunnel, path, key string) (float64, bool) {
	direct := map[int]float64{}
	for _, s := range samples {
		if v, ok := s.Values[key]; ok && s.Tunnel == tunnel && s.Path == l7.Direct {
			direct[s.Round] = v
		}
	}
	var differences []float64
	for _, s := range samples {
		v, ok := s.Values[key]
		d, both := direct[s.Round]
		if ok && both && s.Tunnel == tunnel && s.Path == path {
			differences = append(differences, v-d)
		}
	}
	if len(differences) == 0 {
		return 0, false
	}
	return median(differences), true
}

// proxyMetrics in the order of the table.
var proxyMetrics = []Metric{
	{l7.RTT50, "p50, µs", 1, 0, true}, {l7.RTT99, "p99, µs", 1, 0, true},
	{l7.Requests1, "requests/s, 1 stream", 1, 0, false}, {l7.Requests2, "100 streams", 1, 0, false}, {l7.Requests3, "1,000 streams", 1, 0, false},
	{l7.Throughput, "one stream, Gb/s", 1e9, 2, false}, {l7.Memory, "KiB per idle stream", 1024, 1, true}, {l7.MemoryCloud, "cloud's", 1024, 1, true}, {l7.MemoryEdge, "edge's", 1024, 1, true},
}

func (p ProxyResult) markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "\n## L7 proxy\n\nHTTP/1.1 requests of a client to a node of another region, medians of %d round(s). Memory is of both proxies together, and of each.\n\n| front | path |", p.Rounds)
	for _, m := range proxyMetrics {
		fmt.Fprintf(&b, " %s |", m.Title)
	}
	b.WriteString(" added p50, µs | added p99, µs |\n|---|---|" + strings.Repeat("---:|", len(proxyMetrics)+2) + "\n")
	titles := map[string]string{l7.HTTP: "HTTP", l7.TLS: "TLS, passed through"}
	paths := map[string]string{l7.Direct: "direct", l7.HAProxy: "two haproxies", l7.Raven: "Raven"}
	for _, front := range []string{l7.HTTP, l7.TLS} {
		for _, path := range []string{l7.Direct, l7.HAProxy, l7.Raven} {
			fmt.Fprintf(&b, "| %s | %s |", titles[front], paths[path])
			for _, m := range proxyMetrics {
				if s, ok := p.Fronts[front][path][m.Key]; ok {
					fmt.Fprintf(&b, " %s |", m.format(s.Median))
				} else {
					b.WriteString(" |")
				}
			}
			for _, added := range []map[string]map[string]float64{p.AddedP50, p.AddedP99} {
				if v, ok := added[front][path]; ok {
					fmt.Fprintf(&b, " %.0f", v)
				}
				b.WriteString(" |")
			}
			b.WriteString("\n")
		}
	}
	return b.String()
}
