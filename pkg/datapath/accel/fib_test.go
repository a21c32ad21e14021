package accel

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/ravencni/raven/bpf"
	"github.com/ravencni/raven/pkg/apis/raven/v1beta1"
	"github.com/ravencni/raven/pkg/datapath"
	"github.com/ravencni/raven/pkg/datapath/accel/device"
	"github.com/ravencni/raven/pkg/topology"
	"github.com/ravencni/raven/pkg/tunnel"
	"github.com/ravencni/raven/test/netns"
)

var plainly = cmp.Options{cmpopts.EquateComparable(netip.Prefix{}), cmp.AllowUnexported(leaf{})}

func TestTheFIBHoldsWhatTheRoutesHoldAndHasTheSameMisses(t *testing.T) {
	p, a := netip.MustParsePrefix, netip.MustParseAddr
	plan := &topology.Plan{
		NodeIP4: a("10.0.0.1"), NodeIP6: a("fd00::1"),
		LocalPrefixes: []netip.Prefix{p("10.244.1.0/24")},
		NextHops: []topology.NextHop{
			{ID: "region/b", Kind: topology.KindTunnel}, {ID: "region/c", Kind: topology.KindUnreachable},
			{ID: "node/a2", Kind: topology.KindOverlay},
		},
		Prefixes: []topology.Prefix{
			{Prefix: p("10.245.0.0/16"), Scope: topology.ScopeRemote, NextHop: "region/b"},
			{Prefix: p("10.246.0.0/16"), Scope: topology.ScopeRemote, NextHop: "region/c"},
			{Prefix: p("10.244.2.0/24"), Scope: topology.ScopeInRegion, NextHop: "node/a2"},
			{Prefix: p("10.0.0.2/32"), Scope: topology.ScopeInRegion, NextHop: "node/a2"},
			{Prefix: p("fd00:b::/48"), Scope: topology.ScopeRemote, NextHop: "region/b"},
		},
		Throws: []netip.Addr{
			a("10.245.7.7"),   // inside a remote prefix: a hole
			a("fd00:b::7"),    // the same in IPv6
			a("10.0.0.2"),     // in-region: the main table is not asked for what comes out of the tunnel
			a("198.51.100.1"), // outside of all: a miss already
		},
	}
	around := surroundings{
		host:    datapath.Host{Tunnel: tunnel.Device{Index: 5}},
		devices: map[int]device.Device{5: {Index: 5, Up: true}},
		overlay: device.Device{Index: 4, Up: true},
	}
	hops := nexthopsOf(plan, around)
	want := map[netip.Prefix]leaf{
		p("10.0.0.1/32"):   {scopeHost, ""},
		p("fd00::1/128"):   {scopeHost, ""},
		p("10.244.1.0/24"): {scopeLocal, ""},
		p("10.245.0.0/16"): {scopeRemote, "region/b"},
		p("10.245.7.7/32"): {scopeRemote, "throw/region/b"},
		p("fd00:b::/48"):   {scopeRemote, "region/b"},
		p("fd00:b::7/128"): {scopeRemote, "throw/region/b"},
		p("10.244.2.0/24"): {scopeInRegion, "node/a2"},
		p("10.0.0.2/32"):   {scopeInRegion, "node/a2"},
	}
	if diff := cmp.Diff(want, fibOf(plan, hops), plainly); diff != "" {
		t.Error(diff)
	}
	if h := hops["throw/region/b"]; h.Flags&nexthopHealthy != 0 || h.Ifindex != 5 {
		t.Errorf("a hole should name the tunnel device, for the check of sources, and never be healthy: %+v", h)
	}
}

