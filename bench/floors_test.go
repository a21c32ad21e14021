package bench

import (
	"bytes"
	"os"
	"testing"
	"time"

	"github.com/ravencni/raven/test/lab"
)

func TestMain(m *testing.M) {
	lab.BecomeHolderIfAsked()
	if os.Getenv(floors) == "" || os.Geteuid() != 0 {
		os.Exit(m.Run())
	}
	os.Exit(lab.Enclose("bench-test", m.Run))
}

// floors is the environment variable that asks for this measurement, which wants a quiet machine (make test-floors).
const floors = "RAVEN_TEST_FLOORS"

// TestAccelerationIsWorthItOnAPlainTunnel holds the accelerated datapath to its floors, in medians of five alternations.
func TestAccelerationIsWorthItOnAPlainTunnel(t *testing.T) {
	if !lab.Enclosed() {
		t.Skip("a measurement: make test-floors, as root")
	}
	paths, err := Select(Paths(), []string{Baseline, Overlay, Direct})
	if err != nil {
		t.Fatal(err)
	}
	var progress bytes.Buffer
	samples, failures, err := Run(t.Context(), Options{Tunnel: "plain", Paths: paths, Rounds: 5, Each: 2 * time.Second, Progress: &progress,
		Metrics: map[string]bool{RTT50: true, TCP: true, UDP64: true}})
	t.Log("\n" + progress.String())
	if err != nil || len(failures) > 0 {
		t.Fatal(failures, err)
	}
	for path, floor := range map[string]map[string]float64{
		Overlay: {RTT50: 0.75, TCP: 1.15, UDP64: 1.15},
		Direct:  {RTT50: 0.45, TCP: 1.35, UDP64: 1.6},
	} {
		got := Over(samples, "plain", path, Baseline)
		for _, m := range Metrics {
			f, asserted := floor[m.Key]
			if !asserted {
				continue
			}
			t.Logf("%s over %s, %s: %.2f, the floor is %.2f", path, Baseline, m.Title, got[m.Key], f)
			if m.Less && got[m.Key] > f || !m.Less && got[m.Key] < f {
				t.Errorf("%s over %s, %s: %.2f, the floor is %.2f", path, Baseline, m.Title, got[m.Key], f)
			}
		}
	}
}
