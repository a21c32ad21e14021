package pods_test

import (
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ravencni/raven/pkg/datapath/accel/attach"
	"github.com/ravencni/raven/pkg/datapath/pods"
	"github.com/ravencni/raven/pkg/datapath/pods/podtest"
	"github.com/ravencni/raven/pkg/datapath/rtnl"
	"github.com/ravencni/raven/test/netns"
)

var prefixes = []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24"), netip.MustParsePrefix("fd00:1::/64")}

func discover(t *testing.T) []pods.Pod {
	t.Helper()
	conn, err := rtnl.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	in, err := attach.Inspect(conn, attach.HaveTCX(), nil)
	if err != nil {
		t.Fatal(err)
	}
	found, err := pods.Discover(t.Context(), conn, prefixes, in)
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// reason is that of the only pod.
func reason(t *testing.T) string {
	t.Helper()
	found := discover(t)
	if len(found) != 1 {
		t.Fatalf("want one pod, got %+v", found)
	}
	return found[0].Reason
}

func addrs(list ...string) []netip.Addr {
	var out []netip.Addr
	for _, a := range list {
		out = append(out, netip.MustParseAddr(a))
	}
	return out
}

func TestPodsAreFoundWithAllTheirAddressesAndMACs(t *testing.T) {
	netns.Run(t, func(t *testing.T) {
		a := podtest.PointToPoint(t, "veth.0000", "10.244.1.2", "fd00:1::2", "192.168.7.1", "10.244.1.3")
		bridge := podtest.Bridge(t, "cni0", "10.244.1.1/24", "fd00:1::1/64")
		b := podtest.OnBridge(t, bridge, "veth1111", "10.244.1.130", "fd00:1::130")
		podtest.PointToPoint(t, "stranger", "192.168.7.2")
		// A veth with both ends here is no pod, even at a pod's address.
		attrs := netlink.NewLinkAttrs()
		attrs.Name = "near"
		must(t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "far"}))
		addr, err := netlink.ParseAddr("10.244.1.9/32")
		must(t, err)
		must(t, netlink.AddrAdd(podtest.Link(t, "far"), addr))

		want := []pods.Pod{{
			Name: "veth.0000", Index: a.Host.Attrs().Index, Addrs: addrs("10.244.1.2", "10.244.1.3", "fd00:1::2"),
			MAC: a.MAC, GatewayMAC: a.Host.Attrs().HardwareAddr, MTU: 1500,
		}, {
			Name: "veth1111", Index: b.Host.Attrs().Index, Addrs: addrs("10.244.1.130", "fd00:1::130"),
			MAC: b.MAC, GatewayMAC: podtest.Link(t, "cni0").Attrs().HardwareAddr, MTU: 1500,
		}}
		if diff := cmp.Diff(want, discover(t), cmpopts.EquateComparable(netip.Addr{})); diff != "" {
			t.Error(diff)
		}
		a.Delete(t)
		if found := discover(t); len(found) != 1 || found[0].Name != "veth1111" {
			t.Errorf("the deleted pod should be gone: %+v", found)
		}
	})
}

