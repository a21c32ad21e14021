package filter

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/ravencni/raven/pkg/topology"
)

func TestVXLANIsAdmittedFromMembersAloneAndNeverTracked(t *testing.T) {
	inWorld(t, topology.RoleMember, func(t *testing.T, w *world) {
		w.apply(t)
		inner := func(payload string) string {
			return vxlan(w.mac, netip.MustParseAddrPort("10.2.0.5:7000"), netip.MustParseAddrPort("10.1.1.2:7000"), payload)
		}
		at := w.pod1.listen("10.1.1.2:7000")
		w.lan.send("192.168.1.2:5555", "192.168.1.1:4472", inner("from a member"))
		if got, from := receive(t, at); got != "from a member" || from.String() != "10.2.0.5:7000" {
			t.Errorf("the pod received %q from %s", got, from)
		}
		w.counted(t, CounterVXLANStranger, 1, func() {
			w.lan.send("192.168.1.9:5555", "192.168.1.1:4472", inner("from a stranger"))
		})
		w.counted(t, CounterVXLANFromPod, 1, func() {
			w.pod2.send("10.1.1.3:5555", "192.168.1.1:4472", inner("from a pod to its own node"))
		})
		w.counted(t, CounterVXLANFromPod, 1, func() {
			w.pod2.send("192.168.1.2:5555", "192.168.1.1:4472", inner("from a pod in a member's name"))
		})
		w.counted(t, CounterVXLANFromPod, 1, func() {
			w.pod2.send("10.1.1.3:5555", "192.168.1.2:4472", inner("from a pod to another node"))
		})
		w.counted(t, CounterVXLANStranger, 1, func() {
			w.node.send("192.168.1.1:5555", "192.168.1.1:4472", inner("from a process of the node to itself"))
		})
		w.counted(t, CounterVXLANStranger, 1, func() {
			w.lan.send("[fd01::9]:5555", "[fd01::1]:4472", inner("from a stranger by IPv6"))
		})
		w.lan.send("192.168.1.2:5555", "192.168.1.1:4472", inner("last"))
		if got, _ := receive(t, at); got != "last" {
			t.Errorf("the pod received %q, which should have been dropped", got)
		}
		for _, member := range []string{"src=192.168.1.2", "dst=192.168.1.2"} {
			if c := w.conntrack(t, member); c != "" {
				t.Errorf("outer packets are tracked:\n%s", c)
			}
		}
		if w.conntrack(t, "src=10.2.0.5") == "" {
			t.Error("the inner flow is not tracked on its end host")
		}
		passes(t, w.pod1, "10.1.1.2:7001", "10.2.0.5:7001", w.lan.listen("10.2.0.5:7001"))
		if c := w.conntrack(t, "dst=192.168.1.2"); c != "" {
			t.Errorf("outer packets of ours are tracked:\n%s", c)
		}
	})
}

func TestAPodCannotReachTheVXLANPortThroughATranslation(t *testing.T) {
	inWorld(t, topology.RoleMember, func(t *testing.T, w *world) {
		w.apply(t)
		w.node.run("nft", "add table ip svc; add chain ip svc pre { type nat hook prerouting priority dstnat; }; "+
			"add rule ip svc pre ip daddr 10.96.0.1 udp dport 80 dnat to 192.168.1.1:4472; "+
			"add rule ip svc pre ip daddr 10.96.0.2 udp dport 80 dnat to 192.168.1.2:4472; "+
			"add chain ip svc post { type nat hook postrouting priority srcnat; }; add rule ip svc post ip saddr 10.1.1.0/24 masquerade")
		w.counted(t, CounterVXLANFromPod, 1, func() { w.pod1.send("10.1.1.2:5000", "10.96.0.1:80", "to its own node") })
		w.counted(t, CounterVXLANFromPod, 1, func() { w.pod1.send("10.1.1.2:5001", "10.96.0.2:80", "to another node, masqueraded") })
	})
}

func TestVXLANDoesNotComeThroughTheTunnel(t *testing.T) {
	inWorld(t, topology.RoleGateway, func(t *testing.T, w *world) {
		w.apply(t)
		w.counted(t, CounterVXLANFromPod, 3, func() {
			w.remote.send("10.2.0.5:7000", "192.168.1.1:4472", "from another region to the gateway")
			w.remote.send("10.2.0.5:7000", "10.1.2.2:4472", "from another region to a node behind it")
			w.remote.send("[fd10:2::5]:7000", "[fd01::1]:4472", "from another region to the gateway")
		})
	})
}

