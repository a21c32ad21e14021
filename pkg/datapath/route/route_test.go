package route

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/ravencni/raven/pkg/topology"
	"github.com/ravencni/raven/pkg/tunnel"
	"github.com/ravencni/raven/test/netns"
)

func TestAMembersTablesAreWhatThePlanSays(t *testing.T) {
	onNode(t, memberPlan(), func(t *testing.T, n *node) {
		if got := n.apply(t); got != 11 {
			t.Errorf("%d writes, want 2 rules, 4 routes, the twins of 2 and 3 throws", got)
		}
		expect(t,
			"100: from all lookup 9027 proto 114",
			"10.2.1.0/24 via 10.0.0.1 dev raven0 proto 114 src 10.0.0.5 onlink mtu 1355",
			"unreachable 10.2.1.0/24 proto 114 metric 4294967295",
			"unreachable 10.3.1.0/24 proto 114",
			"throw 10.0.0.1 proto 114",
			"throw 203.0.113.7 proto 114",
			"fd00:2:1::/64 via fe80::a80f:aff:fe00:1 dev raven0 proto 114 src fd00::5 metric 1024 mtu 1355 pref medium",
			"unreachable fd00:2:1::/64 dev lo proto 114 metric 4294967295 pref medium",
			"unreachable fd00:3:1::/64 dev lo proto 114 metric 1024 pref medium",
			"throw fd00::1 dev lo proto 114 metric 1024 pref medium",
		)
		if strings.Contains(show(t), "9028 proto") {
			t.Errorf("a member has a rule to table 9028:\n%s", show(t))
		}
	})
}

func TestAGatewaysTablesAreWhatThePlanSays(t *testing.T) {
	onNode(t, gatewayPlan(), func(t *testing.T, n *node) {
		n.apply(t)
		if out := strings.ReplaceAll(show(t), " linkdown", ""); !strings.Contains(out, "10.2.1.0/24 dev raven-wg0 proto 114 scope link src 10.0.0.1 mtu 1405") {
			t.Errorf("got\n%s", out)
		}
		expect(t,
			"100: from all lookup 9027 proto 114",
			"100: from all iif raven-wg0 lookup 9028 proto 114",
			"10.0.0.5 via 10.0.0.5 dev raven0 proto 114 src 10.0.0.1 onlink mtu 1450",
			"10.1.2.0/24 via 10.0.0.5 dev raven0 proto 114 src 10.0.0.1 onlink mtu 1450",
			"throw 10.0.0.5 proto 114",
			"fd00:1:2::/64 via fe80::a80f:aff:fe00:5 dev raven0 proto 114 src fd00::1 metric 1024 mtu 1450 pref medium",
		)
	})
}

func TestTenAppliesInARowMakeNoWrite(t *testing.T) {
	for _, plan := range []*topology.Plan{memberPlan(), gatewayPlan()} {
		t.Run(string(plan.Role), func(t *testing.T) {
			onNode(t, plan, func(t *testing.T, n *node) {
				n.apply(t)
				monitor := netns.NewMonitor(t)
				monitor.Settle(t)
				for range 10 {
					if got := n.apply(t); got != 0 {
						t.Fatalf("an apply of the same plan counted %d writes", got)
					}
				}
				if events := monitor.Settle(t); len(events) != 0 {
					t.Fatalf("the kernel saw %v", events)
				}
			})
		})
	}
}

