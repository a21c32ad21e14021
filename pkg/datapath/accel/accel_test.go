package accel

import (
	"bytes"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"

	"github.com/ravencni/raven/pkg/apis/raven/v1beta1"
	"github.com/ravencni/raven/pkg/datapath"
	"github.com/ravencni/raven/pkg/datapath/accel/attach"
	"github.com/ravencni/raven/pkg/datapath/pods/podtest"
	"github.com/ravencni/raven/pkg/topology"
	"github.com/ravencni/raven/pkg/tunnel"
	"github.com/ravencni/raven/test/netns"
)

// node is the kernel of a gateway: underlay, overlay, tunnel device, and a Plan for them.
type node struct {
	plan *topology.Plan
	host datapath.Host
	log  *bytes.Buffer
}

func newNode(t *testing.T) *node {
	t.Helper()
	device := func(l netlink.Link, name string) datapath.Link {
		l.Attrs().Name = name
		must(t, netlink.LinkAdd(l))
		must(t, netlink.LinkSetUp(podtest.Link(t, name)))
		return datapath.Link{Name: name, Index: podtest.Link(t, name).Attrs().Index, MTU: 1500}
	}
	underlay := device(&netlink.Veth{LinkAttrs: netlink.NewLinkAttrs(), PeerName: "wire"}, "eth.0")
	// The other end sends nothing of its own accord, such as neighbour discovery, which the programs would count.
	must(t, os.WriteFile("/proc/sys/net/ipv6/conf/wire/disable_ipv6", []byte("1"), 0o644))
	must(t, netlink.LinkSetUp(podtest.Link(t, "wire")))
	addr, err := netlink.ParseAddr("10.0.0.1/24")
	must(t, err)
	must(t, netlink.AddrAdd(podtest.Link(t, underlay.Name), addr))
	device(&netlink.Vxlan{LinkAttrs: netlink.NewLinkAttrs(), VxlanId: datapath.OverlayVNI, Port: datapath.OverlayPort}, datapath.OverlayDevice)
	for _, name := range []string{"nf_conntrack_tcp_be_liberal", "nf_conntrack_tcp_ignore_invalid_rst"} {
		must(t, os.WriteFile(filepath.Join(conntrackDir, name), []byte("1"), 0o644)) // as the sysctl part does
	}
	tun := device(&netlink.Tuntap{LinkAttrs: netlink.NewLinkAttrs(), Mode: netlink.TUNTAP_MODE_TUN}, "raven-wg0")
	return &node{
		log: new(bytes.Buffer),
		host: datapath.Host{
			Underlay: underlay, Underlays: []datapath.Link{underlay},
			Tunnel: tunnel.Device{Name: tun.Name, Index: tun.Index, MTU: 1420},
		},
		plan: &topology.Plan{
			Node: "a1", Region: "a", Role: topology.RoleGateway,
			NodeIP4: netip.MustParseAddr("10.0.0.1"),
			LocalPrefixes: []netip.Prefix{
				netip.MustParsePrefix("10.244.1.0/24"), netip.MustParsePrefix("fd00:1::/64"),
			},
			Overlay: &topology.Overlay{MTU: 1450, Underlay: netip.MustParseAddr("10.0.0.1"),
				Members: []netip.Addr{netip.MustParseAddr("10.0.0.2")}},
			Tunnel: &topology.Tunnel{Driver: "wireguard", ListenPort: 4500},
			NextHops: []topology.NextHop{{
				ID: "node/a2", Kind: topology.KindOverlay, Node: "a2", MTU: 1450,
				Underlay: netip.MustParseAddr("10.0.0.2"), MAC: topology.VTEPMAC(netip.MustParseAddr("10.0.0.2")),
			}, {
				ID: "region/b", Kind: topology.KindTunnel, Node: "b1", MTU: 1420,
			}, {
				ID: "region/c", Kind: topology.KindUnreachable,
			}},
			Prefixes: []topology.Prefix{
				{Prefix: netip.MustParsePrefix("10.244.2.0/24"), Scope: topology.ScopeInRegion, NextHop: "node/a2"},
				{Prefix: netip.MustParsePrefix("10.245.0.0/16"), Scope: topology.ScopeRemote, NextHop: "region/b"},
				{Prefix: netip.MustParsePrefix("10.246.0.0/16"), Scope: topology.ScopeRemote, NextHop: "region/c"},
				{Prefix: netip.MustParsePrefix("fd00:b::/48"), Scope: topology.ScopeRemote, NextHop: "region/b"},
			},
			Throws: []netip.Addr{netip.MustParseAddr("10.245.9.9"), netip.MustParseAddr("192.0.2.7")},
		},
	}
}