func TestANodeMayRouteVXLANBetweenMembersAndNobodyElses(t *testing.T) {
	inWorld(t, topology.RoleMember, func(t *testing.T, w *world) {
		// Two more hosts behind the node; one is a member of the region.
		w.pod2.ip("addr add 192.168.2.2/32 dev eth0", "addr add 192.168.2.3/32 dev eth0")
		w.node.ip("route add 192.168.2.0/24 dev veth2")
		w.plan.Overlay.Members = append(w.plan.Overlay.Members, addr("192.168.2.2"))
		w.apply(t)
		passes(t, w.lan, "192.168.1.2:7000", "192.168.2.2:4472", w.pod2.listen("192.168.2.2:4472"))
		w.counted(t, CounterVXLANFromPod, 1, func() { w.lan.send("192.168.1.2:7000", "192.168.2.3:4472", "to a host that is no member") })
		w.counted(t, CounterVXLANStranger, 1, func() { w.lan.send("192.168.1.9:7000", "192.168.2.2:4472", "from a stranger") })
	})
}

func TestAMemberTakesOnlyOtherRegionsOutOfTheOverlay(t *testing.T) {
	inWorld(t, topology.RoleMember, func(t *testing.T, w *world) {
		w.apply(t)
		w.node.ip("addr add 10.1.1.1/32 dev lo")
		at := w.node.listen("10.1.1.1:7000")
		passes(t, w.lan, "10.2.0.5:7000", "10.1.1.1:7000", at)
		passes(t, w.lan, "192.168.1.2:7000", "10.1.1.1:7000", at) // a member, as where its NodePort leads here
		w.counted(t, CounterWrongRegionSource, 2, func() {
			w.lan.send("10.1.2.2:7000", "10.1.1.1:7000", "from a pod of the same region")
			w.lan.send("10.1.1.3:7000", "10.1.1.2:7000", "in the name of a pod of this node")
		})
	})
}

func TestLinkScopeIsNotMistakenForAWrongSource(t *testing.T) {
	inWorld(t, topology.RoleMember, func(t *testing.T, w *world) {
		w.apply(t)
		raven0, err := net.InterfaceByName("raven0")
		if err != nil {
			t.Fatal(err)
		}
		w.lan.run("bridge", "fdb", "append", "00:00:00:00:00:00", "dev", "raven0", "dst", "192.168.1.1")
		w.lan.ip("addr add 192.168.7.7/32 dev raven0", "addr add fd07::7/128 dev raven0", "route add ff00::/8 dev raven0 table local metric 1")
		for _, c := range []struct{ network, from, group string }{
			{"udp4", "192.168.7.7:7000", "224.0.0.251:7001"},
			{"udp6", "[fd07::7]:7000", "[ff05::fb]:7001"},
		} {
			at, err := net.ListenMulticastUDP(c.network, raven0, net.UDPAddrFromAddrPort(netip.MustParseAddrPort(c.group)))
			if err != nil {
				t.Fatalf("join %s: %v", c.group, err)
			}
			passes(t, w.lan, c.from, c.group, at)
			if err := at.Close(); err != nil {
				t.Error(err)
			}
		}
		w.counted(t, CounterWrongRegionSource, 1, func() { w.lan.send("192.168.7.7:7000", "10.1.1.2:7001", "the same by unicast") })
	})
}

// packets is the number of packets that left by a device of the node.
func (w *world) packets(t *testing.T, dev string) uint64 {
	t.Helper()
	var n uint64
	w.node.in(func() {
		b, err := os.ReadFile("/sys/class/net/" + dev + "/statistics/tx_packets")
		if err == nil {
			_, err = fmt.Sscan(string(b), &n)
		}
		if err != nil {
			t.Fatalf("read the packet count of %s: %v", dev, err)
		}
	})
	return n
}

