package filter

import (
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/ravencni/raven/pkg/datapath"
	vnetns "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// box is a network namespace with a few addresses.
type box struct {
	t  testing.TB
	ns vnetns.NsHandle
}

// in runs f on this thread inside the box.
func (b *box) in(f func()) {
	b.t.Helper()
	old, err := vnetns.Get()
	if err != nil {
		b.t.Fatalf("get the current namespace: %v", err)
	}
	defer old.Close()
	if err := vnetns.Set(b.ns); err != nil {
		b.t.Fatalf("enter a namespace: %v", err)
	}
	defer func() {
		if err := vnetns.Set(old); err != nil {
			b.t.Fatalf("go back to the first namespace: %v", err)
		}
	}()
	f()
}

func (b *box) run(name string, args ...string) (out string) {
	b.t.Helper()
	b.in(func() { out = run(b.t, name, args...) })
	return out
}

// ip runs lines of iproute2's batch language.
func (b *box) ip(lines ...string) {
	b.t.Helper()
	b.in(func() {
		cmd := exec.Command("ip", "-batch", "-")
		for i, l := range lines {
			// Without nodad an IPv6 address cannot be bound to until a work queue got round to it.
			if strings.HasPrefix(l, "addr add") && strings.Contains(l, ":") {
				lines[i] += " nodad"
			}
		}
		cmd.Stdin = strings.NewReader(strings.Join(lines, "\n"))
		if out, err := cmd.CombinedOutput(); err != nil {
			b.t.Fatalf("ip -batch: %v\n%s\n%s", err, out, strings.Join(lines, "\n"))
		}
	})
}

func (b *box) sysctl(pairs ...string) {
	b.t.Helper()
	b.in(func() {
		for _, p := range pairs {
			k, v, _ := strings.Cut(p, "=")
			if err := os.WriteFile("/proc/sys/"+strings.ReplaceAll(k, ".", "/"), []byte(v), 0); err != nil {
				b.t.Fatalf("sysctl %s: %v", p, err)
			}
		}
	})
}

// listen opens a UDP socket in the box.
func (b *box) listen(at string) *net.UDPConn {
	b.t.Helper()
	var c *net.UDPConn
	b.in(func() {
		var err error
		if c, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(at))); err != nil {
			b.t.Fatalf("listen on %s: %v", at, err)
		}
	})
	b.t.Cleanup(func() { c.Close() })
	return c
}

// send sends one UDP datagram; the source need not be the box's own address.
func (b *box) send(from, to, payload string) {
	b.t.Helper()
	b.in(func() {
		src := netip.MustParseAddrPort(from)
		family, level := unix.AF_INET, unix.SOL_IP
		option := unix.IP_TRANSPARENT
		if src.Addr().Is6() {
			family, level, option = unix.AF_INET6, unix.SOL_IPV6, unix.IPV6_TRANSPARENT
		}
		fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			b.t.Fatalf("open a UDP socket: %v", err)
		}
		defer unix.Close(fd)
		if err := unix.SetsockoptInt(fd, level, option, 1); err != nil {
			b.t.Fatalf("bind freely: %v", err)
		}
		if err := unix.Bind(fd, sockaddr(src)); err != nil {
			b.t.Fatalf("bind to %s: %v", from, err)
		}
		if err := unix.Sendto(fd, []byte(payload), 0, sockaddr(netip.MustParseAddrPort(to))); err != nil {
			b.t.Fatalf("send from %s to %s: %v", from, to, err)
		}
	})
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}

// receive waits for one datagram and returns its payload and source address.
func receive(t testing.TB, c *net.UDPConn) (string, netip.AddrPort) {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(2 * time.Second)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 2048)
	n, from, err := c.ReadFromUDPAddrPort(buf)
	if err != nil {
		t.Fatalf("receive on %s: %v", c.LocalAddr(), err)
	}
	return string(buf[:n]), netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
}

// passes asserts that a datagram from a box arrives at c, with its source as it was sent.
func passes(t *testing.T, b *box, from, to string, c *net.UDPConn) {
	t.Helper()
	payload := from + " to " + to
	b.send(from, to, payload)
	got, src := receive(t, c)
	if got != payload {
		t.Errorf("received %q where %q was sent", got, payload)
	}
	if src.String() != from {
		t.Errorf("%s: arrived from %s", payload, src)
	}
}

// eventually polls a condition until it holds, for at most two seconds.
func eventually(t testing.TB, what string, cond func() (bool, string)) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		ok, state := cond()
		if ok {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%s: still not so: %s", what, state)
		case <-tick.C:
		}
	}
}

// vxlan is a VXLAN packet (RFC 7348) of network 200, around an Ethernet frame around a UDP datagram.
func vxlan(dst net.HardwareAddr, from, to netip.AddrPort, payload string) string {
	b := []byte{0x08, 0, 0, 0, 0, 0, datapath.OverlayVNI, 0}
	b = append(b, dst...)
	b = append(b, 2, 0, 0, 0, 0, 9, 0x08, 0x00)
	ip := make([]byte, 20)
	ip[0], ip[8], ip[9] = 0x45, 64, unix.IPPROTO_UDP
	binary.BigEndian.PutUint16(ip[2:], uint16(28+len(payload)))
	s, d := from.Addr().As4(), to.Addr().As4()
	copy(ip[12:], s[:])
	copy(ip[16:], d[:])
	sum := uint32(0)
	for i := 0; i < 20; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(ip[i:]))
	}
	binary.BigEndian.PutUint16(ip[10:], ^uint16(sum>>16+sum&0xffff))
	udp := make([]byte, 8) // checksum 0: none
	binary.BigEndian.PutUint16(udp, from.Port())
	binary.BigEndian.PutUint16(udp[2:], to.Port())
	binary.BigEndian.PutUint16(udp[4:], uint16(8+len(payload)))
	return string(b) + string(ip) + string(udp) + payload
}
