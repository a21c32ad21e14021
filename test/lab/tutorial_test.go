package lab_test

import (
	"context"
	"testing"
	"time"

	"github.com/ravencni/raven/test/lab"
	"github.com/ravencni/raven/test/lab/checks"
)

// withAgents builds a lab, runs agents on all its nodes and lets every node and pod answer.
func withAgents(t *testing.T, name string, spec lab.Spec, o lab.AgentOptions) *lab.Lab {
	t.Helper()
	ctx, l := start(t, name, spec)
	startAgents(ctx, t, l, o)
	return l
}

// startAgents runs agents on all nodes and lets every node and pod answer. Where the test fails it shows their logs.
func startAgents(ctx context.Context, t *testing.T, l *lab.Lab, o lab.AgentOptions) {
	t.Helper()
	t.Cleanup(func() {
		for _, node := range l.Nodes() {
			if a := l.Agent(node); a != nil && t.Failed() {
				t.Logf("log of the agent on %s ends with:\n%s", node, a.LogTail(15))
			}
		}
	})
	if err := l.StartAgents(ctx, o); err != nil {
		t.Fatal(err)
	}
	if err := l.ServeEcho(ctx); err != nil {
		t.Fatal(err)
	}
}

// run makes each check a subtest.
func run(t *testing.T, l *lab.Lab, all ...checks.Check) {
	t.Helper()
	for _, c := range all {
		t.Run(c.Name, func(t *testing.T) {
			o := checks.One(t.Context(), "", l, c)
			if o.Err != nil {
				t.Errorf("not so: %s: %v", c.Says, o.Err)
				return
			}
			t.Logf("%s (%s): %s", c.Says, o.Took.Round(time.Millisecond), o.Evidence)
		})
	}
}

// everyonesTraffic runs all conversations of the tutorial while the wire between the regions is watched.
func everyonesTraffic(t *testing.T, l *lab.Lab) {
	t.Helper()
	evidence, err := checks.WatchTheWire(t.Context(), l, func(ctx context.Context) error {
		checks.Run(ctx, "", l, []checks.Group{checks.Reach(), {checks.InnerOnOverlay}}, func(o checks.Outcome) {
			if o.Err != nil {
				t.Errorf("not so: %s: %v", o.Check.Says, o.Err)
				return
			}
			t.Logf("%s: %s", o.Check.Says, o.Evidence)
		})
		return nil
	})
	if err != nil {
		t.Errorf("what crossed the router: %v", err)
	}
	t.Log(evidence)
}

// everywhere lists what holds with acceleration on, off and refused by the kernel, and on hosts set up strictly.
func everywhere() []checks.Check {
	return []checks.Check{
		checks.MTU, checks.VirtualIP, checks.Masquerade, checks.PolicyRejectsNewFlows, checks.PolicyRevoked,
		checks.Spoofing, checks.BadInput, checks.TenApplies, checks.SurviveKill,
	}
}

func TestRegionsTalkAcceleratedAndOnTheBaseline(t *testing.T) {
	for _, acceleration := range []string{"auto", "off"} {
		t.Run(acceleration, func(t *testing.T) {
			t.Parallel() // as in the demo
			ctx, l := start(t, "tutorial-"+acceleration, lab.Tutorial())
			before, err := checks.Kernels(ctx, l)
			if err != nil {
				t.Fatal(err)
			}
			startAgents(ctx, t, l, lab.AgentOptions{Acceleration: acceleration})
			everyonesTraffic(t, l)
			run(t, l, checks.Repair) // while agents have had little to do, as on a node
			if acceleration == "auto" {
				run(t, l, checks.Attachments, checks.Dumps, checks.RedirectPod, checks.RedirectNode,
					checks.ForeignUse)
			} else {
				run(t, l, checks.OwnedComeBack)
			}
			run(t, l, everywhere()...)
			run(t, l, checks.OutOfRegion(before), checks.CleanedUp(before))
		})
	}
}
