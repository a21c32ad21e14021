package route

import (
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	"github.com/ravencni/raven/pkg/datapath"
	"github.com/ravencni/raven/pkg/datapath/host"
	"github.com/ravencni/raven/pkg/datapath/overlay"
	"github.com/ravencni/raven/pkg/topology"
	"github.com/ravencni/raven/pkg/tunnel"
	"github.com/ravencni/raven/test/netns"
)

const (
	memberIP   = "10.0.0.5"
	gatewayIP  = "10.0.0.1"
	tunnelName = "raven-wg0"
)

func addr(s string) netip.Addr     { return netip.MustParseAddr(s) }
func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

// memberPlan is that of a node with two families whose gateway is 10.0.0.1.
func memberPlan() *topology.Plan {
	own, gw := addr(memberIP), addr(gatewayIP)
	return &topology.Plan{
		Node: "edge-2", Region: "edge", Role: topology.RoleMember,
		NodeIP4: own, NodeIP6: addr("fd00::5"),
		LocalPrefixes: []netip.Prefix{prefix("10.1.2.0/24"), prefix("fd00:1:2::/64")},
		Overlay: &topology.Overlay{
			MTU: 1450, MAC: topology.VTEPMAC(own), Underlay: own, Members: []netip.Addr{gw},
			Neighbours: []topology.Neighbour{{Node: "edge-1", Underlay: gw, MAC: topology.VTEPMAC(gw)}},
		},
		NextHops: []topology.NextHop{
			{ID: "region/cloud", Kind: topology.KindOverlay, Node: "edge-1", Underlay: gw, MAC: topology.VTEPMAC(gw), MTU: 1355},
			{ID: "region/lost", Kind: topology.KindUnreachable},
		},
		Prefixes: []topology.Prefix{
			{Prefix: prefix("10.2.1.0/24"), Scope: topology.ScopeRemote, NextHop: "region/cloud"},
			{Prefix: prefix("10.3.1.0/24"), Scope: topology.ScopeRemote, NextHop: "region/lost"},
			{Prefix: prefix("fd00:2:1::/64"), Scope: topology.ScopeRemote, NextHop: "region/cloud"},
			{Prefix: prefix("fd00:3:1::/64"), Scope: topology.ScopeRemote, NextHop: "region/lost"},
		},
		Throws: []netip.Addr{gw, addr("203.0.113.7"), addr("fd00::1")},
	}
}

// gatewayPlan is that of the member's gateway.
func gatewayPlan() *topology.Plan {
	own, member := addr(gatewayIP), addr(memberIP)
	return &topology.Plan{
		Node: "edge-1", Region: "edge", Role: topology.RoleGateway,
		NodeIP4: own, NodeIP6: addr("fd00::1"),
		LocalPrefixes: []netip.Prefix{prefix("10.1.1.0/24"), prefix("fd00:1:1::/64")},
		Overlay: &topology.Overlay{
			MTU: 1450, MAC: topology.VTEPMAC(own), Underlay: own, Members: []netip.Addr{member},
			Neighbours: []topology.Neighbour{{Node: "edge-2", Underlay: member, MAC: topology.VTEPMAC(member)}},
		},
		Tunnel: &topology.Tunnel{Driver: "wireguard", MTU: 1405},
		NextHops: []topology.NextHop{
			{ID: "node/edge-2", Kind: topology.KindOverlay, Node: "edge-2", Underlay: member, MAC: topology.VTEPMAC(member), MTU: 1450},
			{ID: "region/cloud", Kind: topology.KindTunnel, Node: "cloud-1", Underlay: addr("172.16.0.1"), MTU: 1405},
		},
		Prefixes: []topology.Prefix{
			{Prefix: prefix("10.0.0.5/32"), Scope: topology.ScopeInRegion, NextHop: "node/edge-2"},
			{Prefix: prefix("10.1.2.0/24"), Scope: topology.ScopeInRegion, NextHop: "node/edge-2"},
			{Prefix: prefix("10.2.1.0/24"), Scope: topology.ScopeRemote, NextHop: "region/cloud"},
			{Prefix: prefix("fd00:1:2::/64"), Scope: topology.ScopeInRegion, NextHop: "node/edge-2"},
			{Prefix: prefix("fd00:2:1::/64"), Scope: topology.ScopeRemote, NextHop: "region/cloud"},
		},
		Throws: []netip.Addr{addr("203.0.113.7"), member, addr("fd00::5")},
	}
}

// onNode runs f in a namespace that has an underlay with the plan's addresses, raven0, and for a plan with a tunnel a
// device that takes bare IP packets.
func onNode(t *testing.T, plan *topology.Plan, f func(t *testing.T, n *node)) {
	t.Helper()
	netns.Run(t, func(t *testing.T) {
		n := &node{plan: plan}
		netns.Veth(t, netns.End{In: netns.Current(t), Name: "eth0", Addresses: []string{
			plan.NodeIP4.String() + "/24", plan.NodeIP6.String() + "/64"}}, netns.End{In: netns.New(t), Name: "wire"})
		n.prepare(t)
		f(t, n)
	})
}

type node struct {
	plan *topology.Plan
	host datapath.Host
}

// prepare does what precedes routes in a pass: devices and the overlay.
func (n *node) prepare(t *testing.T) {
	t.Helper()
	var tun tunnel.Device
	if n.plan.Tunnel != nil {
		if _, err := net.InterfaceByName(tunnelName); err != nil {
			run(t, "ip tuntap add "+tunnelName+" mode tun")
			run(t, "ip link set "+tunnelName+" up")
		}
		dev, err := net.InterfaceByName(tunnelName)
		if err != nil {
			t.Fatal(err)
		}
		tun = tunnel.Device{Name: tunnelName, Index: dev.Index, MTU: dev.MTU}
	}
	if _, err := overlay.New().Apply(t.Context(), n.plan, n.host); err != nil {
		t.Fatal(err)
	}
	netns.Ready(t, datapath.OverlayDevice)
	var err error
	if n.host, err = host.Resolve(n.plan, tun); err != nil {
		t.Fatal(err)
	}
}

func (n *node) apply(t *testing.T) int {
	t.Helper()
	changes, err := New().Apply(t.Context(), n.plan, n.host)
	if err != nil {
		t.Fatalf("apply: %v", err)
	}
	return changes
}

func run(t *testing.T, command string) string {
	t.Helper()
	fields := strings.Fields(command)
	out, err := exec.Command(fields[0], fields[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v: %s", command, err, out)
	}
	return string(out)
}

// show lists everything of this package's, in the words of ip(8).
func show(t *testing.T) string {
	t.Helper()
	var all strings.Builder
	for _, list := range []string{
		"ip rule show", "ip -6 rule show",
		"ip route show table 9027", "ip -6 route show table 9027", "ip route show table 9028", "ip -6 route show table 9028",
	} {
		fields := strings.Fields(list)
		out, err := exec.Command(fields[0], fields[1:]...).CombinedOutput()
		if err != nil && !strings.Contains(string(out), "FIB table does not exist") {
			t.Fatalf("%s: %v: %s", list, err, out)
		}
		all.WriteString("# " + list + "\n")
		if err == nil {
			all.Write(out)
		}
	}
	return all.String()
}

// expect asserts each line in what show lists; blanks at the end of ip(8)'s lines do not count.
func expect(t *testing.T, want ...string) {
	t.Helper()
	got := show(t)
	for _, w := range want {
		found := false
		for line := range strings.Lines(got) {
			found = found || strings.Join(strings.Fields(line), " ") == w
		}
		if !found {
			t.Errorf("no line %q in\n%s", w, got)
		}
	}
}