// applier makes an Applier as a freshly started daemon does.
func (n *node) applier(t *testing.T, options Options) *Applier {
	t.Helper()
	options.Logger = slog.New(slog.NewTextHandler(n.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	a, err := New(options)
	must(t, err)
	t.Cleanup(func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		must(t, a.unload())
	})
	return a
}

// apply runs one pass that must succeed and be accelerated, and returns its writes.
func (n *node) apply(t *testing.T, a *Applier) int {
	t.Helper()
	changes, err := a.Apply(t.Context(), n.plan, n.host)
	must(t, err)
	if mode, reason := a.Mode(); mode != v1beta1.DatapathAccelerated {
		t.Fatalf("mode %s, reason %q\n%s", mode, reason, n.log)
	}
	return changes
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// pinned lists the objects below the pin root by path.
func pinned(t *testing.T) []string {
	t.Helper()
	var list []string
	err := filepath.WalkDir(datapath.PinRoot, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			list = append(list, strings.TrimPrefix(path, datapath.PinRoot+"/"))
		}
		return err
	})
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return list
}

// kernelState is what a restart must not change: ids of maps, programs and links by path.
func kernelState(t *testing.T) map[string]uint32 {
	t.Helper()
	state := make(map[string]uint32)
	for _, p := range pinned(t) {
		path := filepath.Join(datapath.PinRoot, p)
		if m, err := ebpf.LoadPinnedMap(path, nil); err == nil {
			id, err := mapID(m)
			must(t, err)
			must(t, m.Close())
			state[p] = uint32(id)
		} else if prog, err := ebpf.LoadPinnedProgram(path, nil); err == nil {
			id, err := programID(prog)
			must(t, err)
			must(t, prog.Close())
			state[p] = uint32(id)
		} else {
			l, err := link.LoadPinnedLink(path, nil)
			must(t, err)
			info, err := l.Info()
			must(t, err)
			must(t, l.Close())
			state[p], state[p+" program"] = uint32(info.ID), uint32(info.Program)
		}
	}
	return state
}

// attached says which programs run where, in the form program@device.
func attached(a *Applier) []string {
	var list []string
	for _, at := range a.Attachments() {
		if at.Reason == "" {
			list = append(list, at.Program+"@"+at.Device)
		}
	}
	return list
}

var gatewayAttachments = []string{
	"raven_from_overlay@raven0", "raven_from_pod@veth0", "raven_from_tunnel@raven-wg0", "raven_from_underlay@eth.0",
}

func needsTCX(t *testing.T) {
	t.Helper()
	if !attach.HaveTCX() {
		t.Skip("this kernel has no tcx")
	}
}

// bothMethods runs a test with tcx and with clsact.
func bothMethods(t *testing.T, f func(t *testing.T, n *node, options Options)) {
	for name, options := range map[string]Options{"tcx": {}, "clsact": {ForceClsact: true}} {
		t.Run(name, func(t *testing.T) {
			if !options.ForceClsact {
				needsTCX(t)
			}
			netns.Run(t, func(t *testing.T) { f(t, newNode(t), options) })
		})
	}
}

func TestProgramsAreAttachedAndTenMoreAppliesWriteNothing(t *testing.T) {
	bothMethods(t, func(t *testing.T, n *node, options Options) {
		podtest.PointToPoint(t, "veth0", "10.244.1.2", "fd00:1::2")
		a := n.applier(t, options)
		if n.apply(t, a) == 0 {
			t.Error("the first pass should write")
		}
		if diff := cmp.Diff(gatewayAttachments, attached(a)); diff != "" {
			t.Error(diff)
		}
		before, stats := kernelState(t), a.Stats()
		for range 10 {
			if changes := n.apply(t, a); changes != 0 {
				t.Fatalf("a pass that should change nothing made %d writes: %+v after %+v", changes, a.Stats(), stats)
			}
		}
		if diff := cmp.Diff(before, kernelState(t)); diff != "" {
			t.Error(diff)
		}
	})
}

func TestARestartedDaemonFindsEverythingAndChangesNothing(t *testing.T) {
	bothMethods(t, func(t *testing.T, n *node, options Options) {
		podtest.PointToPoint(t, "veth0", "10.244.1.2")
		n.apply(t, n.applier(t, options))
		before := kernelState(t)
		if changes := n.apply(t, n.applier(t, options)); changes != 0 {
			t.Errorf("%d writes", changes)
		}
		if diff := cmp.Diff(before, kernelState(t)); diff != "" {
			t.Error(diff)
		}
	})
}

func TestCleanupLeavesNothing(t *testing.T) {
	bothMethods(t, func(t *testing.T, n *node, options Options) {
		podtest.PointToPoint(t, "veth0", "10.244.1.2")
		n.apply(t, n.applier(t, options))
		// By another process than the one that made it, and twice.
		a := n.applier(t, options)
		must(t, a.Cleanup(t.Context()))
		must(t, a.Cleanup(t.Context()))
		if _, err := os.Stat(datapath.PinRoot); !os.IsNotExist(err) {
			t.Errorf("pins are left: %v %v", pinned(t), err)
		}
		expectNothingAttached(t, n, "veth0")
	})
}

