package lab_test

import (
	"testing"

	"github.com/ravencni/raven/test/lab"
	"github.com/ravencni/raven/test/lab/checks"
)

func TestStrictReversePathFiltersAndASecondCardChangeNothing(t *testing.T) {
	bothWays(t, func(t *testing.T, acceleration string) {
		l := prepared(t, "strict-"+acceleration, lab.Tutorial(), lab.AgentOptions{Acceleration: acceleration},
			checks.RaiseStrictSources)
		conversations(t, l, checks.Reach())
		run(t, l, checks.StrictSources, checks.MTU, checks.VirtualIP)
	})
}

// conversations runs checks side by side.
func conversations(t *testing.T, l *lab.Lab, group checks.Group) {
	t.Helper()
	passed := 0
	checks.Run(t.Context(), "", l, []checks.Group{group}, func(o checks.Outcome) {
		if o.Err != nil {
			t.Errorf("not so: %s: %v", o.Check.Says, o.Err)
			return
		}
		passed++
	})
	t.Logf("%d of %d conversations passed", passed, len(group))
}
