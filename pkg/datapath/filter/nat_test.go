package filter

import (
	"net"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ravencni/raven/pkg/topology"
)

// arrivesFrom asserts the source address with which a datagram arrives.
func arrivesFrom(t *testing.T, want string, b *box, from, to string, c *net.UDPConn) {
	t.Helper()
	b.send(from, to, want)
	if _, src := receive(t, c); src.Addr() != netip.MustParseAddr(want) {
		t.Errorf("%s to %s arrived from %s instead of %s", from, to, src.Addr(), want)
	}
}

func TestCrossRegionTrafficKeepsItsSourceThroughOthersMasquerades(t *testing.T) {
	for _, iptables := range []string{"iptables-nft", "iptables-legacy"} {
		t.Run(iptables, func(t *testing.T) {
			inWorld(t, topology.RoleGateway, func(t *testing.T, w *world) {
				ip6tables := strings.Replace(iptables, "ip", "ip6", 1)
				// As flannel masquerades: pods to elsewhere, and elsewhere to pods.
				w.node.run(iptables, "-t", "nat", "-A", "POSTROUTING", "-s", "10.1.0.0/16", "-j", "MASQUERADE")
				w.node.run(iptables, "-t", "nat", "-A", "POSTROUTING", "!", "-s", "10.1.0.0/16", "-d", "10.1.0.0/16", "-j", "MASQUERADE")
				w.node.run(ip6tables, "-t", "nat", "-A", "POSTROUTING", "-s", "fd10:1::/32", "-j", "MASQUERADE")
				remote4, remote6, pod := w.remote.listen("10.2.0.5:7001"), w.remote.listen("[fd10:2::5]:7001"), w.pod1.listen("10.1.1.2:7001")
				// Without us the masquerades do act.
				arrivesFrom(t, "192.168.1.1", w.pod1, "10.1.1.2:6000", "10.2.0.5:7001", remote4)
				arrivesFrom(t, "fd01::1", w.pod1, "[fd10:1:1::2]:6000", "[fd10:2::5]:7001", remote6)

				// A rule for the node's own packets, which a masquerade would give the very address that they have.
				w.node.run(iptables, "-t", "nat", "-I", "POSTROUTING", "-s", "192.168.1.1", "-o", "raven-wg0", "-j", "SNAT", "--to-source", "203.0.113.1")
				w.apply(t)
				passes(t, w.pod1, "10.1.1.2:7000", "10.2.0.5:7001", remote4)
				passes(t, w.pod1, "[fd10:1:1::2]:7000", "[fd10:2::5]:7001", remote6)
				passes(t, w.remote, "10.2.0.5:7000", "10.1.1.2:7001", pod)
				passes(t, w.node, "192.168.1.1:7000", "10.2.0.5:7001", remote4)
				for line := range strings.Lines(w.node.run("conntrack", "-L", "--src-nat")) {
					if strings.Contains(line, "sport=7000") {
						t.Errorf("conntrack says that the source is translated: %s", line)
					}
				}
				// A node address that is another region's too is not planned, so nobody could answer to it.
				w.plan.NodeIPConflicts = true
				w.apply(t)
				arrivesFrom(t, "203.0.113.1", w.node, "192.168.1.1:7005", "10.2.0.5:7001", remote4)
				// What is not between regions is as it was.
				arrivesFrom(t, "192.168.1.1", w.pod1, "10.1.1.2:7002", "192.168.1.9:7002", w.lan.listen("192.168.1.9:7002"))
			})
		})
	}
}