// expectNothingAttached looks at the devices themselves.
func expectNothingAttached(t *testing.T, n *node, pods ...string) {
	t.Helper()
	for _, name := range append(pods, datapath.OverlayDevice, n.host.Tunnel.Name, n.host.Underlay.Name) {
		expectNoTC(t, name)
		if xdp := podtest.Link(t, name).Attrs().Xdp; xdp != nil && xdp.Attached {
			t.Errorf("%s still has an XDP program", name)
		}
	}
}

func expectNoTC(t *testing.T, name string) {
	t.Helper()
	l := podtest.Link(t, name)
	qdiscs, err := netlink.QdiscList(l)
	must(t, err)
	for _, q := range qdiscs {
		if q.Type() == "clsact" {
			t.Errorf("%s still has a clsact qdisc", name)
		}
	}
	if !attach.HaveTCX() {
		return
	}
	programs, err := link.QueryPrograms(link.QueryOptions{Target: l.Attrs().Index, Attach: ebpf.AttachTCXIngress})
	must(t, err)
	if len(programs.Programs) > 0 {
		t.Errorf("%s still has a tcx program", name)
	}
}

func TestANodeOutsideOfRegionsOwnsNothing(t *testing.T) {
	bothMethods(t, func(t *testing.T, n *node, options Options) {
		podtest.PointToPoint(t, "veth0", "10.244.1.2")
		a := n.applier(t, options)
		n.apply(t, a)
		none := &topology.Plan{Role: topology.RoleNone}
		changes, err := a.Apply(t.Context(), none, n.host)
		must(t, err)
		if mode, _ := a.Mode(); mode != v1beta1.DatapathOff || changes == 0 {
			t.Errorf("mode %s after %d changes", mode, changes)
		}
		expectNothingAttached(t, n, "veth0")
		if left := pinned(t); len(left) > 0 {
			t.Errorf("pins are left: %v", left)
		}
		if changes, err = a.Apply(t.Context(), none, n.host); changes != 0 || err != nil {
			t.Errorf("the second pass made %d writes, error %v", changes, err)
		}
		n.apply(t, a)
		if diff := cmp.Diff(gatewayAttachments, attached(a)); diff != "" {
			t.Error("after joining again:", diff)
		}
	})
}

func TestEachPinRemovedByHandComesBack(t *testing.T) {
	netns.Run(t, func(t *testing.T) {
		n := newNode(t)
		podtest.PointToPoint(t, "veth0", "10.244.1.2")
		a := n.applier(t, Options{})
		n.apply(t, a)
		for _, path := range pinned(t) {
			before := kernelState(t)
			must(t, os.Remove(filepath.Join(datapath.PinRoot, path)))
			if changes := n.apply(t, a); changes != 1 {
				t.Errorf("%s came back with %d writes", path, changes)
			}
			after := kernelState(t)
			if strings.Contains(path, "links/") { // a link is a new one
				delete(before, path)
				delete(after, path)
			}
			if diff := cmp.Diff(before, after); diff != "" {
				t.Error(path, diff)
			}
		}
		if diff := cmp.Diff(gatewayAttachments, attached(a)); diff != "" {
			t.Error(diff)
		}
	})
}

func TestEachFilterRemovedByHandComesBack(t *testing.T) {
	netns.Run(t, func(t *testing.T) {
		n := newNode(t)
		podtest.PointToPoint(t, "veth0", "10.244.1.2")
		a := n.applier(t, Options{ForceClsact: true})
		n.apply(t, a)
		for _, name := range []string{"veth0", datapath.OverlayDevice, n.host.Tunnel.Name} {
			filters, err := netlink.FilterList(podtest.Link(t, name), netlink.HANDLE_MIN_INGRESS)
			must(t, err)
			if len(filters) != 1 {
				t.Fatalf("%s has filters %v", name, filters)
			}
			must(t, netlink.FilterDel(filters[0]))
			if changes := n.apply(t, a); changes != 1 {
				t.Errorf("the filter of %s came back with %d writes", name, changes)
			}
			qdiscs, err := netlink.QdiscList(podtest.Link(t, name))
			must(t, err)
			i := slices.IndexFunc(qdiscs, func(q netlink.Qdisc) bool { return q.Type() == "clsact" })
			must(t, netlink.QdiscDel(qdiscs[i]))
			if changes := n.apply(t, a); changes != 1 {
				t.Errorf("the qdisc of %s came back with %d writes", name, changes)
			}
		}
		must(t, a.Cleanup(t.Context()))
		expectNothingAttached(t, n, "veth0")
	})
}