func TestAPodIsIneligibleWhileSomethingForeignIsOnItsVeth(t *testing.T) {
	netns.Run(t, func(t *testing.T) {
		pod := podtest.PointToPoint(t, "veth0", "10.244.1.2")
		index := pod.Host.Attrs().Index
		clsact := &netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{
			LinkIndex: index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT,
		}}
		program := foreignProgram(t)
		filter := func(parent uint32) *netlink.BpfFilter {
			return &netlink.BpfFilter{Fd: program.FD(), Name: "theirs", FilterAttrs: netlink.FilterAttrs{
				LinkIndex: index, Parent: parent, Handle: 1, Priority: 10, Protocol: unix.ETH_P_ALL,
			}}
		}
		shaper := &netlink.Tbf{
			QdiscAttrs: netlink.QdiscAttrs{LinkIndex: index, Handle: netlink.MakeHandle(1, 0), Parent: netlink.HANDLE_ROOT},
			Rate:       1e6, Limit: 1e5, Buffer: 1e4,
		}
		ingress, egress := filter(netlink.HANDLE_MIN_INGRESS), filter(netlink.HANDLE_MIN_EGRESS)

		expect := func(what, want string) {
			t.Helper()
			if got := reason(t); (want == "") != (got == "") || !strings.Contains(got, want) {
				t.Errorf("%s: reason %q, want %q", what, got, want)
			}
		}
		expect("bare veth", "")
		must(t, netlink.QdiscAdd(clsact))
		expect("empty clsact", "")
		must(t, netlink.FilterAdd(ingress))
		expect("ingress filter", "ingress bpf filter \"theirs\" of priority 10")
		must(t, netlink.FilterDel(ingress))
		expect("ingress filter gone", "")
		must(t, netlink.FilterAdd(egress))
		expect("egress filter", "egress bpf filter \"theirs\" of priority 10")
		must(t, netlink.QdiscDel(clsact))
		expect("clsact gone", "")
		must(t, netlink.QdiscAdd(shaper))
		expect("shaper", "qdisc tbf")
		must(t, netlink.QdiscDel(shaper))
		expect("shaper gone", "")
		must(t, netlink.LinkSetDown(pod.Host))
		expect("down", "down")
		must(t, netlink.LinkSetUp(pod.Host))
		must(t, netlink.RouteReplace(&netlink.Route{
			LinkIndex: index, Dst: netlink.NewIPNet(net.IPv4(10, 244, 1, 2)), Scope: netlink.SCOPE_LINK,
		}))
		if !attach.HaveTCX() {
			return
		}
		for direction, at := range map[string]ebpf.AttachType{
			"ingress": ebpf.AttachTCXIngress, "egress": ebpf.AttachTCXEgress,
		} {
			l, err := link.AttachTCX(link.TCXOptions{Interface: index, Program: program, Attach: at})
			must(t, err)
			expect("tcx "+direction, "tcx "+direction+` program "theirs"`)
			must(t, l.Detach())
			must(t, l.Close())
			expect("tcx gone", "")
		}
	})
}

func TestAPodThatClaimsAnothersAddressIsNotBelieved(t *testing.T) {
	netns.Run(t, func(t *testing.T) {
		podtest.PointToPoint(t, "victim", "10.244.1.2")
		podtest.Bare(t, "thief", "10.244.1.2")
		found := discover(t)
		if len(found) != 2 || found[0].Reason != "" || !strings.Contains(found[1].Reason, "does not lead to thief") {
			t.Errorf("only the thief should be refused: %+v", found)
		}
	})
}

func TestTwoPodsOfOneBridgeAtTheSameAddressAreLeftToTheKernel(t *testing.T) {
	netns.Run(t, func(t *testing.T) {
		bridge := podtest.Bridge(t, "cni0", "10.244.1.1/24")
		podtest.OnBridge(t, bridge, "one", "10.244.1.2")
		podtest.OnBridge(t, bridge, "two", "10.244.1.2")
		podtest.OnBridge(t, bridge, "three", "10.244.1.3")
		found := discover(t)
		if len(found) != 3 || !strings.Contains(found[0].Reason, "also at two") ||
			!strings.Contains(found[1].Reason, "also at one") || found[2].Reason != "" {
			t.Errorf("both of the same address should be refused, and only they: %+v", found)
		}
	})
}

func TestAFilterOnAPodsBridgeCountsAsItsOwn(t *testing.T) {
	if !attach.HaveTCX() {
		t.Skip("this kernel has no tcx")
	}
	netns.Run(t, func(t *testing.T) {
		bridge := podtest.Bridge(t, "cni0", "10.244.1.1/24")
		podtest.OnBridge(t, bridge, "veth0", "10.244.1.2")
		l, err := link.AttachTCX(link.TCXOptions{
			Interface: bridge.Attrs().Index, Program: foreignProgram(t), Attach: ebpf.AttachTCXIngress,
		})
		must(t, err)
		defer l.Close()
		if got := reason(t); !strings.Contains(got, "of its bridge cni0: it has the tcx ingress program") {
			t.Errorf("reason %q", got)
		}
	})
}

// foreignProgram passes everything on.
func foreignProgram(t *testing.T) *ebpf.Program {
	t.Helper()
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: "theirs", Type: ebpf.SchedCLS, License: "GPL", Instructions: asm.Instructions{
		asm.Mov.Imm(asm.R0, -1), asm.Return(),
	}})
	must(t, err)
	t.Cleanup(func() { must(t, p.Close()) })
	return p
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
