package filter

import (
	"net/netip"
	"os/exec"
	"testing"

	"github.com/ravencni/raven/pkg/datapath"
	"github.com/ravencni/raven/pkg/topology"
	"github.com/ravencni/raven/pkg/tunnel"
	"github.com/ravencni/raven/test/netns"
)

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return string(out)
}

func pfx(s string) netip.Prefix { return netip.MustParsePrefix(s) }
func addr(s string) netip.Addr  { return netip.MustParseAddr(s) }

func gatewayPlan() (*topology.Plan, datapath.Host) {
	return &topology.Plan{
			Node: "hangzhou-1", Region: "hangzhou", Role: topology.RoleGateway,
			NodeIP4: addr("192.168.1.1"), NodeIP6: addr("fd01::1"),
			LocalPrefixes: []netip.Prefix{pfx("10.1.1.0/24"), pfx("fd10:1:1::/64")},
			Overlay:       &topology.Overlay{MTU: 1450, Underlay: addr("192.168.1.1"), Members: []netip.Addr{addr("192.168.1.2"), addr("fd01::2")}},
			Tunnel:        &topology.Tunnel{Driver: "wireguard", ListenPort: 4500, MTU: 1400},
			Prefixes: []topology.Prefix{
				{Prefix: pfx("10.1.2.0/24"), Scope: topology.ScopeInRegion}, {Prefix: pfx("192.168.1.2/32"), Scope: topology.ScopeInRegion},
				{Prefix: pfx("10.2.0.0/16"), Scope: topology.ScopeRemote}, {Prefix: pfx("fd10:2::/48"), Scope: topology.ScopeRemote},
			},
			Throws: []netip.Addr{addr("192.168.1.2"), addr("8.8.8.8")},
		}, datapath.Host{
			Underlay: datapath.Link{Name: "eth0", Index: 2, MTU: 1500}, Underlays: []datapath.Link{{Name: "eth0", Index: 2, MTU: 1500}},
			Tunnel: tunnel.Device{Name: "raven-wg0", MTU: 1400},
		}
}

func mustApply(t *testing.T, a *Applier, plan *topology.Plan, host datapath.Host) int {
	t.Helper()
	n, err := a.Apply(t.Context(), plan, host)
	if err != nil {
		t.Fatalf("apply: %v", err)
	}
	return n
}

func TestASecondApplyWritesNothing(t *testing.T) {
	netns.Run(t, func(t *testing.T) {
		a := New(Options{})
		plan, host := gatewayPlan()
		if n := mustApply(t, a, plan, host); n != 1 {
			t.Errorf("first apply: %d transactions", n)
		}
		t.Log(run(t, "nft", "list", "ruleset"))
		for range 10 {
			if n := mustApply(t, a, plan, host); n != 0 {
				t.Errorf("apply without a change: %d transactions", n)
			}
		}
	})
}
