package accel

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ravencni/raven/pkg/datapath"
	"github.com/ravencni/raven/pkg/datapath/pods/podtest"
	"github.com/ravencni/raven/pkg/topology"
	"github.com/ravencni/raven/pkg/tunnel"
	"github.com/ravencni/raven/test/netns"
)

func foreignProgram(t *testing.T, typ ebpf.ProgramType, verdict int32) *ebpf.Program {
	t.Helper()
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: "theirs", Type: typ, License: "GPL", Instructions: asm.Instructions{
		asm.Mov.Imm(asm.R0, verdict), asm.Return(),
	}})
	must(t, err)
	t.Cleanup(func() { must(t, p.Close()) })
	return p
}

func podCount(t *testing.T, a *Applier) int {
	t.Helper()
	entries, err := readMap[address, podEntry](a.maps[mapPods])
	must(t, err)
	return len(entries)
}

func TestAPodWithAForeignFilterIsLeftAloneAndComesBackWhenItIsGone(t *testing.T) {
	bothMethods(t, func(t *testing.T, n *node, options Options) {
		podtest.PointToPoint(t, "veth0", "10.244.1.2")
		pod := podtest.PointToPoint(t, "veth1", "10.244.1.3", "fd00:1::3")
		index := pod.Host.Attrs().Index
		a := n.applier(t, options)
		n.apply(t, a)
		if got := podCount(t, a); got != 3 {
			t.Errorf("%d pod addresses", got)
		}
		clsact := &netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{
			LinkIndex: index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT,
		}}
		if !options.ForceClsact {
			must(t, netlink.QdiscAdd(clsact))
		}
		filter := &netlink.BpfFilter{
			FilterAttrs: netlink.FilterAttrs{
				LinkIndex: index, Parent: netlink.HANDLE_MIN_EGRESS, Handle: 1, Priority: 1, Protocol: unix.ETH_P_ALL,
			},
			Fd: foreignProgram(t, ebpf.SchedCLS, -1).FD(), Name: "theirs", DirectAction: true,
		}
		must(t, netlink.FilterAdd(filter))
		n.apply(t, a)
		if got := strings.Join(attached(a), " "); strings.Contains(got, "veth1") || !strings.Contains(got, "veth0") {
			t.Errorf("attached: %s", got)
		}
		if got := podCount(t, a); got != 1 {
			t.Errorf("%d pod addresses", got)
		}
		if got := a.Pods()[1]; got.Name != "veth1" || !strings.Contains(got.Reason, `egress bpf filter "theirs"`) {
			t.Errorf("%+v", got)
		}
		if !strings.Contains(n.log.String(), "pod is not accelerated") {
			t.Error("the log does not say so")
		}
		// Their filter is still there, and so is the qdisc that it sits in, whoever made that.
		filters, err := netlink.FilterList(pod.Host, netlink.HANDLE_MIN_EGRESS)
		must(t, err)
		if len(filters) != 1 {
			t.Fatalf("their filter: %v", filters)
		}
		if changes := n.apply(t, a); changes != 0 {
			t.Errorf("%d writes", changes)
		}

		must(t, netlink.FilterDel(filters[0]))
		n.apply(t, a)
		if got := podCount(t, a); got != 3 {
			t.Errorf("%d pod addresses after their filter has gone", got)
		}
		if got := strings.Join(attached(a), " "); !strings.Contains(got, "veth1") {
			t.Errorf("attached: %s", got)
		}
		must(t, a.Cleanup(t.Context()))
		qdiscs, err := netlink.QdiscList(pod.Host)
		must(t, err)
		if len(qdiscs) != 2 {
			t.Errorf("a clsact qdisc that others use, or used once we left it, is theirs: %v", qdiscs)
		}
	})
}