func TestAnObjectDamagedByHandComesBackWithOneWrite(t *testing.T) {
	for _, damage := range []string{
		"ip route del 10.2.1.0/24 table 9027",
		"ip route del unreachable 10.3.1.0/24 table 9027",
		"ip route del unreachable 10.2.1.0/24 table 9027 metric 4294967295",
		"ip -6 route del unreachable fd00:2:1::/64 table 9027 metric 4294967295",
		"ip route replace blackhole 10.2.1.0/24 table 9027 proto 114 metric 4294967295",
		"ip route del throw 203.0.113.7 table 9027",
		"ip -6 route del fd00:2:1::/64 table 9027",
		"ip -6 route del unreachable fd00:3:1::/64 table 9027",
		"ip -6 route del throw fd00::1 table 9027",
		"ip rule del priority 100 table 9027",
		"ip -6 rule del priority 100 table 9027",
		"ip route replace 10.2.1.0/24 via 10.0.0.1 dev raven0 onlink table 9027 proto 114 src 10.0.0.5 mtu 1400",
		"ip route replace 10.2.1.0/24 dev eth0 table 9027",
		"ip route replace 10.2.1.0/24 via 10.0.0.1 dev raven0 onlink table 9027 src 10.0.0.5 mtu 1355",
		"ip route replace blackhole 10.2.1.0/24 table 9027 proto 114",
		"ip route add 10.2.1.0/24 dev eth0 table 9027 metric 5",
		"ip route add 198.51.100.0/24 dev eth0 table 9027",
		"ip route add default dev eth0 table 9028",
		"ip route append 10.2.1.0/24 dev eth0 table 9027",
		"ip -6 route replace fd00:2:1::/64 dev eth0 metric 1024 table 9027",
		"ip -6 route append fd00:2:1::/64 via fe80::1 dev raven0 metric 1024 table 9027",
		"ip -6 route add 2001:db8::/64 dev eth0 table 9028",
		"ip rule add priority 100 table 9027 iif eth0 protocol 114",
		"ip rule add priority 100 table 9028 protocol 114",
	} {
		t.Run(damage, func(t *testing.T) {
			onNode(t, memberPlan(), func(t *testing.T, n *node) {
				n.apply(t)
				before := show(t)
				run(t, damage)
				if got := n.apply(t); got != 1 {
					t.Errorf("the repair counted %d writes, want 1", got)
				}
				if after := show(t); after != before {
					t.Errorf("before:\n%s\nafter:\n%s", before, after)
				}
				if got := n.apply(t); got != 0 {
					t.Errorf("after the repair %d writes were due", got)
				}
			})
		})
	}
}

func TestForeignRulesAndRoutesElsewhereStay(t *testing.T) {
	onNode(t, memberPlan(), func(t *testing.T, n *node) {
		for _, foreign := range []string{
			"ip rule add priority 100 table 77",
			"ip rule add priority 100 table 9027 fwmark 1",
			"ip rule add priority 99 table 9027 protocol 114",
			"ip route add 198.51.100.0/24 dev eth0",
			"ip route add 198.51.100.0/24 dev eth0 table 77 protocol 114",
			"ip -6 rule add priority 100 table 77",
			"ip -6 route add 2001:db8::/64 dev eth0 table 77 protocol 114",
		} {
			run(t, foreign)
		}
		elsewhere := func() string {
			return run(t, "ip rule show") + run(t, "ip -6 rule show") + run(t, "ip route show table main") + run(t, "ip route show table 77") +
				run(t, "ip -6 route show table 77") + run(t, "ip -6 route show table main")
		}
		before := elsewhere()
		n.apply(t)
		n.apply(t)
		if err := New().Cleanup(t.Context()); err != nil {
			t.Fatal(err)
		}
		if after := elsewhere(); after != before {
			t.Errorf("before:\n%s\nafter:\n%s", before, after)
		}
	})
}

