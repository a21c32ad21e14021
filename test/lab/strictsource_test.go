package lab_test

import (
	"testing"

	"github.com/ravencni/raven/test/lab"
	"github.com/ravencni/raven/test/lab/checks"
)

func TestStrictReversePathFiltersAndASecondCardChangeNothing(t *testing.T) {
	bothWays(t, func(t *testing.T, acceleration string) {
		t.Parallel() // as in the demo
		l := prepared(t, "strict-"+acceleration, lab.Tutorial(), lab.AgentOptions{Acceleration: acceleration},
			checks.RaiseStrictSources)
		everyonesTraffic(t, l)
		run(t, l, checks.StrictSources)
		if acceleration == "auto" {
			run(t, l, checks.Attachments, checks.RedirectPod, checks.RedirectNode)
		}
		run(t, l, everywhere()...)
	})
}