func TestTransitThroughAGatewayIsUntrackedAndItsSourcesAreChecked(t *testing.T) {
	inWorld(t, topology.RoleGateway, func(t *testing.T, w *world) {
		w.apply(t)
		passes(t, w.lan, "10.1.2.2:7000", "10.2.0.5:7001", w.remote.listen("10.2.0.5:7001"))
		passes(t, w.remote, "10.2.0.5:7000", "10.1.2.2:7002", w.lan.listen("10.1.2.2:7002"))
		w.plan.Prefixes = append(w.plan.Prefixes, topology.Prefix{Prefix: pfx("10.3.0.0/16"), Scope: topology.ScopeRemote})
		w.apply(t)
		w.remote.sysctl("net.ipv4.ip_forward=0")
		relayed := w.packets(t, "raven-wg0")
		w.remote.send("10.2.0.5:7000", "10.3.0.9:7003", "relay: back into the tunnel")
		eventually(t, "the packet goes back into the tunnel", func() (bool, string) { return w.packets(t, "raven-wg0") > relayed, "no packet" })
		for _, a := range []string{"10.1.2.2", "10.3.0.9"} {
			if c := w.conntrack(t, "dst="+a) + w.conntrack(t, "src="+a); c != "" {
				t.Errorf("transit is tracked:\n%s", c)
			}
		}
		// A pod on the gateway node is an end, where policy is decided: tracked.
		passes(t, w.remote, "10.2.0.5:7000", "10.1.1.2:7004", w.pod1.listen("10.1.1.2:7004"))
		if w.conntrack(t, "dst=10.1.1.2") == "" {
			t.Error("the flow to a pod of the gateway is not tracked")
		}
		passes(t, w.remote, "[fd10:2::5]:7000", "[fd10:1:1::2]:7004", w.pod1.listen("[fd10:1:1::2]:7004"))
		if w.conntrack(t, "dst=fd10:1:1::2") == "" {
			t.Error("the IPv6 flow to a pod of the gateway is not tracked")
		}
		w.counted(t, CounterWrongRegionSource, 4, func() {
			w.remote.send("10.1.2.2:7000", "10.1.1.2:7000", "another region in our region's name")
			w.remote.send("8.8.4.4:7000", "10.1.1.2:7000", "from nowhere")
			w.remote.send("[fd10:1:1::3]:7000", "[fd10:1:1::2]:7000", "another region in our region's name")
			w.lan.send("10.2.0.5:7000", "10.2.0.5:7001", "a member in another region's name")
		})
	})
}

func TestOnlyThisNodesPodsSendToOtherRegions(t *testing.T) {
	inWorld(t, topology.RoleGateway, func(t *testing.T, w *world) {
		w.apply(t)
		at4, at6 := w.remote.listen("10.2.0.5:7001"), w.remote.listen("[fd10:2::5]:7001")
		passes(t, w.pod1, "10.1.1.2:7000", "10.2.0.5:7001", at4)
		passes(t, w.pod1, "[fd10:1:1::2]:7000", "[fd10:2::5]:7001", at6)
		passes(t, w.node, "192.168.1.1:7000", "10.2.0.5:7001", at4)
		w.lan.ip("route replace 10.2.0.0/16 via 192.168.1.1 dev eth0")
		w.counted(t, CounterSpoofedSource, 6, func() {
			w.pod1.send("172.16.0.9:7000", "10.2.0.5:7001", "a source of nobody's")
			w.pod1.send("10.1.1.3:7000", "10.2.0.5:7001", "the address of a pod behind another device")
			w.pod1.send("[fd10:1:1::3]:7000", "[fd10:2::5]:7001", "the address of a pod behind another device")
			w.lan.send("192.168.1.9:7000", "10.2.0.5:7001", "a stranger that takes the gateway for a router")
			w.lan.send("10.1.1.2:7000", "10.2.0.5:7001", "a stranger in a pod's name")
			w.lan.send("10.1.2.2:7000", "10.2.0.5:7001", "a member that left out the VXLAN")
		})
		// Hosts that are reached past the tunnel are none of this table's business.
		w.plan.Throws = append(w.plan.Throws, addr("10.2.0.5"))
		w.apply(t)
		passes(t, w.lan, "192.168.1.9:7000", "10.2.0.5:7001", at4)
	})
}

