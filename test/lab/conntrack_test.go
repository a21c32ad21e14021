package lab_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ravencni/raven/test/lab"
	"github.com/ravencni/raven/test/lab/checks"
)

func TestConntrackEndsAsItWouldWithoutAcceleration(t *testing.T) {
	left := map[string]checks.Histogram{}
	bothWays(t, func(t *testing.T, acceleration string) {
		l := withAgents(t, "conntrack-"+acceleration, lab.StraightPair(),
			lab.AgentOptions{Acceleration: acceleration, Driver: "plain"})
		left[acceleration] = checks.Histogram{}
		run(t, l, checks.ShortConnections(left[acceleration]))
		if acceleration == "auto" {
			run(t, l, checks.ClosingsAfterUnseenStreams)
		}
	})
	if diff := cmp.Diff(left["off"], left["auto"]); len(left) == 2 && diff != "" {
		t.Errorf("conntrack without acceleration (-) and with it (+):\n%s", diff)
	}
}
