package topology

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"

	"github.com/ravencni/raven/pkg/apis/raven/v1beta1"
)

func TestAnIPv6RegionRunsItsOverlayOverIPv6(t *testing.T) {
	c := tutorial()
	for _, name := range []string{"qingdao-1", "qingdao-2"} {
		n := c.nodeNamed(name)
		n.Status.Addresses, n.Spec.PodCIDRs = n.Status.Addresses[1:], n.Spec.PodCIDRs[1:]
	}
	p := c.plan("qingdao-1")
	underlay := netip.MustParseAddr("fd00:b::90")
	equal(t, "neighbours", []Neighbour{{Node: "qingdao-2", Underlay: underlay, MAC: VTEPMAC(underlay)}}, p.Overlay.Neighbours)
	equal(t, "in-region prefixes", prefixes("fd00:244:17::/64", "fd00:b::90/128"), prefixesBy(p, "node/qingdao-2"))
	if len(p.Problems) != 0 || p.NodeIP4.IsValid() {
		t.Errorf("problems %v, NodeIP4 %v", p.Problems, p.NodeIP4)
	}
	if stopped := consistent(t, c.State); stopped != 0 {
		t.Errorf("%d walks stopped", stopped)
	}
}

// Both families of pods cross an overlay of either family.
func TestADualStackRegionPrefersIPv4AndCarriesBoth(t *testing.T) {
	p := tutorial().plan("qingdao-1")
	equal(t, "underlay", netip.MustParseAddr("172.16.1.89"), p.Overlay.Underlay)
	equal(t, "in-region prefixes", prefixes("10.244.17.0/24", "172.16.1.90/32", "fd00:244:17::/64", "fd00:b::90/128"), prefixesBy(p, "node/qingdao-2"))
	if stopped := consistent(t, tutorial().State); stopped != 0 {
		t.Errorf("%d walks stopped", stopped)
	}
}

func TestTheGatewaysFamilyDecides(t *testing.T) {
	c := tutorial()
	n := c.nodeNamed("qingdao-1")
	n.Status.Addresses, n.Spec.PodCIDRs = n.Status.Addresses[1:], n.Spec.PodCIDRs[1:]
	p := c.plan("qingdao-2")
	equal(t, "underlay", netip.MustParseAddr("fd00:b::90"), p.Overlay.Underlay)
	if !delivered(p)["10.244.19.0/24"] {
		t.Error("IPv4 prefixes do not cross the IPv6 overlay")
	}
	if stopped := consistent(t, c.State); stopped != 0 {
		t.Errorf("%d walks stopped", stopped)
	}
}

func TestOfTwoIPv6NodesWithOneMACTheLaterIsLeftOut(t *testing.T) {
	first, second := sameMAC(t)
	c := newCluster()
	c.gateway("gw", "n-1", "")
	c.gateway("other", "o-1", "203.0.113.1")
	c.node("n-1", "gw", []string{"fd00::1"}, nil)
	c.node("n-2", "gw", []string{first.String()}, []string{"fd01:2::/64"})
	c.node("n-3", "gw", []string{second.String()}, []string{"fd01:3::/64"})
	c.node("o-1", "other", []string{"192.0.2.1"}, nil)
	p := c.plan("n-1")
	equal(t, "number of neighbours", 1, len(p.Overlay.Neighbours))
	equal(t, "neighbour", "n-2", p.Overlay.Neighbours[0].Node)
	if !slices.ContainsFunc(p.Problems, func(x Problem) bool { return x.Object == "Node/n-3" && x.Reason == ReasonVTEPCollision }) {
		t.Errorf("problems %v", p.Problems)
	}
	if got := delivered(c.plan("o-1")); got["fd01:3::/64"] || !got["fd01:2::/64"] {
		t.Errorf("other regions route %v", got)
	}
}

// sameMAC finds two addresses with one VTEP MAC; a hash of 32 bits has them among some 80,000.
func sameMAC(t *testing.T) (netip.Addr, netip.Addr) {
	seen := make(map[string]netip.Addr)
	for i := range uint64(1 << 20) {
		b := [16]byte{0: 0xfd}
		binary.BigEndian.PutUint64(b[8:], mix(i+1))
		a := netip.AddrFrom16(b)
		mac := VTEPMAC(a).String()
		if other, ok := seen[mac]; ok {
			return other, a
		}
		seen[mac] = a
	}
	t.Fatal("no two addresses with one MAC")
	return netip.Addr{}, netip.Addr{}
}

