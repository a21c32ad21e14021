package overlay

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ravencni/raven/pkg/datapath"
	"github.com/ravencni/raven/pkg/datapath/gro"
	"github.com/ravencni/raven/pkg/datapath/sysctl"
	"github.com/ravencni/raven/pkg/topology"
	"github.com/ravencni/raven/test/netns"
)

const self, gateway = "10.0.0.5", "10.0.0.1"

func neighbour(name, underlay string) topology.Neighbour {
	a := netip.MustParseAddr(underlay)
	return topology.Neighbour{Node: name, Underlay: a, MAC: topology.VTEPMAC(a)}
}

func memberPlan() *topology.Plan {
	own := netip.MustParseAddr(self)
	return &topology.Plan{
		Node: "edge-2", Region: "edge", Role: topology.RoleMember,
		NodeIP4: own, NodeIP6: netip.MustParseAddr("fd00::5"),
		Overlay: &topology.Overlay{
			MTU: 1450, MAC: topology.VTEPMAC(own), Underlay: own,
			Neighbours: []topology.Neighbour{neighbour("edge-1", gateway), neighbour("edge-3", "10.0.0.3")},
		},
	}
}

func apply(t *testing.T, plan *topology.Plan) int {
	t.Helper()
	changes, err := New().Apply(t.Context(), plan, datapath.Host{})
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

func TestTheDeviceIsWhatThePlanSays(t *testing.T) {
	netns.Run(t, func(t *testing.T) {
		apply(t, memberPlan())
		l, err := netlink.LinkByName(datapath.OverlayDevice)
		if err != nil {
			t.Fatal(err)
		}
		v := l.(*netlink.Vxlan)
		if v.VxlanId != 200 || v.Port != 4472 || v.Learning || v.SrcAddr.String() != self || v.VtepDevIndex != 0 {
			t.Errorf("got %+v", v)
		}
		if v.MTU != 1450 || v.HardwareAddr.String() != "aa:0f:0a:00:00:05" || v.Flags&net.FlagUp == 0 {
			t.Errorf("got MTU %d, MAC %s, flags %v", v.MTU, v.HardwareAddr, v.Flags)
		}
		if on, err := gro.Off(datapath.OverlayDevice); on || err != nil {
			t.Errorf("it merges segments: %v, %v", on, err)
		}
		if out := run(t, "tc qdisc show dev raven0"); !strings.Contains(out, "noqueue") {
			t.Errorf("its queue is %q, want noqueue", out)
		}
		for _, want := range []string{
			"inet 10.0.0.5/32 scope global noprefixroute raven0",
			"inet6 fd00::5/128 scope global nodad noprefixroute",
			"inet6 fe80::a80f:aff:fe00:5/64 scope link nodad noprefixroute",
		} {
			if out := run(t, "ip address show dev raven0"); !strings.Contains(out, want) {
				t.Errorf("no %q in\n%s", want, out)
			}
		}
		if mode, err := sysctl.Read(addrGenMode); err != nil || mode != "1" {
			t.Errorf("address generation mode %q, %v", mode, err)
		}
		for _, want := range []string{
			"10.0.0.1 lladdr aa:0f:0a:00:00:01 PERMANENT proto 114",
			"fe80::a80f:aff:fe00:1 lladdr aa:0f:0a:00:00:01 PERMANENT proto 114",
			"10.0.0.3 lladdr aa:0f:0a:00:00:03 PERMANENT",
		} {
			if out := run(t, "ip neighbour show dev raven0"); !strings.Contains(out, want) {
				t.Errorf("no %q in\n%s", want, out)
			}
		}
		for _, want := range []string{"aa:0f:0a:00:00:01 dst 10.0.0.1 self permanent", "aa:0f:0a:00:00:03 dst 10.0.0.3"} {
			if out := run(t, "bridge fdb show dev raven0"); !strings.Contains(out, want) {
				t.Errorf("no %q in\n%s", want, out)
			}
		}
		if out := run(t, "ip route show table main") + run(t, "ip -6 route show table main"); strings.Contains(out, "raven0") {
			t.Errorf("the main table got routes:\n%s", out)
		}
	})
}

func TestTenAppliesInARowMakeNoWrite(t *testing.T) {
	netns.Run(t, func(t *testing.T) {
		if n := apply(t, memberPlan()); n == 0 {
			t.Fatal("the first apply counted no write")
		}
		netns.Ready(t, datapath.OverlayDevice)
		monitor := netns.NewMonitor(t)
		monitor.Settle(t)
		for range 10 {
			if n := apply(t, memberPlan()); n != 0 {
				t.Fatalf("an apply of the same plan counted %d writes", n)
			}
		}
		if events := monitor.Settle(t); len(events) != 0 {
			t.Fatalf("the kernel saw %v", events)
		}
	})
}

func TestAnObjectDamagedByHandComesBackWithOneWrite(t *testing.T) {
	for _, damage := range []string{
		"ip address del fd00::5/128 dev raven0",
		"ip address del fe80::a80f:aff:fe00:5/64 dev raven0",
		"ip address add 192.0.2.1/24 dev raven0",
		"ip neighbour del 10.0.0.1 dev raven0",
		"ip neighbour del fe80::a80f:aff:fe00:1 dev raven0",
		"ip neighbour replace 10.0.0.1 lladdr 02:00:00:00:00:01 dev raven0 nud permanent",
		"ip neighbour replace 10.0.0.1 lladdr aa:0f:0a:00:00:01 dev raven0 nud reachable",
		"ip neighbour add 10.0.0.9 lladdr 02:00:00:00:00:09 dev raven0 nud permanent",
		"ip neighbour add fe80::9 lladdr 02:00:00:00:00:09 dev raven0 nud permanent",
		"bridge fdb del aa:0f:0a:00:00:01 dst 10.0.0.1 dev raven0",
		"bridge fdb replace aa:0f:0a:00:00:01 dst 10.0.0.9 dev raven0",
		"bridge fdb replace aa:0f:0a:00:00:01 dst 10.0.0.1 port 4789 dev raven0",
		"bridge fdb append aa:0f:0a:00:00:01 dst 10.0.0.9 dev raven0",
		"bridge fdb add 02:00:00:00:00:09 dst 10.0.0.9 dev raven0",
		"bridge fdb append 00:00:00:00:00:00 dst 10.0.0.9 dev raven0",
		"ip link set raven0 mtu 1400",
		"ip link set raven0 addrgenmode eui64",
	} {
		t.Run(damage, func(t *testing.T) {
			netns.Run(t, func(t *testing.T) {
				apply(t, memberPlan())
				run(t, damage)
				if n := apply(t, memberPlan()); n != 1 {
					t.Errorf("the repair counted %d writes, want 1", n)
				}
				if n := apply(t, memberPlan()); n != 0 {
					t.Errorf("after the repair %d writes were due", n)
				}
			})
		})
	}
}

// The kernel takes along what hangs on a device that goes or is set down, the neighbours of one whose MAC changes, and
// those of IPv4 with its last IPv4 address: the repair is more than one write.
func TestWhatTheKernelTakesAlongComesBackWhole(t *testing.T) {
	for _, damage := range []string{
		"ip link del raven0", "ip link set raven0 down", "ip link set raven0 mtu 1000",
		"ip link set raven0 address 02:00:00:00:00:07", "ip address del 10.0.0.5/32 dev raven0",
	} {
		t.Run(damage, func(t *testing.T) {
			netns.Run(t, func(t *testing.T) {
				apply(t, memberPlan())
				before := run(t, "ip address show dev raven0 scope global") + run(t, "ip neighbour show dev raven0") +
					run(t, "bridge fdb show dev raven0")
				run(t, damage)
				if n := apply(t, memberPlan()); n < 2 {
					t.Errorf("the repair counted %d writes", n)
				}
				if n := apply(t, memberPlan()); n != 0 {
					t.Errorf("after the repair %d writes were due", n)
				}
				after := run(t, "ip address show dev raven0 scope global") + run(t, "ip neighbour show dev raven0") +
					run(t, "bridge fdb show dev raven0")
				if sortedLines(after) != sortedLines(before) {
					t.Errorf("before:\n%s\nafter:\n%s", before, after)
				}
			})
		})
	}
}

func TestOnlyAnAttributeThatTheKernelFixesMakesTheDeviceAnew(t *testing.T) {
	netns.Run(t, func(t *testing.T) {
		index := func() int {
			l, err := netlink.LinkByName(datapath.OverlayDevice)
			if err != nil {
				t.Fatal(err)
			}
			return l.Attrs().Index
		}
		apply(t, memberPlan())
		first := index()

		plan := memberPlan()
		plan.Overlay.MTU = 1400
		apply(t, plan)
		if index() != first {
			t.Error("another MTU made the device anew")
		}

		other := netip.MustParseAddr("10.0.0.6")
		plan.NodeIP4, plan.Overlay.Underlay, plan.Overlay.MAC = other, other, topology.VTEPMAC(other)
		apply(t, plan)
		if index() == first {
			t.Error("another underlay address did not make the device anew")
		}
		run(t, "ip link del raven0")
		run(t, "ip link add raven0 type vxlan id 200 dstport 4789 local 10.0.0.6 nolearning")
		apply(t, plan)
		if out := run(t, "ip -d link show raven0"); !strings.Contains(out, "dstport 4472") {
			t.Errorf("a device with another port stayed: %s", out)
		}
	})
}

func TestADeviceThatIsNotRavensIsRefusedAndStays(t *testing.T) {
	netns.Run(t, func(t *testing.T) {
		run(t, "ip link add raven0 type bridge")
		if _, err := New().Apply(t.Context(), memberPlan(), datapath.Host{}); err == nil {
			t.Error("a bridge called raven0 was taken over")
		}
		if err := New().Cleanup(t.Context()); err == nil {
			t.Error("cleanup said nothing of a bridge called raven0")
		}
		run(t, "ip link show raven0")
	})
}

func TestAPlanWithoutOverlayAndACleanupLeaveNoDevice(t *testing.T) {
	netns.Run(t, func(t *testing.T) {
		if n := apply(t, &topology.Plan{Role: topology.RoleNone}); n != 0 {
			t.Errorf("nothing to remove counted %d writes", n)
		}
		apply(t, memberPlan())
		if n := apply(t, &topology.Plan{Role: topology.RoleNone}); n != 1 {
			t.Errorf("removing the device counted %d writes", n)
		}
		apply(t, memberPlan())
		for range 2 {
			if err := New().Cleanup(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := netlink.LinkByName(datapath.OverlayDevice); err == nil {
			t.Error("the device is still there")
		}
	})
}

func TestAHostWithoutIPv6GetsTheIPv4PartAndAnError(t *testing.T) {
	for name, spoil := range map[string]func(t *testing.T, plan *topology.Plan){
		"disabled by sysctl": func(t *testing.T, _ *topology.Plan) {
			if err := sysctl.Write("net/ipv6/conf/default/disable_ipv6", "1"); err != nil {
				t.Fatal(err)
			}
		},
		"MTU below 1280": func(_ *testing.T, plan *topology.Plan) { plan.Overlay.MTU = 1200 },
	} {
		t.Run(name, func(t *testing.T) {
			netns.Run(t, func(t *testing.T) {
				plan := memberPlan()
				spoil(t, plan)
				for pass := range 3 {
					n, err := New().Apply(t.Context(), plan, datapath.Host{})
					if err == nil || !strings.Contains(err.Error(), "IPv6") {
						t.Fatalf("the error is %v, want one that names IPv6", err)
					}
					if pass > 0 && n != 0 {
						t.Errorf("pass %d made %d writes", pass, n)
					}
				}
				if out := run(t, "ip neighbour show dev raven0"); !strings.Contains(out, "10.0.0.1 lladdr") {
					t.Errorf("the IPv4 part is missing: %s", out)
				}
				plan.NodeIP6 = netip.Addr{}
				if _, err := New().Apply(t.Context(), plan, datapath.Host{}); err != nil {
					t.Errorf("a plan of IPv4 alone complains: %v", err)
				}
			})
		})
	}
}

func TestAnIPv6UnderlayCarriesTheOverlay(t *testing.T) {
	netns.Run(t, func(t *testing.T) {
		plan := memberPlan()
		own := netip.MustParseAddr("fd00::5")
		plan.NodeIP4 = netip.Addr{}
		plan.Overlay.Underlay, plan.Overlay.MAC = own, topology.VTEPMAC(own)
		plan.Overlay.Neighbours = []topology.Neighbour{neighbour("edge-1", "fd00::1")}
		apply(t, plan)
		if out := run(t, "ip -d link show raven0"); !strings.Contains(out, "local fd00::5") || !strings.Contains(out, "udp6zerocsumrx") {
			t.Errorf("got %s", out)
		}
		if out := run(t, "bridge fdb show dev raven0"); !strings.Contains(out, "dst fd00::1") {
			t.Errorf("got %s", out)
		}
		if n := apply(t, plan); n != 0 {
			t.Errorf("a second apply made %d writes", n)
		}
	})
}

func TestABadNeighbourCostsOnlyItself(t *testing.T) {
	netns.Run(t, func(t *testing.T) {
		plan := memberPlan()
		plan.Overlay.Neighbours = append(plan.Overlay.Neighbours, neighbour("edge-6", "fd00::6"), topology.Neighbour{Node: "edge-7"})
		_, err := New().Apply(t.Context(), plan, datapath.Host{})
		if err == nil || !strings.Contains(err.Error(), "edge-6") || !strings.Contains(err.Error(), "edge-7") {
			t.Errorf("got %v, want an error that names both", err)
		}
		if out := run(t, "bridge fdb show dev raven0"); !strings.Contains(out, "dst 10.0.0.1") || strings.Contains(out, "fd00::6") {
			t.Errorf("got %s", out)
		}
	})
}

func TestFiveThousandNeighboursAreAppliedAndDiffed(t *testing.T) {
	netns.Run(t, func(t *testing.T) {
		plan := memberPlan()
		plan.Overlay.Neighbours = nil
		for i := range 5000 {
			a := netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)})
			plan.Overlay.Neighbours = append(plan.Overlay.Neighbours, topology.Neighbour{Node: "n", Underlay: a, MAC: topology.VTEPMAC(a)})
		}
		if n := apply(t, plan); n < 15000 {
			t.Errorf("the first apply made %d writes, want three a neighbour", n)
		}
		if n := apply(t, plan); n != 0 {
			t.Errorf("the second apply made %d writes", n)
		}
	})
}