func TestASpoofedSourceIsDroppedOnItsWayThroughAServiceToo(t *testing.T) {
	inWorld(t, topology.RoleGateway, func(t *testing.T, w *world) {
		w.apply(t)
		w.node.run("nft", "add table inet svc; add chain inet svc pre { type nat hook prerouting priority dstnat; }; "+
			"add rule inet svc pre ip daddr 10.96.0.1 udp dport 80 dnat to 10.2.0.5:7001; "+
			"add rule inet svc pre ip6 daddr fd96::1 udp dport 80 dnat to [fd10:2::5]:7001; "+
			"add rule inet svc pre ip daddr 192.168.1.1 udp dport 30090 meta mark set 0x4000 dnat to 10.1.2.2:7002; "+
			"add chain inet svc post { type nat hook postrouting priority srcnat; }; add rule inet svc post mark & 0x4000 == 0x4000 masquerade")
		passes(t, w.pod1, "10.1.1.2:7000", "10.96.0.1:80", w.remote.listen("10.2.0.5:7001"))
		passes(t, w.pod1, "[fd10:1:1::2]:7000", "[fd96::1]:80", w.remote.listen("[fd10:2::5]:7001"))
		w.counted(t, CounterSpoofedSource, 4, func() {
			w.pod1.send("10.1.1.3:7000", "10.96.0.1:80", "another pod's address")
			w.pod1.send("10.1.2.2:7000", "10.96.0.1:80", "another node's pod")
			w.pod1.send("10.2.0.7:7000", "10.96.0.1:80", "another region's pod")
			w.pod1.send("[fd10:1:1::3]:7000", "[fd96::1]:80", "another pod's address")
		})
		// An answer may come from anywhere: a NodePort of the gateway that leads to another node's pod.
		w.node.ip("route replace 10.1.2.0/24 via 192.168.1.2 dev eth0")
		server := w.lan.listen("10.1.2.2:7002")
		client := w.remote.listen("10.2.0.5:7003")
		if _, err := client.WriteToUDPAddrPort([]byte("question"), netip.MustParseAddrPort("192.168.1.1:30090")); err != nil {
			t.Fatal(err)
		}
		_, from := receive(t, server)
		if _, err := server.WriteToUDPAddrPort([]byte("answer"), from); err != nil {
			t.Fatal(err)
		}
		if got, src := receive(t, client); got != "answer" || src.String() != "192.168.1.1:30090" {
			t.Errorf("the client received %q from %s", got, src)
		}
	})
}

func TestAPodBehindABridgeReachesOtherRegions(t *testing.T) {
	inWorld(t, topology.RoleGateway, func(t *testing.T, w *world) {
		w.node.ip("link add cni0 type bridge", "link set cni0 up", "addr flush dev veth2", "route del fd10:1:1::3/128 dev veth2", "link set veth2 master cni0",
			"addr add 10.1.1.1/24 dev cni0", "addr add fd10:1:1::1/64 dev cni0")
		w.pod2.ip("route replace default via 10.1.1.1 dev eth0 onlink", "route replace default via fd10:1:1::1 dev eth0 onlink")
		w.apply(t)
		passes(t, w.pod2, "10.1.1.3:7000", "10.2.0.5:7001", w.remote.listen("10.2.0.5:7001"))
		passes(t, w.pod2, "[fd10:1:1::3]:7000", "[fd10:2::5]:7001", w.remote.listen("[fd10:2::5]:7001"))
	})
}

func TestALoosePodSourceMayComeFromAnyDeviceButTheUnderlay(t *testing.T) {
	inWorld(t, topology.RoleGateway, func(t *testing.T, w *world) {
		w.filter = New(Options{LoosePodSource: true})
		w.plan.LocalPrefixes = append(w.plan.LocalPrefixes, pfx("192.168.1.8/29")) // an extra source, on the LAN
		w.apply(t)
		at := w.remote.listen("10.2.0.5:7001")
		passes(t, w.pod1, "10.1.1.3:7000", "10.2.0.5:7001", at)
		w.lan.ip("route replace 10.2.0.0/16 via 192.168.1.1 dev eth0")
		passes(t, w.lan, "192.168.1.9:7000", "10.2.0.5:7001", at)
		w.counted(t, CounterSpoofedSource, 1, func() { w.lan.send("10.1.1.2:7000", "10.2.0.5:7001", "a stranger in a pod's name") })
	})
}

func TestWithKindDirectTheRegionReachesTheTunnelWithoutVXLAN(t *testing.T) {
	inWorld(t, topology.RoleGateway, func(t *testing.T, w *world) {
		w.plan.NextHops = []topology.NextHop{{ID: "node/hangzhou-2", Kind: topology.KindDirect}}
		w.node.run("iptables-nft", "-P", "FORWARD", "DROP")
		w.node.ip("route replace 10.1.2.0/24 via 192.168.1.2 dev eth0")
		w.lan.ip("route replace 10.2.0.0/16 via 192.168.1.1 dev eth0")
		w.apply(t)
		at := w.remote.listen("10.2.0.5:7001")
		passes(t, w.lan, "10.1.2.2:7000", "10.2.0.5:7001", at)
		passes(t, w.remote, "10.2.0.5:7000", "10.1.2.2:7002", w.lan.listen("10.1.2.2:7002"))
		w.counted(t, CounterSpoofedSource, 2, func() {
			w.lan.send("192.168.1.9:7000", "10.2.0.5:7001", "a stranger on the LAN")
			w.pod1.send("10.1.2.2:7000", "10.2.0.5:7001", "a pod in another node's name")
		})
		// The accepting rules are for transit alone: what a peer sends to the gateway's own pods meets the host's policy.
		w.remote.send("10.2.0.5:7000", "10.1.1.2:7003", "to a pod of the gateway")
		eventually(t, "the host's policy drops it", func() (bool, string) {
			out := w.node.run("iptables-nft", "-nvxL", "FORWARD")
			return !strings.Contains(out, "policy DROP 0 packets"), out
		})
	})
}

