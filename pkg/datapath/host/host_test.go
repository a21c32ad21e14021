package host

import (
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	"github.com/ravencni/raven/pkg/datapath"
	"github.com/ravencni/raven/pkg/topology"
	"github.com/ravencni/raven/pkg/tunnel"
	"github.com/ravencni/raven/test/netns"
)

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func run(t *testing.T, commands ...string) {
	t.Helper()
	for _, c := range commands {
		fields := strings.Fields(c)
		if out, err := exec.Command(fields[0], fields[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", c, err, out)
		}
	}
}

// twoNICs makes eth0 with the node's addresses, eth1 with another network, and Raven's devices with the node's address.
func twoNICs(t *testing.T) {
	t.Helper()
	here := netns.Current(t)
	netns.Veth(t, netns.End{In: here, Name: "eth0", Addresses: []string{"10.0.0.5/24", "fd00::5/64"}},
		netns.End{In: netns.New(t), Name: "wire"})
	netns.Veth(t, netns.End{In: here, Name: "eth1", Addresses: []string{"10.8.0.5/24"}},
		netns.End{In: netns.New(t), Name: "wire"})
	run(t, "ip link set eth1 mtu 1400",
		"ip link add raven0 type bridge", "ip address add 10.0.0.5/32 dev raven0", "ip link set raven0 up",
		"ip link add raven-plain0 type bridge", "ip address add fd00::5/128 dev raven-plain0 nodad",
		"ip link add corp0 type bridge", "ip address add 10.0.0.5/32 dev corp0", "ip link set corp0 up")
}

func member(members ...string) *topology.Plan {
	p := &topology.Plan{
		Role: topology.RoleMember, NodeIP4: addr("10.0.0.5"), NodeIP6: addr("fd00::5"),
		Overlay: &topology.Overlay{Underlay: addr("10.0.0.5")},
	}
	for _, m := range members {
		p.Overlay.Members = append(p.Overlay.Members, addr(m))
	}
	return p
}

func names(links []datapath.Link) string {
	var out []string
	for _, l := range links {
		out = append(out, l.Name)
	}
	return strings.Join(out, " ")
}

func TestTheUnderlayIsTheDeviceWithTheNodesAddressAndNeverOneOfOurs(t *testing.T) {
	netns.Run(t, func(t *testing.T) {
		twoNICs(t)
		tun := tunnel.Device{Name: "corp0", Index: 9}
		h, err := Resolve(member(), tun)
		if err != nil {
			t.Fatal(err)
		}
		if h.Underlay.Name != "eth0" || h.Underlay.MTU != 1500 || h.Underlay.Index == 0 || names(h.Underlays) != "eth0" || h.Tunnel != tun {
			t.Errorf("got %+v", h)
		}
		run(t, "ip address del 10.0.0.5/24 dev eth0")
		h, err = Resolve(member(), tun)
		if err != nil || h.Underlay.Name != "eth0" {
			t.Errorf("by the IPv6 address alone: %+v, %v", h, err)
		}
		run(t, "ip address del fd00::5/64 dev eth0")
		if h, err := Resolve(member(), tun); err == nil || !strings.Contains(err.Error(), "10.0.0.5") {
			t.Errorf("no device holds the address: %+v, %v", h, err)
		}
	})
}

func TestUnderlaysAreTheDevicesByWhichTheMainTableLeadsToMembers(t *testing.T) {
	netns.Run(t, func(t *testing.T) {
		twoNICs(t)
		run(t, "ip route add 10.9.0.0/16 via 10.8.0.1", "ip route add 10.9.1.0/24 via 10.0.0.1",
			"ip route add 10.7.0.0/16 nexthop via 10.0.0.1 nexthop via 10.8.0.1",
			// Neither Raven's own table nor another's counts.
			"ip rule add priority 100 table 9027", "ip route add 10.0.0.0/8 dev corp0 table 9027")
		for members, want := range map[string]string{
			"10.0.0.1":           "eth0",
			"10.0.0.1 10.8.0.1":  "eth0 eth1",
			"10.9.1.7":           "eth0",
			"10.9.2.7":           "eth0 eth1",
			"10.7.0.1":           "eth0 eth1",
			"192.0.2.1 fd00::99": "eth0",
			"::ffff:10.8.0.1":    "eth0 eth1",
		} {
			h, err := Resolve(member(strings.Fields(members)...), tunnel.Device{})
			if err != nil || names(h.Underlays) != want {
				t.Errorf("members %s: %q, %v; want %q", members, names(h.Underlays), err, want)
			}
		}
	})
}

func TestAPlanOfNoRegionHasNoUnderlayAndNoError(t *testing.T) {
	netns.Run(t, func(t *testing.T) {
		h, err := Resolve(&topology.Plan{Role: topology.RoleNone}, tunnel.Device{})
		if err != nil || h.Underlay.Name != "" || len(h.Underlays) != 0 {
			t.Errorf("got %+v, %v", h, err)
		}
	})
}

func TestTheUnderlayMTUIsTheSmallestOfTheAddressesDevices(t *testing.T) {
	netns.Run(t, func(t *testing.T) {
		twoNICs(t)
		for addrs, want := range map[string]int{"10.0.0.5": 1500, "10.0.0.5 fd00::5": 1500, "10.8.0.5": 1400, "fd00::5 10.8.0.5": 1400} {
			var list []netip.Addr
			for _, a := range strings.Fields(addrs) {
				list = append(list, addr(a))
			}
			if got, err := UnderlayMTU(append(list, netip.Addr{})...); err != nil || got != want {
				t.Errorf("%s: %d, %v; want %d", addrs, got, err, want)
			}
		}
		if _, err := UnderlayMTU(netip.Addr{}); err == nil {
			t.Error("no address gives no error")
		}
		if _, err := UnderlayMTU(addr("192.0.2.1")); err == nil || !strings.Contains(err.Error(), "192.0.2.1") {
			t.Errorf("a foreign address gives %v", err)
		}
	})
}

func TestASourceIsTheLowestUsableAddressOfThePods(t *testing.T) {
	netns.Run(t, func(t *testing.T) {
		run(t, "ip link add cni0 type bridge", "ip link set cni0 up", "ip address add 10.1.2.9/24 dev cni0",
			"ip address add 10.1.2.1/24 dev cni0", "ip address add fd00:1::1/64 dev cni0 nodad")
		pods := []netip.Prefix{netip.MustParsePrefix("10.1.2.0/24"), netip.MustParsePrefix("fd00:1::/64")}
		if a, err := SourceIn(pods, true); err != nil || a != addr("10.1.2.1") {
			t.Errorf("IPv4: %v, %v", a, err)
		}
		if a, err := SourceIn(pods, false); err != nil || a != addr("fd00:1::1") {
			t.Errorf("IPv6: %v, %v", a, err)
		}
		if a, err := SourceIn(nil, true); err != nil || a.IsValid() {
			t.Errorf("no prefixes: %v, %v", a, err)
		}
	})
}

func TestTheTunnelsPacketsComeByTheDefaultRoutesAndByThoseToPeers(t *testing.T) {
	netns.Run(t, func(t *testing.T) {
		twoNICs(t)
		plan := member("10.0.0.6")
		plan.Tunnel = &topology.Tunnel{Peers: []topology.Peer{
			{Region: "dialled", Endpoint: netip.MustParseAddrPort("192.0.2.7:4500")}, {Region: "dials us"},
		}}
		for _, c := range []struct{ route, want string }{
			{"", ""},
			{"ip route add default via 10.8.0.1", "eth1"},
			{"ip route add 192.0.2.0/24 via 10.0.0.1", "eth0 eth1"},
		} {
			if c.route != "" {
				run(t, c.route)
			}
			found, err := Resolve(plan, tunnel.Device{})
			if err != nil || names(found.Outers) != c.want || names(found.Underlays) != "eth0" {
				t.Errorf("after %q: outer devices %q, underlays %q, %v; want %q and eth0", c.route, names(found.Outers),
					names(found.Underlays), err, c.want)
			}
		}
		plan.Tunnel = nil
		if found, err := Resolve(plan, tunnel.Device{}); err != nil || len(found.Outers) != 0 {
			t.Errorf("without a tunnel there are outer devices %q, %v", names(found.Outers), err)
		}
	})
}
