package route

import (
	"net/netip"
	"testing"
	"time"

	"github.com/ravencni/raven/pkg/topology"
)

// manyPrefixes is half IPv4, half IPv6.
func manyPrefixes(n int) []topology.Prefix {
	prefixes := make([]topology.Prefix, 0, n)
	for i := range n / 2 {
		v4 := netip.PrefixFrom(netip.AddrFrom4([4]byte{100, byte(64 + i>>8), byte(i), 0}), 24)
		v6 := netip.PrefixFrom(netip.AddrFrom16([16]byte{0xfd, 1, 0, 0, 0, byte(i >> 8), byte(i)}), 64)
		for _, p := range []netip.Prefix{v4, v6} {
			prefixes = append(prefixes, topology.Prefix{Prefix: p, Scope: topology.ScopeRemote, NextHop: "region/cloud"})
		}
	}
	return prefixes
}

// A cluster of 10,000 nodes with two families has 20,000 prefixes; each has a route and its unreachable twin.
func TestTwentyThousandRoutesAreMadeDiffedAndMovedInTime(t *testing.T) {
	plan := memberPlan()
	plan.Prefixes = manyPrefixes(20000)
	onNode(t, plan, func(t *testing.T, n *node) {
		step := func(name string, want int, limit time.Duration) {
			t.Helper()
			began := time.Now()
			got := n.apply(t)
			took := time.Since(began)
			t.Logf("%s: %d writes in %v", name, got, took)
			if got != want || took > limit {
				t.Errorf("%s: %d writes in %v, want %d within %v", name, got, took, want, limit)
			}
		}
		// Limits are some ten times what an idle machine takes.
		step("make", 2*20000+3+2, 10*time.Second)
		step("diff", 0, 2*time.Second)
		run(t, "ip route flush table 9027")
		step("repair", 2*10000+2, 5*time.Second)
		gw := addr("10.0.0.3")
		n.plan.NextHops[0].Underlay, n.plan.NextHops[0].MAC = gw, topology.VTEPMAC(gw)
		step("move to another gateway", 20000, 10*time.Second)
		n.plan = &topology.Plan{Role: topology.RoleNone}
		step("remove", 2*20000+3+2, 10*time.Second)
	})
}
