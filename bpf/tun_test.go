package bpf

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	vnetns "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/ravencni/raven/test/netns"
)

// Test runs of tc programs always have an Ethernet header, so what raven_from_tunnel does on a device without one is
// tried on a real TUN device: packets written to it come in through the program, and what it redirects comes out of
// real devices.

// tunNode is a gateway whose tunnel device is a TUN.
type tunNode struct {
	*node
	tun *os.File
}

func newTunNode(t *testing.T, with ...func(*node)) *tunNode {
	t.Helper()
	n := newNode(t, true, false, with...)
	tun := openTun(t, "wg0")
	l, err := netlink.LinkByName("wg0")
	must(t, err)
	must(t, netlink.LinkSetMTU(l, 65535))
	must(t, netlink.LinkSetUp(l))
	n.index["wg0"] = l.Attrs().Index
	n.put("raven_nexthops", uint32(slotTunnel), Nexthop{Group: 2, Ifindex: uint32(n.index["wg0"]), Mtu: testMTU,
		Kind: NexthopTunnel, Flags: NexthopHealthy})
	n.attach("wg0", "raven_from_tunnel")
	return &tunNode{node: n, tun: tun}
}

// attach puts a program at a device's ingress: by tcx, or by clsact where the kernel has no tcx.
func (n *node) attach(device, program string) {
	n.t.Helper()
	tcx, err := link.AttachTCX(link.TCXOptions{Interface: n.index[device], Program: n.programs[program],
		Attach: ebpf.AttachTCXIngress})
	if err == nil {
		n.t.Cleanup(func() { must(n.t, tcx.Close()) })
		return
	}
	if !errors.Is(err, ebpf.ErrNotSupported) {
		n.t.Fatalf("attach %s to %s: %v", program, device, err)
	}
	at := netlink.QdiscAttrs{LinkIndex: n.index[device], Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT}
	must(n.t, netlink.QdiscAdd(&netlink.Clsact{QdiscAttrs: at}))
	must(n.t, netlink.FilterAdd(&netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{LinkIndex: n.index[device], Parent: netlink.HANDLE_MIN_INGRESS, Handle: 1,
			Priority: 1, Protocol: unix.ETH_P_ALL},
		Fd: n.programs[program].FD(), Name: program, DirectAction: true,
	}))
}

func openTun(t *testing.T, name string) *os.File {
	t.Helper()
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	must(t, err)
	ifr, err := unix.NewIfreq(name)
	must(t, err)
	ifr.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
	must(t, unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr))
	f := os.NewFile(uintptr(fd), name)
	t.Cleanup(func() { must(t, f.Close()) })
	return f
}

// listen receives the frames that arrive at a device, from its peer.
func listen(t *testing.T, index int) *os.File {
	t.Helper()
	proto := uint16(unix.ETH_P_ALL>>8 | unix.ETH_P_ALL<<8&0xff00)
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, int(proto))
	must(t, err)
	must(t, unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: proto, Ifindex: index}))
	f := os.NewFile(uintptr(fd), fmt.Sprintf("packet socket %d", index))
	t.Cleanup(func() { must(t, f.Close()) })
	return f
}

// receive waits for want to come out of f among other things (such as router solicitations).
func receive(t *testing.T, f *os.File, want []byte) {
	t.Helper()
	must(t, f.SetReadDeadline(time.Now().Add(3*time.Second)))
	buf := make([]byte, 70000)
	var seen [][]byte
	for {
		n, err := f.Read(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("%x did not come out of %s, but %x", want, f.Name(), seen)
		}
		must(t, err)
		if bytes.Equal(buf[:n], want) {
			return
		}
		seen = append(seen, bytes.Clone(buf[:n]))
	}
}

func (n *tunNode) expect(reason Reason) {
	n.t.Helper()
	if packets, _ := n.counter("raven_from_tunnel", reason); packets != 1 {
		n.t.Errorf("counted %v, want reason %d once", n.counted("raven_from_tunnel"), reason)
	}
	reached[reason] = true
}