func TestAForeignProgramOnTheOverlaySeesEveryPacket(t *testing.T) {
	needsTCX(t)
	netns.Run(t, func(t *testing.T) {
		n := newNode(t)
		a := n.applier(t, Options{})
		l, err := link.AttachTCX(link.TCXOptions{
			Interface: podtest.Link(t, datapath.OverlayDevice).Attrs().Index, Attach: ebpf.AttachTCXIngress,
			Program: foreignProgram(t, ebpf.SchedCLS, -1),
		})
		must(t, err)
		defer l.Close()
		n.apply(t, a)
		if diff := cmp.Diff([]string{"raven_from_tunnel@raven-wg0", "raven_from_underlay@eth.0"}, attached(a)); diff != "" {
			t.Error(diff)
		}
		if at := a.Attachments()[0]; at.Program != FromOverlay || !strings.Contains(at.Reason, `program "theirs"`) {
			t.Errorf("%+v", at)
		}
	})
}

func TestATunnelOfVXLANBringsTheProgramOfTheUnderlayToItsOwnWay(t *testing.T) {
	bothMethods(t, func(t *testing.T, n *node, options Options) {
		peer, own := netip.MustParseAddr("203.0.113.7"), netip.MustParseAddr("203.0.113.10")
		n.plan.Tunnel.Peers = []topology.Peer{{Region: "b", Node: "b1", Endpoint: netip.AddrPortFrom(peer, 4500)}, {Region: "dials us"}}
		n.host.Tunnel.VXLAN = tunnel.VXLAN{VNI: 201, Address: own}
		outer := podtest.Link(t, "lo").Attrs() // any other device will do
		n.host.Outers = []datapath.Link{n.host.Underlay, {Name: outer.Name, Index: outer.Index}}
		a := n.applier(t, options)
		n.apply(t, a)
		for _, device := range []string{"eth.0", "lo"} {
			if got := attached(a); !slices.Contains(got, "raven_from_underlay@"+device) {
				t.Errorf("not attached to %s: %v", device, got)
			}
		}
		members, err := readMap[address, member](a.maps[mapMembers])
		must(t, err)
		want := map[address]member{addressOf(netip.MustParseAddr("10.0.0.2")): memberOfRegion, addressOf(peer): memberPeer}
		if diff := cmp.Diff(want, members); diff != "" {
			t.Error(diff)
		}
		config, err := readMap[uint32, nodeConfig](a.maps[mapConfig])
		must(t, err)
		if c := config[0]; c.TunnelVni != 201 || c.TunnelIfindex != uint32(n.host.Tunnel.Index) || c.TunnelAddress != own.As4() {
			t.Errorf("config %+v", c)
		}
		n.host.Tunnel.VXLAN = tunnel.VXLAN{}
		n.apply(t, a)
		if got := attached(a); slices.Contains(got, "raven_from_underlay@lo") {
			t.Errorf("still attached: %v", got)
		}
		if members, err = readMap[address, member](a.maps[mapMembers]); err != nil || len(members) != 1 {
			t.Errorf("members %v, %v", members, err)
		}
	})
}

func TestDirectNextHopsBringTheProgramOfTheUnderlay(t *testing.T) {
	bothMethods(t, func(t *testing.T, n *node, options Options) {
		n.plan.Overlay.Underlay = netip.MustParseAddr("fd00:10::1") // VXLAN over IPv6 stays with the stack
		hops := n.plan.NextHops
		n.plan.NextHops = []topology.NextHop{
			{ID: "node/a2", Kind: topology.KindDirect, Node: "a2", MTU: 1500, Underlay: netip.MustParseAddr("10.0.0.2")},
			hops[1], hops[2],
		}
		options.XDP = true // on the same device, and there to stay
		a := n.applier(t, options)
		n.apply(t, a)
		if got := strings.Join(attached(a), " "); !strings.Contains(got, "raven_from_underlay@eth.0") {
			t.Errorf("attached: %s", got)
		}
		entries, err := readMap[uint32, nexthop](a.maps[mapNexthops])
		must(t, err)
		want := nexthop{
			Group: groupOf("node/a2"), Kind: kindDirect, Ifindex: uint32(n.host.Underlay.Index), Flags: nexthopHealthy, Mtu: 1500,
			Smac: macOf(podtest.Link(t, "eth.0").Attrs().HardwareAddr), Via: addressOf(netip.MustParseAddr("10.0.0.2")),
		}
		if got := entries[a.slots.at["node/a2"]]; got != want {
			t.Errorf("got  %+v\nwant %+v", got, want)
		}
		n.plan.NextHops = hops
		n.apply(t, a)
		if got := strings.Join(attached(a), " "); strings.Contains(got, "raven_from_underlay") {
			t.Errorf("still attached: %s", got)
		}
		expectNoTC(t, n.host.Underlay.Name)
	})
}

