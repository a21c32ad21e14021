package lab_test

import (
	"testing"

	"github.com/ravencni/raven/test/lab"
	"github.com/ravencni/raven/test/lab/checks"
)

func TestALoopDiesByTTL(t *testing.T) {
	for _, acceleration := range []string{"auto", "off"} {
		t.Run(acceleration, func(t *testing.T) {
			l := withAgents(t, "loop-"+acceleration, lab.Pair(), lab.AgentOptions{Acceleration: acceleration, Driver: "plain"})
			run(t, l, checks.Loop)
		})
	}
}
