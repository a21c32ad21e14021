// Package faults breaks nodes of a lab in every way that users met, and asks ravenctl what is wrong.
package faults

import (
	"os"
	"testing"

	"github.com/ravencni/raven/test/lab"
)

func TestMain(m *testing.M) {
	if os.Geteuid() != 0 {
		os.Exit(m.Run()) // every test then says what it misses
	}
	os.Exit(lab.Enclose("faults", m.Run))
}
