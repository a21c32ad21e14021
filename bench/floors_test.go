package bench

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/ravencni/raven/test/lab"
)

func TestMain(m *testing.M) {
	if os.Geteuid() != 0 {
		os.Exit(m.Run())
	}
	os.Exit(lab.Enclose("bench-test", m.Run))
}

// TestAccelerationIsWorthItOnAPlainTunnel holds the accelerated datapath to its floors, in medians of five alternations.
// The raw samples go to the file that RAVEN_BENCH_OUT names.
func TestAccelerationIsWorthItOnAPlainTunnel(t *testing.T) {
	if !lab.Enclosed() {
		t.Skip("needs root to make namespaces")
	}
	if raceDetector {
		t.Skip("the race detector would be measured too: make test-floors runs this without")
	}
	var progress bytes.Buffer
	r, err := Run(t.Context(), Options{Driver: "plain", Rounds: 5, Each: 2 * time.Second, Progress: &progress})
	t.Log("\n" + progress.String())
	if err != nil {
		t.Fatal(err)
	}
	var table bytes.Buffer
	if err := r.Table(&table); err != nil {
		t.Fatal(err)
	}
	t.Log("\n" + table.String())
	if out := os.Getenv("RAVEN_BENCH_OUT"); out != "" {
		keep(t, r, out)
	}
	for variant, floor := range map[string]Ratios{
		"overlay": {RTT50: 0.75, TCP: 1.15, UDP64: 1.15},
		"direct":  {RTT50: 0.45, TCP: 1.35, UDP64: 1.6},
	} {
		got := r.Ratios[variant]
		if got.RTT50 > floor.RTT50 {
			t.Errorf("%s: a round trip takes %.2f of the baseline's time, the floor is %.2f", variant, got.RTT50, floor.RTT50)
		}
		if got.TCP < floor.TCP {
			t.Errorf("%s: TCP carries %.2f of the baseline's throughput, the floor is %.2f", variant, got.TCP, floor.TCP)
		}
		if got.UDP64 < floor.UDP64 {
			t.Errorf("%s: 64-byte UDP arrives at %.2f of the baseline's rate, the floor is %.2f", variant, got.UDP64, floor.UDP64)
		}
	}
}

func keep(t *testing.T, r Result, out string) {
	t.Helper()
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Dir(out), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(out, append(text, '\n'), 0o644); err != nil {
		t.Fatal(err)
	}
}
