package bpf

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"github.com/ravencni/raven/test/netns"
)

// Offsets in the frame that encapsulated makes.
const (
	outerTOS      = 14 + 1
	outerFragment = 14 + 6
	outerSum      = 14 + 10
	outerUDPSum   = 14 + 20 + 6
	outerVXLAN    = 14 + 20 + 8
	outerLen      = outerVXLAN + 8
)

// encapsulated is inner as the member 172.16.2.103 sends it to this node.
func encapsulated(t *testing.T, inner []byte, change func(*layers.IPv4, *layers.UDP)) []byte {
	t.Helper()
	ip := &layers.IPv4{Version: 4, TTL: 64, Protocol: udp, SrcIP: net.IPv4(172, 16, 2, 103), DstIP: nodeIP.AsSlice(), Flags: layers.IPv4DontFragment}
	port := &layers.UDP{SrcPort: 51000, DstPort: 4472}
	change(ip, port)
	buf := gopacket.NewSerializeBuffer()
	eth := &layers.Ethernet{SrcMAC: podMAC, DstMAC: ownMAC, EthernetType: layers.EthernetTypeIPv4}
	must(t, gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true}, port, &layers.VXLAN{ValidIDFlag: true, VNI: 200}, gopacket.Payload(inner)))
	datagram := bytes.Clone(buf.Bytes())
	must(t, gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, eth, ip, gopacket.Payload(datagram)))
	return buf.Bytes()
}