func TestAGatewayIsNoRouterForWhatComesOutOfTheTunnel(t *testing.T) {
	inWorld(t, topology.RoleGateway, func(t *testing.T, w *world) {
		w.plan.LocalPrefixes = append(w.plan.LocalPrefixes, pfx("192.168.1.2/32")) // an extra source, on the LAN
		w.node.ip("route add default via 192.168.1.9 dev eth0", "route add default via fd01::9 dev eth0")
		w.apply(t)
		leaked := w.lan.listen("192.168.1.9:7001")
		w.counted(t, CounterForeignDestination, 5, func() {
			w.remote.send("10.2.0.5:7000", "192.168.1.9:7001", "to a host of the LAN")
			w.remote.send("10.2.0.5:7000", "192.168.1.255:7001", "to all hosts of the LAN")
			w.remote.send("10.2.0.5:7000", "203.0.113.9:7001", "to the internet")
			w.remote.send("[fd10:2::5]:7000", "[fd01::9]:7001", "to a host of the LAN")
			w.remote.send("[fd10:2::5]:7000", "[2001:db8::9]:7001", "to the internet")
		})
		// What the plan leads here still gets here: the node under each of its addresses, its pods, its extra sources.
		w.node.ip("addr add 198.51.100.1/32 dev lo", "addr add fd98::1/128 dev lo")
		eventually(t, "the kernel takes the IPv6 address for its own, somewhat after it was added", func() (bool, string) {
			out := w.node.run("ip", "-6", "route", "get", "fd98::1")
			return strings.HasPrefix(out, "local"), out
		})
		for _, to := range []string{"192.168.1.1:7002", "198.51.100.1:7002"} {
			passes(t, w.remote, "10.2.0.5:7000", to, w.node.listen(to))
		}
		for _, to := range []string{"[fd01::1]:7002", "[fd98::1]:7002"} {
			passes(t, w.remote, "[fd10:2::5]:7000", to, w.node.listen(to))
		}
		passes(t, w.remote, "10.2.0.5:7000", "10.1.1.2:7002", w.pod1.listen("10.1.1.2:7002"))
		passes(t, w.remote, "[fd10:2::5]:7000", "[fd10:1:1::2]:7002", w.pod1.listen("[fd10:1:1::2]:7002"))
		passes(t, w.remote, "10.2.0.5:7000", "192.168.1.2:7002", w.lan.listen("192.168.1.2:7002"))
		// The socket's first datagram is the one sent now: none of those above arrived.
		passes(t, w.node, "192.168.1.1:7000", "192.168.1.9:7001", leaked)
	})
}

func TestAnAnswerToAMasqueradedConnectionComesBackThroughTheTunnel(t *testing.T) {
	inWorld(t, topology.RoleGateway, func(t *testing.T, w *world) {
		w.apply(t)
		w.node.run("nft", "add table inet svc; add chain inet svc pre { type nat hook prerouting priority dstnat; }; "+
			"add rule inet svc pre ip daddr 192.168.1.1 udp dport 30090 meta mark set 0x4000 dnat to 10.2.0.5:7001; "+
			"add chain inet svc post { type nat hook postrouting priority srcnat; }; add rule inet svc post mark & 0x4000 == 0x4000 masquerade")
		server, client := w.remote.listen("10.2.0.5:7001"), w.lan.listen("192.168.1.9:7003")
		if _, err := client.WriteToUDPAddrPort([]byte("question"), netip.MustParseAddrPort("192.168.1.1:30090")); err != nil {
			t.Fatal(err)
		}
		_, from := receive(t, server)
		if _, err := server.WriteToUDPAddrPort([]byte("answer"), from); err != nil {
			t.Fatal(err)
		}
		if got, src := receive(t, client); got != "answer" || src.String() != "192.168.1.1:30090" {
			t.Errorf("the client received %q from %s", got, src)
		}
	})
}