func TestKubeProxysMasqueradeIsLeftAlone(t *testing.T) {
	inWorld(t, topology.RoleGateway, func(t *testing.T, w *world) {
		for _, rule := range []string{
			"-t nat -A PREROUTING -d 192.168.1.1 -p udp --dport 30080 -j MARK --or-mark 0x4000",
			"-t nat -A PREROUTING -d 192.168.1.1 -p udp --dport 30080 -j DNAT --to-destination 10.2.0.5:7001",
			"-t nat -A POSTROUTING -m mark --mark 0x4000/0x4000 -j MASQUERADE",
		} {
			w.node.run("iptables-nft", strings.Fields(rule)...)
		}
		w.apply(t)
		at := w.remote.listen("10.2.0.5:7001")
		arrivesFrom(t, "192.168.1.1", w.lan, "192.168.1.9:7000", "192.168.1.1:30080", at) // a NodePort
		arrivesFrom(t, "192.168.1.1", w.pod1, "10.1.1.2:7000", "192.168.1.1:30080", at)   // though planned
		arrivesFrom(t, "192.168.1.1", w.lan, "10.1.2.2:7000", "192.168.1.1:30080", at)    // though another node's pod
		// Without kube-proxy's mark a source that is not planned is still everyone else's to translate.
		w.node.run("iptables-nft", "-t", "nat", "-A", "POSTROUTING", "-o", "raven-wg0", "-j", "MASQUERADE")
		w.node.run("iptables-nft", "-t", "nat", "-D", "PREROUTING", "1")
		arrivesFrom(t, "192.168.1.1", w.lan, "192.168.1.9:7007", "192.168.1.1:30080", at)
		passes(t, w.pod1, "10.1.1.2:7007", "192.168.1.1:30080", at)
	})
}

func TestTheNodesOtherAddressesLeaveAsTheNodeUnlessSomebodyElseTranslatesThem(t *testing.T) {
	inWorld(t, topology.RoleGateway, func(t *testing.T, w *world) {
		w.node.ip("addr add 172.31.0.5/24 dev eth0", "addr add fd31::5/64 dev eth0")
		w.apply(t)
		remote4, remote6 := w.remote.listen("10.2.0.5:7001"), w.remote.listen("[fd10:2::5]:7001")
		arrivesFrom(t, "192.168.1.1", w.node, "172.31.0.5:7000", "10.2.0.5:7001", remote4)
		arrivesFrom(t, "fd01::1", w.node, "[fd31::5]:7000", "[fd10:2::5]:7001", remote6)
		passes(t, w.node, "192.168.1.1:7001", "10.2.0.5:7001", remote4)
		passes(t, w.pod1, "10.1.1.2:7001", "10.2.0.5:7001", remote4)
		// What does not go to other regions is nothing to Raven.
		arrivesFrom(t, "172.31.0.5", w.node, "172.31.0.5:7002", "192.168.1.9:7002", w.lan.listen("192.168.1.9:7002"))

		w.node.run("iptables-nft", "-t", "nat", "-A", "POSTROUTING", "-s", "172.31.0.5", "-j", "SNAT", "--to-source", "203.0.113.1")
		arrivesFrom(t, "203.0.113.1", w.node, "172.31.0.5:7003", "10.2.0.5:7001", remote4)
	})
}

func TestWithKindDirectTheSourceIsKeptOnTheUnderlay(t *testing.T) {
	inWorld(t, topology.RoleMember, func(t *testing.T, w *world) {
		w.plan.NextHops = []topology.NextHop{{ID: "region/beijing", Kind: topology.KindDirect}}
		w.node.run("iptables-nft", "-t", "nat", "-A", "POSTROUTING", "-j", "MASQUERADE")
		w.node.ip("route replace 10.2.0.0/16 via 192.168.1.2 dev eth0")
		w.lan.ip("route replace 10.1.1.0/24 via 192.168.1.1 dev eth0")
		w.apply(t)
		passes(t, w.pod1, "10.1.1.2:7000", "10.2.0.5:7001", w.lan.listen("10.2.0.5:7001"))
		passes(t, w.lan, "10.2.0.5:7002", "10.1.1.2:7002", w.pod1.listen("10.1.1.2:7002"))
		arrivesFrom(t, "192.168.1.1", w.pod1, "10.1.1.2:7003", "192.168.1.9:7003", w.lan.listen("192.168.1.9:7003"))
	})
}

