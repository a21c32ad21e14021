package lab_test

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"github.com/ravencni/raven/test/lab"
)

func start(t *testing.T, name string, spec lab.Spec) (context.Context, *lab.Lab) {
	t.Helper()
	if !lab.Enclosed() {
		t.Skip("needs root to make namespaces")
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	l, err := lab.Start(ctx, name, spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return ctx, l
}

func TestWithoutAgentsRegionsAreClosedAndTheirInsideWorks(t *testing.T) {
	ctx, l := start(t, "bare", lab.Tutorial())
	if err := l.ServeEcho(ctx); err != nil {
		t.Fatal(err)
	}
	pod := l.Host("hangzhou-2/a")
	for _, to := range []string{"10.244.18.4", "fd00:10:244:18::4"} {
		r, err := pod.Ping(ctx, netip.MustParseAddr(to), 1)
		if err != nil {
			t.Fatal(err)
		}
		if len(r.TTLs) != 1 || r.TTLs[0] != 62 {
			t.Errorf("ping within the region: %q, want ttl=62", r.Output)
		}
		for _, network := range []string{"tcp", "udp"} {
			if _, err := pod.Ask(ctx, network, netip.MustParseAddr(to)); err != nil {
				t.Error(err)
			}
		}
	}
	if _, err := l.Host("hangzhou-1").Ping(ctx, netip.MustParseAddr("203.0.113.10"), 1); err != nil {
		t.Errorf("an edge node must reach a public address through its NAT box: %v", err)
	}
	short, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if _, err := pod.Ping(short, netip.MustParseAddr("10.244.17.19"), 1, "-W", "1"); err == nil {
		t.Error("a pod reached another region without Raven")
	}
	if _, err := l.Host("cloud-1").Ping(short, netip.MustParseAddr("172.16.1.90"), 1); err == nil {
		t.Error("a cloud node reached an edge node without Raven")
	}
}
