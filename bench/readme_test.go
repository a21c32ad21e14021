package bench

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestTheReadmesFiguresAreThoseOfTheLatestRun(t *testing.T) {
	text, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	r, err := Read(filepath.Join("results", LatestFile))
	if errors.Is(err, fs.ErrNotExist) {
		if !strings.Contains(string(text), readmeBegin+"\nNo run is kept yet.\n"+readmeEnd) {
			t.Errorf("README.md has figures and bench/results/%s is not there: run make bench", LatestFile)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	want, err := r.PutFigures(string(text))
	if err != nil {
		t.Fatal(err)
	}
	if want != string(text) {
		t.Errorf("README.md does not say what bench/results/%s says: run make bench-report", LatestFile)
	}
	table, err := os.ReadFile(filepath.Join("results", "latest.md"))
	if err != nil {
		t.Fatal(err)
	}
	if string(table) != r.Markdown() {
		t.Errorf("bench/results/latest.md does not say what %s says: run make bench-report", LatestFile)
	}
}

func TestWhatWasNotMeasuredIsAbsent(t *testing.T) {
	r := Result{Schema: Schema, Tunnels: map[string]TunnelResult{}, Samples: []Sample{
		{Tunnel: "plain", Path: Overlay, Values: map[string]float64{RTT50: 20, TCP: 2e9}},
		{Tunnel: "plain", Path: Original, Values: map[string]float64{RTT50: 40}},
	}}
	r.Tunnels["plain"] = Summarize(r.Samples, Options{Tunnel: "plain", Rounds: 1})
	if err := r.Conclude(); err != nil {
		t.Fatal(err)
	}
	if len(r.Ratios) != 1 || r.Ratios["rtt_plain"] != 0.5 || len(r.Figures) != 0 {
		t.Errorf("ratios %v, figures %v: want rtt_plain 0.5 and nothing else", r.Ratios, r.Figures)
	}
	figures := r.ReadmeFigures()
	if !strings.Contains(figures, "| no encryption (VXLAN): RTT p50, µs | 40.0 | | 20.0 | | 0.50 |\n") {
		t.Errorf("the README would say\n%s", figures)
	}
	if strings.Contains(figures, "0.00") || strings.Contains(r.Markdown(), "0.00") {
		t.Errorf("something that was not measured is said to be nothing:\n%s\n%s", figures, r.Markdown())
	}
}

func TestAnotherMeasurementsResultIsTakenIn(t *testing.T) {
	folder := t.TempDir()
	for file, text := range map[string]string{
		CNIFile:          `{"added_p50_ms": 1.5}`,
		ControlPlaneFile: `{"first_sync_seconds": 12.25, "nodes": 10000}`,
	} {
		if err := os.WriteFile(filepath.Join(folder, file), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var r Result
	if err := r.Merge(folder); err != nil {
		t.Fatal(err)
	}
	if err := r.Conclude(); err != nil {
		t.Fatal(err)
	}
	if r.Figures["cni_add_p50_ms"] != 1.5 || r.Figures["controller_10k_sync_s"] != 12.25 || len(r.Figures) != 2 {
		t.Errorf("figures %v", r.Figures)
	}
	// A smaller cluster's figure is not that of 10,000 nodes.
	r.ControlPlane = []byte(`{"first_sync_seconds": 1, "nodes": 100}`)
	if err := r.Conclude(); err != nil {
		t.Fatal(err)
	}
	if _, ok := r.Figures["controller_10k_sync_s"]; ok {
		t.Error("the figure of 100 nodes is given for 10,000")
	}
}