// segments opens a TCP connection and returns the largest segment, in bytes, that either end will send.
func segments(t *testing.T, from *box, fromAddr string, to *box, toAddr string) (client, server int) {
	t.Helper()
	var l net.Listener
	to.in(func() {
		var err error
		if l, err = net.Listen("tcp", netip.AddrPortFrom(addr(toAddr), 0).String()); err != nil {
			t.Fatalf("listen on %s: %v", toAddr, err)
		}
	})
	defer l.Close()
	var c net.Conn
	from.in(func() {
		var err error
		d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(addr(fromAddr), 0))}
		if c, err = d.DialContext(t.Context(), "tcp", l.Addr().String()); err != nil {
			t.Fatalf("connect %s to %s: %v", fromAddr, toAddr, err)
		}
	})
	defer c.Close()
	s, err := l.Accept()
	if err != nil {
		t.Fatalf("accept: %v", err)
	}
	defer s.Close()
	return mss(t, c), mss(t, s)
}

func mss(t *testing.T, c net.Conn) int {
	t.Helper()
	rc, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var n int
	var sockErr error
	if err := rc.Control(func(fd uintptr) { n, sockErr = unix.GetsockoptInt(int(fd), unix.SOL_TCP, unix.TCP_MAXSEG) }); err != nil || sockErr != nil {
		t.Fatalf("read the MSS: %v %v", err, sockErr)
	}
	return n
}

func TestTheMSSIsClampedToTheRoutesMTUInBothDirections(t *testing.T) {
	const timestamps = 12 // bytes of TCP options in each segment
	for _, c := range []struct {
		name, src4, dst4, src6, dst6 string
		from, to                     func(*world) *box
	}{
		{"a pod to another region", "10.1.1.2", "10.2.0.5", "fd10:1:1::2", "fd10:2::5", func(w *world) *box { return w.pod1 }, func(w *world) *box { return w.remote }},
		{"another region to a pod", "10.2.0.5", "10.1.1.2", "fd10:2::5", "fd10:1:1::2", func(w *world) *box { return w.remote }, func(w *world) *box { return w.pod1 }},
		{"transit", "10.1.2.2", "10.2.0.5", "", "", func(w *world) *box { return w.lan }, func(w *world) *box { return w.remote }},
	} {
		t.Run(c.name, func(t *testing.T) {
			inWorld(t, topology.RoleGateway, func(t *testing.T, w *world) {
				w.node.ip("route replace 10.2.0.0/16 dev raven-wg0 mtu 1300", "route replace fd10:2::/48 dev raven-wg0 mtu 1300")
				w.apply(t)
				client, server := segments(t, c.from(w), c.src4, c.to(w), c.dst4)
				if want := 1300 - 40 - timestamps; client != want || server != want {
					t.Errorf("IPv4: segments of %d and %d bytes, want %d", client, server, want)
				}
				if c.src6 == "" {
					return
				}
				client, server = segments(t, c.from(w), c.src6, c.to(w), c.dst6)
				if want := 1300 - 60 - timestamps; client != want || server != want {
					t.Errorf("IPv6: segments of %d and %d bytes, want %d", client, server, want)
				}
			})
		})
	}
}

func TestWithKindDirectTheMSSIsClampedOnTheUnderlay(t *testing.T) {
	inWorld(t, topology.RoleMember, func(t *testing.T, w *world) {
		w.plan.NextHops = []topology.NextHop{{ID: "region/beijing", Kind: topology.KindDirect}}
		w.node.ip("route replace 10.2.0.0/16 via 192.168.1.2 dev eth0 mtu 1300")
		w.lan.ip("route replace 10.1.1.0/24 via 192.168.1.1 dev eth0")
		w.apply(t)
		if client, server := segments(t, w.pod1, "10.1.1.2", w.lan, "10.2.0.5"); client != 1248 || server != 1248 {
			t.Errorf("segments of %d and %d bytes, want 1248", client, server)
		}
		if client, server := segments(t, w.pod1, "10.1.1.2", w.lan, "192.168.1.9"); client != 1448 || server != 1448 {
			t.Errorf("inside the region segments of %d and %d bytes, want 1448", client, server)
		}
	})
}
