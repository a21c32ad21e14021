package bench

import "testing"

func TestRatiosAreTakenWithinARoundAndTheirMedianOverTheRounds(t *testing.T) {
	r := ratios([]Sample{
		{Variant: Baseline, Round: 0, RTT50: 100, TCP: 10, UDP64: 10, CPUPerGB: 4, RTT99: 1},
		{Variant: "overlay", Round: 0, RTT50: 50, TCP: 20, UDP64: 10, CPUPerGB: 2, RTT99: 1},
		// The machine became twice as slow: each ratio within the round stays meaningful.
		{Variant: Baseline, Round: 1, RTT50: 200, TCP: 5, UDP64: 5, CPUPerGB: 8, RTT99: 1},
		{Variant: "overlay", Round: 1, RTT50: 100, TCP: 10, UDP64: 10, CPUPerGB: 4, RTT99: 2},
		{Variant: Baseline, Round: 2, RTT50: 100, TCP: 10, UDP64: 10, CPUPerGB: 4, RTT99: 1},
		{Variant: "overlay", Round: 2, RTT50: 90, TCP: 11, UDP64: 15, CPUPerGB: 4, RTT99: 3},
	})
	want := Ratios{RTT50: 0.5, RTT99: 2, TCP: 2, CPUPerGB: 0.5, UDP64: 1.5}
	if got := r["overlay"]; got != want {
		t.Errorf("ratios %+v, want %+v", got, want)
	}
	if _, ok := r[Baseline]; ok {
		t.Error("the baseline is compared with itself")
	}
}

func TestTheMedianOfAnEvenNumberIsTheMeanOfTheMiddleTwo(t *testing.T) {
	figure := func(v float64) float64 { return v }
	for _, c := range []struct {
		in   []float64
		want float64
	}{{nil, 0}, {[]float64{3}, 3}, {[]float64{9, 1, 2}, 2}, {[]float64{4, 1, 2, 100}, 3}} {
		if got := medianOf(c.in, figure); got != c.want {
			t.Errorf("median of %v is %g, want %g", c.in, got, c.want)
		}
	}
}
