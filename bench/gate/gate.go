// Package gate holds figures that tests measure to a committed baseline, so that a change which makes something dearer is
// noticed before it is merged. docs/design/bench.md says what is held, and how a baseline is raised.
package gate

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// Variable asks for the baselines to be written anew where it is "raise" (make raise-gate).
const Variable = "RAVEN_GATE"

// File of baselines, beside the tests that check them.
const File = "testdata/gate.json"

// Raising says whether the baselines are being written anew.
func Raising() bool { return os.Getenv(Variable) == "raise" }

// Check fails the test where value is more than tolerance (0.1 is a tenth) above the baseline of that name. A value that is
// as far below passes, with a word: raise the gate, or what was won can be lost unnoticed. Tests that call it do not run in parallel.
func Check(t testing.TB, name string, value, tolerance float64) {
	t.Helper()
	baselines, err := read()
	if err != nil {
		t.Fatal(err)
	}
	if Raising() {
		baselines[name] = value
		if err := write(baselines); err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: the baseline is %g now", name, value)
		return
	}
	if fault, hint := Judge(baselines, name, value, tolerance); fault != "" {
		t.Error(fault)
	} else if hint != "" {
		t.Log(hint)
	}
}

// Over says whether value is too far above the baseline, where there is one.
func Over(t testing.TB, name string, value, tolerance float64) bool {
	t.Helper()
	baselines, err := read()
	if err != nil {
		t.Fatal(err)
	}
	base, ok := baselines[name]
	return ok && value > base*(1+tolerance)
}

// Known says whether there is a baseline of that name.
func Known(t testing.TB, name string) bool {
	t.Helper()
	baselines, err := read()
	if err != nil {
		t.Fatal(err)
	}
	_, ok := baselines[name]
	return ok
}

// Judge compares a value with its baseline: a fault where it is too high or has none, else a hint where it is much lower.
func Judge(baselines map[string]float64, name string, value, tolerance float64) (fault, hint string) {
	base, ok := baselines[name]
	switch {
	case !ok:
		return fmt.Sprintf("%s is %.4g and has no baseline: run `make raise-gate` and commit %s", name, value, File), ""
	case value > base*(1+tolerance):
		return fmt.Sprintf("%s is %.4g, over %.0f %% more than its baseline %.4g: make it cheaper, or where it is worth its price run "+
			"`make raise-gate`, commit %s and say why", name, value, 100*tolerance, base, File), ""
	case value < base*(1-tolerance):
		return "", fmt.Sprintf("%s is %.4g, over %.0f %% less than its baseline %.4g: `make raise-gate` keeps what was won", name, value, 100*tolerance, base)
	}
	return "", ""
}

func read() (map[string]float64, error) {
	baselines := map[string]float64{}
	text, err := os.ReadFile(File)
	if errors.Is(err, fs.ErrNotExist) {
		return baselines, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the gate's baselines: %w", err)
	}
	if err := json.Unmarshal(text, &baselines); err != nil {
		return nil, fmt.Errorf("read the gate's baselines in %s: %w", File, err)
	}
	return baselines, nil
}

func write(baselines map[string]float64) error {
	text, err := json.MarshalIndent(baselines, "", "  ") // sorted by name
	if err != nil {
		return fmt.Errorf("encode the gate's baselines: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(File), 0o755); err != nil {
		return fmt.Errorf("make the folder of the gate's baselines: %w", err)
	}
	if err := os.WriteFile(File, append(text, '\n'), 0o644); err != nil {
		return fmt.Errorf("write the gate's baselines: %w", err)
	}
	return nil
}
