package bench

import (
	"maps"
	"testing"
)

func TestRatiosAreTakenWithinARoundAndTheirMedianOverTheRounds(t *testing.T) {
	sample := func(path string, round int, rtt, tcp float64) Sample {
		return Sample{Tunnel: "plain", Path: path, Round: round, Values: map[string]float64{RTT50: rtt, TCP: tcp}}
	}
	samples := []Sample{
		sample(Baseline, 0, 100, 10), sample(Overlay, 0, 50, 20),
		// The machine became twice as slow: each ratio within the round stays meaningful.
		sample(Baseline, 1, 200, 5), sample(Overlay, 1, 100, 10),
		sample(Baseline, 2, 100, 10), sample(Overlay, 2, 90, 11),
		// Of another tunnel, and of a path without a counterpart.
		{Tunnel: "wireguard", Path: Overlay, Values: map[string]float64{RTT50: 1000}},
		{Tunnel: "plain", Path: Overlay, Round: 3, Values: map[string]float64{RTT50: 1000, UDP64: 1}},
	}
	want := map[string]float64{RTT50: 0.5, TCP: 2}
	if got := Over(samples, "plain", Overlay, Baseline); !maps.Equal(got, want) {
		t.Errorf("ratios %v, want %v", got, want)
	}
	if got := Over(samples, "plain", Overlay, Direct); len(got) != 0 {
		t.Errorf("ratios %v to a path that was not measured", got)
	}
	if got, want := Spreads(samples, "plain")[Baseline][RTT50], (Spread{Median: 100, Low: 100, High: 200}); got != want {
		t.Errorf("spread %v, want %v", got, want)
	}
}

func TestTheMedianOfAnEvenNumberIsTheMeanOfTheMiddleTwo(t *testing.T) {
	for _, c := range []struct {
		in   []float64
		want float64
	}{{[]float64{3}, 3}, {[]float64{9, 1, 2}, 2}, {[]float64{4, 1, 2, 100}, 3}} {
		if got := median(c.in); got != c.want {
			t.Errorf("median of %v is %g, want %g", c.in, got, c.want)
		}
	}
}