func TestAPacketOutOfATunnelWithoutEthernetGetsItsHeaderAndReachesTheOverlay(t *testing.T) {
	for _, p := range []packet{
		{src: remotePod, dst: memberPod, proto: udp, sport: 1, dport: 2},
		{src: remotePod6, dst: memberPod6, proto: tcp, sport: 1, dport: 2},
	} {
		t.Run(p.src.String(), func(t *testing.T) {
			netns.Run(t, func(t *testing.T) {
				n := newTunNode(t)
				out := listen(t, n.index["raven0p"])
				p.dstMAC = ownMAC
				frame := p.frame(t)
				_, err := n.tun.Write(frame[14:])
				must(t, err)
				receive(t, out, forwarded(t, frame, vtepMAC, ownMAC))
				n.expect(FromPodRavenReasonRAVEN_REDIRECT_OVERLAY)
			})
		})
	}
}

func TestARelayedPacketGoesBackIntoTheTunnelWithoutEthernet(t *testing.T) {
	netns.Run(t, func(t *testing.T) {
		n := newTunNode(t)
		n.route("10.244.30.0/24", FibEntry{Nexthop: slotTunnel, Scope: ScopeRemote})
		p := packet{src: remotePod, dst: remotePod, dstMAC: ownMAC, proto: icmp4}
		p.dst = p.dst.Next()
		frame := p.frame(t)
		_, err := n.tun.Write(frame[14:])
		must(t, err)
		receive(t, n.tun, forwarded(t, frame, nil, nil)[14:])
		n.expect(FromPodRavenReasonRAVEN_REDIRECT_TUNNEL)
	})
}

func TestAPacketOutOfATunnelWithoutEthernetReachesALocalPod(t *testing.T) {
	netns.Run(t, func(t *testing.T) {
		n := newTunNode(t)
		// The pod's end must be in another namespace, or the kernel refuses to hand the packet over.
		host, err := vnetns.Get()
		must(t, err)
		defer host.Close()
		pod, err := vnetns.New() // also enters it
		must(t, err)
		defer pod.Close()
		must(t, vnetns.Set(host))
		peer, err := netlink.LinkByName("pod0p")
		must(t, err)
		must(t, netlink.LinkSetHardwareAddr(peer, podMAC))
		must(t, netlink.LinkSetNsFd(peer, int(pod)))
		must(t, vnetns.Set(pod))
		peer, err = netlink.LinkByName("pod0p")
		must(t, err)
		must(t, netlink.LinkSetUp(peer))
		out := listen(t, peer.Attrs().Index)
		must(t, vnetns.Set(host))

		p := packet{src: remotePod, dst: localPod, dstMAC: ownMAC, proto: udp, sport: 53, dport: 40000}
		establishedReply(n.node, p)
		frame := p.frame(t)
		_, err = n.tun.Write(frame[14:])
		must(t, err)
		receive(t, out, forwarded(t, frame, podMAC, podGateway))
		n.expect(FromPodRavenReasonRAVEN_REDIRECT_POD)
	})
}

func TestAPacketTooLargeToGrowAHeaderGoesToTheStack(t *testing.T) {
	netns.Run(t, func(t *testing.T) {
		n := newTunNode(t)
		n.put("raven_nexthops", uint32(slotOverlay), Nexthop{Group: 1, Ifindex: uint32(n.index["raven0"]), Mtu: 65535,
			Kind: NexthopOverlay, Flags: NexthopHealthy | NexthopEthernet})
		// One byte below 16 KiB: the kernel refuses to grow a packet that is not GSO beyond four pages less overhead.
		p := packet{src: remotePod, dst: memberPod, dstMAC: ownMAC, proto: udp, payload: 16383 - 28}
		_, err := n.tun.Write(p.frame(t)[14:])
		must(t, err)
		n.expect(FromPodRavenReasonRAVEN_PASS_WRITE_FAILED)
	})
}
