package lab_test

import (
	"context"
	"errors"
	"testing"

	"github.com/ravencni/raven/test/lab"
	"github.com/ravencni/raven/test/lab/checks"
)

// prepared builds a lab, prepares it, and only then runs agents on all its nodes and lets every node and pod answer.
func prepared(t *testing.T, name string, spec lab.Spec, o lab.AgentOptions,
	prepare func(context.Context, *lab.Lab) error) *lab.Lab {
	t.Helper()
	ctx, l := start(t, name, spec)
	if err := prepare(ctx, l); err != nil {
		t.Fatal(err)
	}
	if err := l.StartAgents(ctx, o); err != nil {
		t.Fatal(err)
	}
	if err := l.ServeEcho(ctx); err != nil {
		t.Fatal(err)
	}
	return l
}

// bothWays runs f with acceleration on and off.
func bothWays(t *testing.T, f func(t *testing.T, acceleration string)) {
	t.Helper()
	for _, acceleration := range []string{"auto", "off"} {
		t.Run(acceleration, func(t *testing.T) { f(t, acceleration) })
	}
}

func TestHostFirewallsThatDropByDefaultAndATranslatedTunnelPortLetRavenWork(t *testing.T) {
	bothWays(t, func(t *testing.T, acceleration string) {
		l := prepared(t, "firewalls-"+acceleration, checks.Balanced(), lab.AgentOptions{Acceleration: acceleration},
			func(ctx context.Context, l *lab.Lab) error {
				return errors.Join(checks.RaiseHostFirewalls(ctx, l), checks.RaiseLoadBalancer(ctx, l))
			})
		run(t, l, checks.ForwardDrop, checks.InputEstablished, checks.TunnelPortTranslated)
	})
}