func TestDirectNextHopsLeaveOutTheOverlay(t *testing.T) {
	local := Local{UnderlayMTU: 1500, Direct: true}
	p := Compile(tutorial().State, "hangzhou-2", local)
	soundAlone(t, p)
	want := []NextHop{
		{ID: "region/gw-cloud", Kind: KindDirect, Node: "hangzhou-1", Underlay: netip.MustParseAddr("172.16.2.103"), MTU: 1405},
		{ID: "region/gw-cloud/ipv6", Kind: KindDirect, Node: "hangzhou-1", Underlay: netip.MustParseAddr("fd00:a::103"), MTU: 1405},
		{ID: "region/gw-qingdao", Kind: KindDirect, Node: "hangzhou-1", Underlay: netip.MustParseAddr("172.16.2.103"), MTU: 1405},
		{ID: "region/gw-qingdao/ipv6", Kind: KindDirect, Node: "hangzhou-1", Underlay: netip.MustParseAddr("fd00:a::103"), MTU: 1405},
	}
	equal(t, "next hops", want, p.NextHops)
	if p.Overlay == nil {
		t.Error("raven0 is gone, but the gateway may still send over it")
	}

	// On the gateway there is no tunnel on the way to a member, so the whole MTU is left.
	p = Compile(tutorial().State, "hangzhou-1", local)
	soundAlone(t, p)
	if h := hopOf(p, "node/hangzhou-2"); h.Kind != KindDirect || h.MTU != 1500 {
		t.Errorf("next hop %v", h)
	}
}

func TestDirectFallsBackToTheOverlayForAFamilyThatTheGatewayLacks(t *testing.T) {
	c := tutorial()
	n := c.nodeNamed("hangzhou-1")
	n.Status.Addresses, n.Spec.PodCIDRs = n.Status.Addresses[:1], n.Spec.PodCIDRs[:1]
	p := Compile(c.State, "hangzhou-2", Local{Direct: true})
	soundAlone(t, p)
	if h := hopOf(p, "region/gw-cloud"); h.Kind != KindDirect {
		t.Errorf("IPv4: %v", h)
	}
	if h := hopOf(p, "region/gw-cloud/ipv6"); h.Kind != KindOverlay {
		t.Errorf("IPv6: %v", h)
	}
}

func TestDirectNeedsAnAddressOfTheFamilyOnThisNodeToo(t *testing.T) {
	c := tutorial()
	n := c.nodeNamed("hangzhou-2")
	n.Status.Addresses, n.Spec.PodCIDRs = n.Status.Addresses[:1], n.Spec.PodCIDRs[:1]
	p := Compile(c.State, "hangzhou-2", Local{Direct: true})
	soundAlone(t, p)
	if h := hopOf(p, "region/gw-cloud/ipv6"); h.Kind != KindOverlay {
		t.Errorf("IPv6: %v", h)
	}
}

func TestDirectNextHopsOfAnIPv6RegionHaveThePlainName(t *testing.T) {
	c := tutorial()
	for _, name := range []string{"hangzhou-1", "hangzhou-2"} {
		n := c.nodeNamed(name)
		n.Status.Addresses, n.Spec.PodCIDRs = n.Status.Addresses[1:], n.Spec.PodCIDRs[1:]
	}
	p := Compile(c.State, "hangzhou-2", Local{Direct: true})
	soundAlone(t, p)
	if h := hopOf(p, "region/gw-cloud"); h == nil || h.Kind != KindDirect || h.Underlay != netip.MustParseAddr("fd00:a::103") {
		t.Errorf("IPv6: %v", h)
	}
	if h := hopOf(p, "region/gw-cloud/ipv4"); h == nil || h.Kind != KindOverlay {
		t.Errorf("IPv4: %v", h)
	}
}

func TestTheAddressOfANodeThatIsLeftOutIsStillOnTheLAN(t *testing.T) {
	c := tutorial()
	n := c.nodeNamed("hangzhou-2")
	n.Status.Addresses = n.Status.Addresses[1:]
	equal(t, "throws", addrs("120.79.0.10", "fd00:a::104"), c.plan("hangzhou-1").Throws)
}

func TestThrows(t *testing.T) {
	c := tutorial()
	te := c.endpoint("cloud-1")
	te.Status.ObservedAddresses = []v1beta1.ObservedAddress{{NodeName: "hangzhou-1", Address: "198.51.100.7:40000"}, {NodeName: "x", Address: "rubbish"}}
	p := Compile(c.State, "cloud-1", Local{Throws: addrs("192.0.2.9", "::ffff:192.0.2.9", "192.168.0.196")})
	equal(t, "throws on the cloud's gateway", addrs("192.0.2.9", "192.168.0.196", "198.51.100.7", "fd00:c::196"), p.Throws)
}

func TestAnAddressThatThisNodeMustReachOutsideTheTunnelIsNotRouted(t *testing.T) {
	c := tutorial()
	p := Compile(c.State, "hangzhou-1", Local{Throws: addrs("192.168.0.195")}) // the API server, as this node dials it
	soundAlone(t, p)
	if delivered(p)["192.168.0.195/32"] || !delivered(p)["192.168.0.196/32"] {
		t.Errorf("prefixes %v", p.Prefixes)
	}
	if len(p.Problems) != 1 || p.Problems[0].Reason != ReasonAddressThrown {
		t.Errorf("problems %v", p.Problems)
	}
	if !delivered(c.plan("qingdao-1"))["192.168.0.195/32"] {
		t.Error("another node lost the address")
	}
}