func TestANextHopIsHealthyOnlyWhileItsDeviceIsThereAndUp(t *testing.T) {
	gateway := netip.MustParseAddr("10.0.0.2")
	mac := topology.VTEPMAC(gateway)
	plan := &topology.Plan{NextHops: []topology.NextHop{
		{ID: "overlay", Kind: topology.KindOverlay, MAC: mac, MTU: 1450},
		{ID: "direct", Kind: topology.KindDirect, Underlay: gateway, MTU: 1500},
		{ID: "tunnel", Kind: topology.KindTunnel, MAC: mac, MTU: 1420},
	}}
	own := macOf(topology.VTEPMAC(netip.MustParseAddr("10.0.0.1")))
	for name, c := range map[string]struct {
		around surroundings
		want   map[string]nexthop
	}{
		"all there": {
			surroundings{
				overlay: device.Device{Index: 4, Up: true, MAC: own[:]},
				devices: map[int]device.Device{2: {Index: 2, Up: true, MAC: own[:]}, 5: {Index: 5, Up: true}},
				onLink:  func(netip.Addr) int { return 2 },
				host:    datapath.Host{Tunnel: tunnel.Device{Index: 5}},
			},
			map[string]nexthop{
				"overlay": {Kind: kindOverlay, Ifindex: 4, Flags: nexthopHealthy | nexthopEthernet, Dmac: macOf(mac), Smac: own, Mtu: 1450},
				"direct":  {Kind: kindDirect, Ifindex: 2, Flags: nexthopHealthy, Smac: own, Mtu: 1500, Via: addressOf(gateway)},
				"tunnel":  {Kind: kindTunnel, Ifindex: 5, Flags: nexthopHealthy, Mtu: 1420},
			},
		},
		"tunnel with Ethernet, overlay down, gateway not on-link": {
			surroundings{
				overlay: device.Device{Index: 4, MAC: own[:]},
				devices: map[int]device.Device{5: {Index: 5, Up: true, MAC: own[:]}},
				onLink:  func(netip.Addr) int { return 0 },
				host:    datapath.Host{Tunnel: tunnel.Device{Index: 5, Ethernet: true}},
			},
			map[string]nexthop{
				"overlay": {Kind: kindOverlay, Ifindex: 4, Flags: nexthopEthernet, Dmac: macOf(mac), Smac: own, Mtu: 1450},
				"direct":  {Kind: kindDirect, Mtu: 1500, Via: addressOf(gateway)},
				"tunnel":  {Kind: kindTunnel, Ifindex: 5, Flags: nexthopHealthy | nexthopEthernet, Dmac: macOf(mac), Smac: own, Mtu: 1420},
			},
		},
		"nothing there": {
			surroundings{onLink: func(netip.Addr) int { return 9 }},
			map[string]nexthop{
				"overlay": {Kind: kindOverlay, Flags: nexthopEthernet, Dmac: macOf(mac), Mtu: 1450},
				"direct":  {Kind: kindDirect, Mtu: 1500, Via: addressOf(gateway)},
				"tunnel":  {Kind: kindTunnel, Mtu: 1420},
			},
		},
	} {
		if diff := cmp.Diff(c.want, nexthopsOf(plan, c.around), cmpopts.EquateComparable(nexthop{})); diff != "" {
			t.Error(name, diff)
		}
	}
}

// A source whose prefix did not fit would be dropped for a stranger's.
func TestAFIBThatIsNotWholeSwitchesAccelerationOff(t *testing.T) {
	netns.Run(t, func(t *testing.T) {
		n := newNode(t)
		a := n.applier(t, Options{})
		a.specOf = make(map[string]func() (*ebpf.CollectionSpec, error))
		for name, load := range specOf {
			a.specOf[name] = func() (*ebpf.CollectionSpec, error) {
				spec, err := load()
				if err == nil && spec.Maps[mapFib4] != nil {
					spec.Maps[mapFib4].MaxEntries = 5 // as many as there are
				}
				return spec, err
			}
		}
		flags := func() bpf.FromPodRavenFlag {
			t.Helper()
			var c nodeConfig
			must(t, a.maps[mapConfig].Lookup(uint32(0), &c))
			return c.Flags
		}
		n.apply(t, a)
		if flags()&flagAccelerate == 0 {
			t.Error("acceleration is off although everything fits")
		}
		whole := n.plan.Prefixes
		n.plan.Prefixes = append(slices.Clone(whole), topology.Prefix{
			Prefix: netip.MustParsePrefix("10.247.0.0/16"), Scope: topology.ScopeRemote, NextHop: "region/b",
		})
		_, err := a.Apply(t.Context(), n.plan, n.host)
		mode, reason := a.Mode()
		if err == nil || mode != v1beta1.DatapathBaseline || !strings.Contains(reason, mapFib4) || flags() != flagGateway {
			t.Errorf("with one prefix too many: error %v, mode %s, reason %q, flags %d", err, mode, reason, flags())
		}
		n.plan.Prefixes = whole
		n.apply(t, a)
		if flags()&flagAccelerate == 0 {
			t.Error("acceleration stays off although everything fits again")
		}
	})
}
