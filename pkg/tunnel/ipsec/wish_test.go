package ipsec

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/ravencni/raven/pkg/topology"
)

func gatewayPlan() *topology.Plan {
	return &topology.Plan{
		Node: "cloud-1", NodeIP4: netip.MustParseAddr("192.168.0.195"), LocalPrefixes: prefixes("10.244.20.0/24"),
		Throws: addresses("192.168.0.196", "203.0.113.10", "172.16.2.103"),
		Prefixes: []topology.Prefix{
			{Prefix: netip.MustParsePrefix("192.168.0.196/32"), Scope: topology.ScopeInRegion},
			{Prefix: netip.MustParsePrefix("10.244.21.0/24"), Scope: topology.ScopeInRegion},
			{Prefix: netip.MustParsePrefix("172.16.2.103/32"), Scope: topology.ScopeRemote},
			{Prefix: netip.MustParsePrefix("172.16.2.104/32"), Scope: topology.ScopeRemote},
			{Prefix: netip.MustParsePrefix("fd00:1::/64"), Scope: topology.ScopeRemote},
		},
		Tunnel: &topology.Tunnel{Driver: Name, ListenPort: 4500, MTU: 1400},
	}
}

func TestEachPrefixOfThisSideHasAnAddressAndNoTunnelsOuterAddressIsTaken(t *testing.T) {
	want := addresses("10.244.20.1", "10.244.21.1", "172.16.2.104", "192.168.0.195", "192.168.0.196", "fd00:1::1")
	if got := standIns(gatewayPlan()); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestOneEndDialsAndABadPeerCostsOnlyItself(t *testing.T) {
	plan := gatewayPlan()
	plan.Tunnel.Peers = []topology.Peer{
		{Region: "a", Node: "zurich", Endpoint: endpoint("203.0.113.1:4500")},
		{Region: "b", Node: "aachen", Endpoint: endpoint("203.0.113.2:4500")},
		{Region: "c", Node: "berlin", Endpoint: endpoint("203.0.113.3:4500"), KeepaliveSeconds: 25},
		{Region: "d", Node: "cairo"},
		{Region: "e", Node: "delhi", Endpoint: endpoint("0.0.0.0:4500")},
		{Region: "f", Node: "zurich"},
		{Region: "g", Node: "cloud-1"},
	}
	want, errs := desired(plan, "secret")
	if len(errs) != 3 {
		t.Errorf("errors are %v, want one each for delhi, the second zurich and this node itself", errs)
	}
	dials := map[string]bool{}
	for _, p := range want.Peers {
		dials[p.Node] = p.Dial
	}
	for node, dial := range map[string]bool{"zurich": true, "aachen": false, "berlin": true, "cairo": false, "delhi": false} {
		if got, ok := dials[node]; !ok || got != dial {
			t.Errorf("%s: dialled %v (there: %v), want %v", node, got, ok, dial)
		}
	}
	if err := want.check(); err != nil {
		t.Error(err)
	}
}