func TestARoleChangeFromGatewayToMemberToNoneLeavesNothing(t *testing.T) {
	netns.Run(t, func(t *testing.T) {
		netns.Veth(t, netns.End{In: netns.Current(t), Name: "eth0", Addresses: []string{gatewayIP + "/24", "fd00::1/64"}},
			netns.End{In: netns.New(t), Name: "wire"})
		untouched := show(t)
		gw := &node{plan: gatewayPlan()}
		gw.prepare(t)
		gw.apply(t)

		// The other node of the region is the gateway now.
		member := &node{plan: gatewayPlan()}
		member.plan.Role, member.plan.Tunnel = topology.RoleMember, nil
		member.plan.NextHops[1] = member.plan.NextHops[0]
		member.plan.NextHops[1].ID = "region/cloud"
		member.plan.Prefixes = slices.DeleteFunc(member.plan.Prefixes, func(p topology.Prefix) bool {
			return p.Scope == topology.ScopeInRegion
		})
		member.prepare(t)
		member.apply(t)
		if out := show(t); strings.Contains(out, "9028 proto") || strings.Contains(out, "wg0") || strings.Contains(out, "10.1.2.0") {
			t.Errorf("the member kept something of the gateway's:\n%s", out)
		}
		if got := member.apply(t); got != 0 {
			t.Errorf("%d writes were left over", got)
		}

		none := &node{plan: &topology.Plan{Role: topology.RoleNone}}
		none.apply(t)
		if out := show(t); out != untouched {
			t.Errorf("want\n%s\ngot\n%s", untouched, out)
		}
	})
}

