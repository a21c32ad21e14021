package sysctl

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ravencni/raven/pkg/datapath"
	"github.com/ravencni/raven/pkg/topology"
	"github.com/ravencni/raven/pkg/tunnel"
	"github.com/ravencni/raven/test/netns"
)

// defaultRoutes lists the IPv6 default routes.
func defaultRoutes(t *testing.T) (out []netlink.Route) {
	t.Helper()
	routes, err := netlink.RouteList(nil, netlink.FAMILY_V6)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range routes {
		if r.Dst == nil || r.Dst.IP.IsUnspecified() {
			out = append(out, r)
		}
	}
	return out
}

// awaitDefaultRoute has a router advertise itself until the kernel has taken the route from it.
func awaitDefaultRoute(t *testing.T, router *netns.Namespace) {
	t.Helper()
	monitor := netns.NewMonitor(t)
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); {
		router.Do(t, func() { advertise(t) })
		monitor.Settle(t)
		if len(defaultRoutes(t)) > 0 {
			return
		}
	}
	t.Fatal("the kernel took no default route from the advertisements")
}

// advertise sends a router advertisement (RFC 4861, section 4.2) of a router for half an hour to all nodes on `wire`.
func advertise(t *testing.T) {
	t.Helper()
	s, err := unix.Socket(unix.AF_INET6, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMPV6)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(s)
	link, err := netlink.LinkByName("wire")
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.SetsockoptInt(s, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_HOPS, 255); err != nil {
		t.Fatal(err)
	}
	const advertisement, hopLimit = 134, 64
	message := []byte{advertisement, 0, 0, 0, hopLimit, 0}
	message = binary.BigEndian.AppendUint16(message, 1800)
	message = append(message, make([]byte, 8)...)
	to := &unix.SockaddrInet6{ZoneId: uint32(link.Attrs().Index), Addr: netip.MustParseAddr("ff02::1").As16()}
	if err := unix.Sendto(s, message, 0, to); err != nil && err != unix.EADDRNOTAVAIL { // no link-local address yet
		t.Fatal(err)
	}
}

func TestADefaultRouteFromARouterSurvivesForwarding(t *testing.T) {
	netns.Run(t, func(t *testing.T) {
		router := netns.New(t)
		netns.Veth(t, netns.End{In: netns.Current(t), Name: "eth0"}, netns.End{In: router, Name: "wire"})
		awaitDefaultRoute(t, router)
		a := New(Options{})
		// The underlay is not known by the Host: the route itself names the device.
		apply(t, a, plan(topology.RoleMember), datapath.Host{})
		expect(t, map[string]string{forward6: "1", "net/ipv6/conf/eth0/accept_ra": "2"})
		if len(defaultRoutes(t)) != 1 {
			t.Fatal("forwarding took the default route away")
		}
		if err := netlink.RouteDel(&defaultRoutes(t)[0]); err != nil {
			t.Fatal(err)
		}
		awaitDefaultRoute(t, router) // advertisements are accepted with forwarding on
		if err := a.Cleanup(t.Context()); err != nil {
			t.Fatal(err)
		}
		expect(t, map[string]string{forward6: "0", "net/ipv6/conf/eth0/accept_ra": "1"})
		if len(defaultRoutes(t)) != 1 {
			t.Error("cleanup took the default route away")
		}
	})
}

// A relay sends out of the device that the packet came in by, which the kernel answers with an ICMP redirect unless
// both the device's setting and that of all devices forbid it.
func TestARelaySendsNoRedirectIntoTheTunnel(t *testing.T) {
	netns.Run(t, func(t *testing.T) {
		const name = "raven-wg0"
		tun := &netlink.Tuntap{
			LinkAttrs: netlink.LinkAttrs{Name: name}, Mode: netlink.TUNTAP_MODE_TUN, Flags: netlink.TUNTAP_NO_PI, Queues: 1,
		}
		if err := netlink.LinkAdd(tun); err != nil {
			t.Fatal(err)
		}
		peer := tun.Fds[0]
		defer peer.Close()
		run(t, "ip address add 10.0.0.5/32 dev "+name)
		run(t, "ip link set "+name+" up")
		run(t, "ip route add 10.2.1.0/24 dev "+name)
		run(t, "ip route add 10.3.1.0/24 dev "+name)
		apply(t, New(Options{}), plan(topology.RoleGateway), datapath.Host{Tunnel: tunnel.Device{Name: name}})

		for range 3 {
			if _, err := peer.Write(udp(netip.MustParseAddr("10.2.1.9"), netip.MustParseAddr("10.3.1.9"))); err != nil {
				t.Fatal(err)
			}
		}
		forwarded := 0
		for forwarded < 3 {
			packet := next(t, peer)
			switch {
			case packet[0]>>4 != 4: // IPv6's own multicast
			case packet[9] == unix.IPPROTO_ICMP:
				t.Fatalf("ICMP of type %d went into the tunnel", packet[20])
			case bytes.Equal(packet[16:20], []byte{10, 3, 1, 9}):
				forwarded++
			}
		}
	})
}

func next(t *testing.T, tun *os.File) []byte {
	t.Helper()
	conn, err := tun.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 2048)
	n := 0
	var failed error
	err = conn.Control(func(fd uintptr) {
		ready, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 5000)
		if err != nil || ready == 0 {
			failed = os.ErrDeadlineExceeded
			return
		}
		n, failed = unix.Read(int(fd), buf)
	})
	if err != nil || failed != nil || n < 21 {
		t.Fatalf("read a packet from the tunnel: %d bytes, %v, %v", n, err, failed)
	}
	return buf[:n]
}

// udp makes an IPv4 packet with an empty datagram; a UDP checksum of zero means none.
func udp(from, to netip.Addr) []byte {
	p := []byte{0x45, 0, 0, 28, 0, 0, 0, 0, 64, unix.IPPROTO_UDP, 0, 0}
	p = append(p, from.AsSlice()...)
	p = append(p, to.AsSlice()...)
	sum := uint32(0)
	for i := 0; i < len(p); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(p[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	binary.BigEndian.PutUint16(p[10:], ^uint16(sum))
	return append(p, 0, 7, 0, 7, 0, 8, 0, 0)
}
