package cni

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/ravencni/raven/bench/gate"
)

// Each package that is linked into the plugin is initialised, and its pages are read, at every start: the number of packages is the
// same on any machine, and time is not.
func TestGateOfWhatThePluginStartsWith(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "../../cmd/"+Type).Output()
	if err != nil {
		t.Fatalf("list the packages of the plugin: %v", err)
	}
	gate.Check(t, "packages in "+Type, float64(len(strings.Fields(string(out)))), 0.1)
}