func TestCleanupRemovesAHalfMadeStateAndThenNothing(t *testing.T) {
	onNode(t, gatewayPlan(), func(t *testing.T, n *node) {
		untouched := show(t)
		n.apply(t)
		run(t, "ip rule del priority 100 table 9027")
		run(t, "ip link del raven0")
		run(t, "ip -6 route flush table 9028")
		for range 2 {
			if err := New().Cleanup(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if out := show(t); out != untouched {
			t.Errorf("want\n%s\ngot\n%s", untouched, out)
		}
	})
}

func TestATunnelThatCarriesEthernetIsReachedByThePeersVTEP(t *testing.T) {
	onNode(t, gatewayPlan(), func(t *testing.T, n *node) {
		run(t, "ip link add raven-plain0 mtu 1450 type vxlan id 201 dstport 4500 nolearning")
		run(t, "ip link set raven-plain0 up")
		index, err := deviceIndex("raven-plain0")
		if err != nil {
			t.Fatal(err)
		}
		n.host.Tunnel = tunnel.Device{Name: "raven-plain0", Index: index, Ethernet: true, MTU: 1450}
		n.apply(t)
		expect(t,
			"100: from all iif raven-plain0 lookup 9028 proto 114",
			"10.2.1.0/24 via 172.16.0.1 dev raven-plain0 proto 114 src 10.0.0.1 onlink mtu 1405",
			"fd00:2:1::/64 via fe80::a80f:acff:fe10:1 dev raven-plain0 proto 114 src fd00::1 metric 1024 mtu 1405 pref medium",
		)
		if got := n.apply(t); got != 0 {
			t.Errorf("a second apply made %d writes", got)
		}
	})
}

func TestEachPeersPrefixesLeaveByItsOwnDevice(t *testing.T) {
	plan := gatewayPlan()
	plan.NextHops = append(plan.NextHops, topology.NextHop{ID: "region/far", Kind: topology.KindTunnel, Node: "far-1", MTU: 1300},
		topology.NextHop{ID: "region/new", Kind: topology.KindTunnel, Node: "new-1", MTU: 1300})
	plan.Prefixes = append(plan.Prefixes, topology.Prefix{Prefix: prefix("10.4.0.0/16"), Scope: topology.ScopeRemote, NextHop: "region/far"},
		topology.Prefix{Prefix: prefix("10.5.0.0/16"), Scope: topology.ScopeRemote, NextHop: "region/new"})
	onNode(t, plan, func(t *testing.T, n *node) {
		run(t, "ip tuntap add raven-far0 mode tun")
		run(t, "ip link set raven-far0 up")
		index, err := deviceIndex("raven-far0")
		if err != nil {
			t.Fatal(err)
		}
		first := n.host.Tunnel
		first.Peer = "cloud-1"
		n.host.Tunnel, n.host.TunnelPerPeer = tunnel.Device{}, []tunnel.Device{{Name: "raven-far0", Index: index, Peer: "far-1"}, first}
		if _, err := New().Apply(t.Context(), n.plan, n.host); err == nil || !strings.Contains(err.Error(), "region/new: there is no tunnel device") {
			t.Errorf("a peer without a device gives the error %v", err)
		}
		expect(t, "100: from all iif raven-far0 lookup 9028 proto 114", "100: from all iif raven-wg0 lookup 9028 proto 114",
			"unreachable 10.5.0.0/16 proto 114")
		for _, want := range []string{"10.2.1.0/24 dev raven-wg0 ", "10.4.0.0/16 dev raven-far0 "} {
			if out := show(t); !strings.Contains(out, want) {
				t.Errorf("there is no %q:\n%s", want, out)
			}
		}
	})
}

func TestDirectNextHopsLeaveByTheUnderlayWithoutEncapsulation(t *testing.T) {
	plan := memberPlan()
	plan.NextHops = append(plan.NextHops,
		topology.NextHop{ID: "region/cloud/ipv6", Kind: topology.KindDirect, Node: "edge-1", Underlay: addr("fd00::1"), MTU: 1400},
		topology.NextHop{ID: "region/far", Kind: topology.KindDirect, Node: "edge-1", Underlay: addr("192.0.2.1"), MTU: 1400})
	plan.NextHops[0].Kind = topology.KindDirect
	plan.Prefixes[2].NextHop = "region/cloud/ipv6"
	onNode(t, plan, func(t *testing.T, n *node) {
		n.apply(t)
		expect(t,
			"10.2.1.0/24 via 10.0.0.1 dev eth0 proto 114 src 10.0.0.5 onlink mtu 1355",
			"fd00:2:1::/64 via fd00::1 dev eth0 proto 114 src fd00::5 metric 1024 onlink mtu 1400 pref medium")
		if got := n.apply(t); got != 0 {
			t.Errorf("a second apply made %d writes", got)
		}
		// A neighbour that is not on-link cannot be a direct next hop, and an IPv6 prefix has none of IPv4.
		n.plan.Prefixes[0].NextHop = "region/far"
		n.plan.Prefixes[2].NextHop = "region/cloud"
		if _, err := New().Apply(t.Context(), n.plan, n.host); err == nil || !strings.Contains(err.Error(), "not on-link") {
			t.Errorf("got error %v", err)
		}
		expect(t, "unreachable 10.2.1.0/24 proto 114",
			"fd00:2:1::/64 via fe80::a80f:aff:fe00:1 dev raven0 proto 114 src fd00::5 metric 1024 mtu 1355 pref medium")
	})
}

func TestAPrefixWithoutAWayOutIsUnreachableAndDoesNotLeakByTheDefaultRoute(t *testing.T) {
	onNode(t, gatewayPlan(), func(t *testing.T, n *node) {
		run(t, "ip route add default via 10.0.0.254 dev eth0")
		n.host.Tunnel = tunnel.Device{}
		if _, err := New().Apply(t.Context(), n.plan, n.host); err == nil || !strings.Contains(err.Error(), "region/cloud") {
			t.Errorf("got error %v, want one that names the next hop", err)
		}
		expect(t, "unreachable 10.2.1.0/24 proto 114", "unreachable fd00:2:1::/64 dev lo proto 114 metric 1024 pref medium")
		if strings.Contains(show(t), "9028 proto") {
			t.Errorf("a rule leads to 9028 without a tunnel device:\n%s", show(t))
		}
	})
}

func TestTheSourceIsALocalPodAddressWhereTheNodesConflicts(t *testing.T) {
	onNode(t, memberPlan(), func(t *testing.T, n *node) {
		n.plan.NodeIPConflicts = true
		n.apply(t)
		expect(t, "10.2.1.0/24 via 10.0.0.1 dev raven0 proto 114 onlink mtu 1355") // no pod address yet
		run(t, "ip link add cni0 type bridge")
		run(t, "ip address add 10.1.2.1/24 dev cni0")
		run(t, "ip address add fd00:1:2::1/64 dev cni0 nodad")
		run(t, "ip link set cni0 up")
		n.apply(t)
		expect(t, "10.2.1.0/24 via 10.0.0.1 dev raven0 proto 114 src 10.1.2.1 onlink mtu 1355",
			"fd00:2:1::/64 via fe80::a80f:aff:fe00:1 dev raven0 proto 114 src fd00:1:2::1 metric 1024 mtu 1355 pref medium")
	})
}

func TestAHostWithoutIPv6GetsTheIPv4RoutesAndAnError(t *testing.T) {
	onNode(t, memberPlan(), func(t *testing.T, n *node) {
		run(t, "sysctl -qw net.ipv6.conf.raven0.disable_ipv6=1")
		_, err := New().Apply(t.Context(), n.plan, n.host)
		if err == nil || !strings.Contains(err.Error(), "IPv6 is disabled on device raven0") {
			t.Errorf("got error %v", err)
		}
		expect(t, "10.2.1.0/24 via 10.0.0.1 dev raven0 proto 114 src 10.0.0.5 onlink mtu 1355")
	})
}

func TestIPv4BetweenNodesWithIPv6AddressesGoesByLinkLocalNextHops(t *testing.T) {
	onNode(t, memberPlan(), func(t *testing.T, n *node) {
		n.plan.NextHops[0].Underlay, n.plan.NextHops[0].MAC = addr("fd00::1"), topology.VTEPMAC(addr("fd00::1"))
		n.apply(t)
		link := topology.LinkLocalFromMAC(topology.VTEPMAC(addr("fd00::1"))).String()
		expect(t, "10.2.1.0/24 via inet6 "+link+" dev raven0 proto 114 src 10.0.0.5 mtu 1355")
		if got := n.apply(t); got != 0 {
			t.Errorf("a second apply made %d writes", got)
		}
	})
}

// The rules of 9027 and 9028 share a priority, and the order follows from which was made last. Both orders must answer
// alike: throws in 9027 fall through to 9028, and 9028 to 9027.
func TestTheTwoTablesAnswerAlikeInEitherOrderOfTheirRules(t *testing.T) {
	onNode(t, gatewayPlan(), func(t *testing.T, n *node) {
		n.plan.Throws = append(n.plan.Throws, netip.MustParseAddr("10.2.1.200"))
		n.apply(t)
		run(t, "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1")
		run(t, "ip route add 10.1.2.0/24 via 10.0.0.5 dev eth0") // as the pod network has it
		lookups := func() string {
			out := ""
			for _, ask := range []string{
				"10.0.0.5 from 10.2.1.9 iif raven-wg0", "10.1.2.9 from 10.2.1.9 iif raven-wg0",
				"fd00:1:2::9 from fd00:2:1::9 iif raven-wg0",
				"10.2.1.9 from 10.9.1.9 iif raven-wg0", "fd00:2:1::9 from fd00:9::9 iif raven-wg0",
				"10.2.1.9", "fd00:2:1::9", "10.1.2.9", "10.0.0.5",
			} {
				out += run(t, "ip route get "+ask)
			}
			return out
		}
		for _, ask := range []string{"10.0.0.5 from 10.2.1.9 iif raven-wg0", "10.1.2.9 from 10.2.1.9 iif raven-wg0"} {
			if out := run(t, "ip route get "+ask); !strings.Contains(out, "dev raven0 table 9028") {
				t.Errorf("%s: %s", ask, out)
			}
		}
		for _, ask := range []string{"10.1.2.9", "10.0.0.5"} {
			if out := run(t, "ip route get "+ask); !strings.Contains(out, "dev eth0") {
				t.Errorf("the gateway's own traffic to %s does not take the main table: %s", ask, out)
			}
		}
		first := lookups()
		order := run(t, "ip rule show priority 100")
		for _, rule := range []string{"table 9027", "iif raven-wg0 table 9028"} {
			run(t, "ip rule del priority 100 "+rule)
			if got := n.apply(t); got != 1 {
				t.Errorf("%d writes", got)
			}
			if second := lookups(); second != first {
				t.Errorf("rules\n%sanswer\n%s, other order\n%s", order, first, second)
			}
		}
	})
}