func TestXDPRunsInTheDriverAndNeverReplacesAnothersProgram(t *testing.T) {
	netns.Run(t, func(t *testing.T) {
		n := newNode(t)
		a := n.applier(t, Options{XDP: true, HandshakesPerSecond: 10})
		xdp := func() Attachment {
			t.Helper()
			n.apply(t, a)
			list := a.Attachments()
			return list[len(list)-1]
		}
		theirs, err := link.AttachXDP(link.XDPOptions{
			Program: foreignProgram(t, ebpf.XDP, 2), Interface: n.host.Underlay.Index, Flags: link.XDPDriverMode,
		})
		must(t, err)
		if at := xdp(); at.Program != XDPUnderlay || !strings.Contains(at.Reason, "another XDP program") {
			t.Errorf("%+v", at)
		}
		must(t, theirs.Close())
		awaitNoXDP(t, n.host.Underlay.Name)
		if at := xdp(); at.Program != XDPUnderlay || at.Reason != "" || at.Kind != "xdp" {
			t.Errorf("%+v", at)
		}
		if mode := podtest.Link(t, n.host.Underlay.Name).Attrs().Xdp.AttachMode; mode != 1 { // XDP_ATTACHED_DRV
			t.Errorf("attached in mode %d", mode)
		}
		before := kernelState(t)
		if changes := n.apply(t, n.applier(t, Options{XDP: true, HandshakesPerSecond: 10})); changes != 0 {
			t.Errorf("a restart made %d writes", changes)
		}
		if diff := cmp.Diff(before, kernelState(t)); diff != "" {
			t.Error(diff)
		}
		n.host.Underlay = datapath.Link{Name: datapath.OverlayDevice, Index: podtest.Link(t, datapath.OverlayDevice).Attrs().Index}
		n.host.Underlays = nil
		if at := xdp(); !strings.Contains(at.Reason, "no native XDP") {
			t.Errorf("VXLAN has no XDP in the driver, yet: %+v", at)
		}
		must(t, a.Cleanup(t.Context()))
		expectNothingAttached(t, n)
	})
}

func TestAVanishedDeviceMakesItsNextHopsUnhealthyAndItsLinksGarbage(t *testing.T) {
	netns.Run(t, func(t *testing.T) {
		n := newNode(t)
		pod := podtest.PointToPoint(t, "veth0", "10.244.1.2")
		a := n.applier(t, Options{})
		n.apply(t, a)
		slot := a.slots.at["node/a2"]
		must(t, netlink.LinkDel(podtest.Link(t, datapath.OverlayDevice)))
		pod.Delete(t)
		n.apply(t, a)
		entries, err := readMap[uint32, nexthop](a.maps[mapNexthops])
		must(t, err)
		if h := entries[slot]; h.Flags&nexthopHealthy != 0 || h.Ifindex != 0 || h.Group != groupOf("node/a2") {
			t.Errorf("%+v", h)
		}
		if got := podCount(t, a); got != 0 {
			t.Errorf("%d pod addresses", got)
		}
		for _, path := range pinned(t) {
			if strings.Contains(path, "links/") && !strings.Contains(path, FromTunnel) && !strings.Contains(path, FromUnderlay) {
				t.Errorf("%s is left", path)
			}
		}
	})
}