func TestWhatTheKernelMadeByItselfStays(t *testing.T) {
	netns.Run(t, func(t *testing.T) {
		apply(t, memberPlan())
		run(t, "ip neighbour add 10.0.0.77 dev raven0 lladdr 02:00:00:00:00:77 nud reachable")
		if n := apply(t, memberPlan()); n != 0 {
			t.Errorf("a dynamic neighbour cost %d writes", n)
		}
		run(t, "ip neighbour show 10.0.0.77 dev raven0")
	})
}

func TestACancelledContextWritesNothing(t *testing.T) {
	netns.Run(t, func(t *testing.T) {
		ctx, cancel := contextCancelled(t)
		defer cancel()
		if n, err := New().Apply(ctx, memberPlan(), datapath.Host{}); n != 0 || err == nil {
			t.Errorf("got %d writes, %v", n, err)
		}
		if _, err := netlink.LinkByName(datapath.OverlayDevice); err == nil || errors.Is(err, unix.EPERM) {
			t.Errorf("the device is there: %v", err)
		}
	})
}

func contextCancelled(t *testing.T) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx, cancel
}

func sortedLines(s string) string {
	lines := strings.Split(s, "\n")
	for i, l := range lines {
		if head, _, ok := strings.Cut(l, ": raven0"); ok {
			lines[i] = strings.TrimLeft(head, "0123456789") // the index changes with the device
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}
