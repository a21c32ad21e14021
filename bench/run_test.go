package bench

import (
	"context"
	"errors"
	"testing"
	"time"
)

func TestAMeasurementThatFailsIsTriedOnceMore(t *testing.T) {
	for failing, want := range map[int]int{0: 1, 1: 2, 2: 2} {
		calls := 0
		p := probe{run: func(_ *bed, ctx context.Context, _ time.Duration) (map[string]float64, error) {
			if _, limited := ctx.Deadline(); !limited {
				t.Error("a measurement may take forever")
			}
			if calls++; calls <= failing {
				return nil, errors.New("no answer")
			}
			return map[string]float64{TCP: 1}, nil
		}}
		values, err := p.twice(t.Context(), nil, time.Second)
		if calls != want || (err == nil) != (failing < 2) || (len(values) > 0) != (failing < 2) {
			t.Errorf("failing %d times: %d calls, values %v, error %v", failing, calls, values, err)
		}
	}
}

func TestEveryMetricHasOneProbe(t *testing.T) {
	count := map[string]int{}
	for _, p := range probes {
		for _, k := range p.keys {
			count[k]++
		}
	}
	for _, m := range Metrics {
		if count[m.Key] != 1 {
			t.Errorf("%s is measured by %d probes", m.Key, count[m.Key])
		}
	}
	if len(count) != len(Metrics) {
		t.Errorf("%d keys are measured, %d metrics are shown", len(count), len(Metrics))
	}
}
