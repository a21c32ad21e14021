package lab_test

import (
	"testing"

	"github.com/ravencni/raven/test/lab"
	"github.com/ravencni/raven/test/lab/checks"
)

func TestRulesAndRoutesThatANetworkManagerRemovesAreBackAtOnce(t *testing.T) {
	bothWays(t, func(t *testing.T, acceleration string) {
		l := withAgents(t, "repair-"+acceleration, lab.Tutorial(), lab.AgentOptions{Acceleration: acceleration})
		run(t, l, checks.Repair)
	})
}