// resum puts the right sum into the outer header, after it was edited.
func resum(frame []byte) {
	binary.BigEndian.PutUint16(frame[outerSum:], 0)
	var sum uint32
	for i := 14; i < 34; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(frame[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	binary.BigEndian.PutUint16(frame[outerSum:], ^uint16(sum))
}

// A tunnel whose device is VXLAN: pod0 stands for that, and it ends at an address of its own.
const tunnelVNI = 201

var tunnelAddress = net.IPv4(203, 0, 113, 10)

func toTunnel(ip *layers.IPv4, u *layers.UDP) { ip.DstIP, u.DstPort = tunnelAddress, 4500 }

func tunnelsVNI(frame []byte) []byte { frame[outerVXLAN+6] = tunnelVNI; return frame }

// tunnelOfVXLAN has the node hold one, and the sender of encapsulated be what is said.
func tunnelOfVXLAN(sender Member) func(*node) {
	return func(n *node) {
		n.configure(func(c *NodeConfig) {
			c.TunnelVni, c.TunnelIfindex, c.TunnelAddress = tunnelVNI, uint32(n.index["pod0"]), [4]uint8(tunnelAddress.To4())
			c.OverlayIfindex = goneIndex // no device but the tunnel's will do
		})
		n.put("raven_members", addr(netip.MustParseAddr("172.16.2.103")), sender)
	}
}

func TestFromUnderlayTakesVXLANOffWhatMembersSendAndLeavesAllElseToTheStack(t *testing.T) {
	four := packet{src: memberPod, dst: remotePod, dstMAC: ownMAC, srcMAC: vtepMAC, proto: udp, sport: 1, dport: 2, payload: 64}
	six := packet{src: memberPod6, dst: remotePod6, dstMAC: ownMAC, srcMAC: vtepMAC, proto: tcp, sport: 1, dport: 2}
	ping := packet{src: memberPod, dst: remotePod, dstMAC: ownMAC, srcMAC: vtepMAC, proto: icmp4}
	const (
		off       = FromPodRavenReasonRAVEN_REDIRECT_DECAPSULATED
		underlay  = FromPodRavenReasonRAVEN_PASS_UNDERLAY
		malformed = FromPodRavenReasonRAVEN_PASS_MALFORMED
	)
	as := func(*layers.IPv4, *layers.UDP) {}
	with := func(p packet, payload int) packet { p.payload = payload; return p }
	for _, c := range []struct {
		name    string
		inner   packet
		outer   func(*layers.IPv4, *layers.UDP)
		edit    func([]byte) []byte
		prepare func(*node)
		gso     uint32
		reason  Reason
	}{
		{name: "IPv4 inside", inner: four, reason: off},
		{name: "IPv6 inside", inner: six, reason: off},
		{name: "ICMP inside", inner: ping, reason: off},
		{name: "also beside next hops of kind direct", inner: four, prepare: func(n *node) { n.direct(true) }, reason: off},
		{name: "a stranger", inner: four, outer: func(ip *layers.IPv4, _ *layers.UDP) { ip.SrcIP = net.IPv4(172, 16, 2, 66) }, reason: underlay},
		{name: "to another address", inner: four, outer: func(ip *layers.IPv4, _ *layers.UDP) { ip.DstIP = net.IPv4(172, 16, 2, 1) }, reason: underlay},
		{name: "to another port", inner: four, outer: func(_ *layers.IPv4, u *layers.UDP) { u.DstPort = 4789 }, reason: underlay},
		{name: "of another network", inner: four, edit: func(f []byte) []byte { f[outerVXLAN+6] = 7; return f }, reason: malformed},
		{name: "without a network", inner: four, edit: func(f []byte) []byte { f[outerVXLAN] = 0; return f }, reason: malformed},
		{name: "a wrong header checksum", inner: four, edit: func(f []byte) []byte { f[outerSum]++; return f }, reason: malformed},
		{name: "congestion on the way", inner: four, edit: func(f []byte) []byte { f[outerTOS] |= 3; resum(f); return f }, reason: underlay},
		{name: "a fragment", inner: four, edit: func(f []byte) []byte { f[outerFragment] = 0x20; resum(f); return f }, reason: underlay},
		{name: "with an outer checksum", inner: four, edit: func(f []byte) []byte { f[outerUDPSum] = 1; return f }, reason: off},
		{name: "segments to be cut", inner: four, gso: 1000, reason: underlay},
		{name: "nothing inside", inner: four, edit: func(f []byte) []byte { return f[:outerLen] }, reason: underlay},
		{name: "an IPv6 underlay", inner: four, prepare: func(n *node) { n.configure(func(c *NodeConfig) { c.Underlay = [4]uint8{} }) }, reason: underlay},
		{name: "the device is gone", inner: four, prepare: func(n *node) { n.configure(func(c *NodeConfig) { c.OverlayIfindex = goneIndex }) },
			reason: FromPodRavenReasonRAVEN_PASS_NEXTHOP_DOWN},
		{name: "more than the device's MTU", inner: with(four, 1500), reason: FromPodRavenReasonRAVEN_PASS_NEXTHOP_DOWN},
		{name: "as much as the device's MTU", inner: with(four, 1500-20-8), reason: off},
		{name: "a peer's, by a tunnel of VXLAN", inner: four, outer: toTunnel, edit: tunnelsVNI, prepare: tunnelOfVXLAN(MemberPeer), reason: off},
		{name: "of a peer that is a member too", inner: four, outer: toTunnel, edit: tunnelsVNI,
			prepare: tunnelOfVXLAN(MemberPeer | MemberOfRegion), reason: off},
		{name: "by a tunnel of VXLAN from a member that is no peer", inner: four, outer: toTunnel, edit: tunnelsVNI,
			prepare: tunnelOfVXLAN(MemberOfRegion), reason: underlay},
		{name: "by a tunnel of VXLAN to another address", inner: four, edit: tunnelsVNI, prepare: tunnelOfVXLAN(MemberPeer),
			outer: func(ip *layers.IPv4, u *layers.UDP) { toTunnel(ip, u); ip.DstIP = nodeIP.AsSlice() }, reason: underlay},
		{name: "with the overlay's network by a tunnel of VXLAN", inner: four, outer: toTunnel, prepare: tunnelOfVXLAN(MemberPeer), reason: malformed},
		{name: "from a peer that is no member to the overlay", inner: four, prepare: tunnelOfVXLAN(MemberPeer), reason: underlay},
		{name: "to the tunnel's port, which is not VXLAN's", inner: four, outer: toTunnel, edit: tunnelsVNI, reason: underlay},
		{name: "switched off", inner: four, prepare: func(n *node) { n.configure(func(c *NodeConfig) { c.Flags &^= FlagAccelerate }) },
			reason: FromPodRavenReasonRAVEN_PASS_DISABLED},
		{name: "for another host", inner: four, edit: func(f []byte) []byte { f[5]++; return f }, reason: underlay},
	} {
		t.Run(c.name, func(t *testing.T) {
			netns.Run(t, func(t *testing.T) {
				n := newNode(t, true, false)
				if c.prepare != nil {
					c.prepare(n)
				}
				if c.outer == nil {
					c.outer = as
				}
				inner := c.inner.frame(t)
				frame := encapsulated(t, inner, c.outer)
				if c.edit != nil {
					frame = c.edit(frame)
				}
				want, wantAction := frame, actUnspec
				if c.reason == off {
					want, wantAction = inner, actRedirect
				}
				action, out := n.run("raven_from_underlay", "nic0", frame, c.gso)
				if action != wantAction || !bytes.Equal(out, want) {
					t.Errorf("action %d with\n%x, want %d with\n%x", action, out, wantAction, want)
				}
				if packets, octets := n.counter("raven_from_underlay", c.reason); packets != 1 || octets != uint64(len(frame)) {
					t.Errorf("counter of reason %d: %d packets, %d bytes; want 1 and %d; counted instead: %v",
						c.reason, packets, octets, len(frame), n.counted("raven_from_underlay"))
				}
				reached[c.reason] = true
			})
		})
	}
}
