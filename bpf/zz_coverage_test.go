package bpf

import (
	"testing"
)

// TestZEveryReasonWasReached runs after the others (go test runs files and functions in order) and holds them to the
// promise that every exit of the programs is tried. Under -run it has nothing to say.
func TestZEveryReasonWasReached(t *testing.T) {
	if len(reached) < int(ReasonMax)/2 {
		t.Skip("only part of the tests ran")
	}
	for r := Reason(0); r < ReasonMax; r++ {
		// A write that fails half-way would be a bug of ours, and there is no way to provoke it.
		if !reached[r] && r != FromPodRavenReasonRAVEN_DROP_WRITE_FAILED {
			t.Errorf("no test ends with reason %d", r)
		}
	}
}
