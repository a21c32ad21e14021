package bpf

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"strconv"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/gopacket/gopacket/layers"
	"golang.org/x/sys/unix"

	"github.com/ravencni/raven/test/netns"
)

const (
	tcp   = layers.IPProtocolTCP
	udp   = layers.IPProtocolUDP
	icmp4 = layers.IPProtocolICMPv4
	icmp6 = layers.IPProtocolICMPv6
)

// goneIndex is of a device that does not exist.
const goneIndex = 99999

// reached collects the reasons that any case of any program ended with.
var reached = map[Reason]bool{}

type tcCase struct {
	name    string
	device  string
	packet  packet
	prepare func(n *node, p packet) // conntrack entries, map changes
	edit    func(frame []byte) []byte
	gso     uint32
	reason  Reason
	action  int
	// Of a redirected frame: the Ethernet addresses that it leaves with, or nil where the device below strips them.
	wantDst, wantSrc net.HardwareAddr
}

// established makes conntrack know both directions of p's flow, as if p were its first packet's direction.
func established(n *node, p packet) { insertConntrack(n, p, "SEEN_REPLY,ASSURED") }

// establishedReply makes p a packet of the reply direction.
func establishedReply(n *node, p packet) {
	p.src, p.dst, p.sport, p.dport = p.dst, p.src, p.dport, p.sport
	established(n, p)
}

func insertConntrack(n *node, p packet, status string, more ...string) {
	args := []string{"-I"}
	if p.proto == tcp {
		args = append(args, "-p", "tcp", "--state", "ESTABLISHED")
	} else {
		args = append(args, "-p", "udp")
	}
	args = append(args, "-s", p.src.String(), "-d", p.dst.String(), "-t", "100",
		"--sport", strconv.Itoa(int(p.sport)), "--dport", strconv.Itoa(int(p.dport)))
	if status != "" {
		args = append(args, "-u", status)
	}
	n.conntrack(append(args, more...)...)
}

// runTable sends every case through a program on a node of its own and checks verdict, reason counter and bytes.
func runTable(t *testing.T, program string, gateway, tunnelEthernet bool, setup func(*node), cases []tcCase) {
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			netns.Run(t, func(t *testing.T) {
				n := newNode(t, gateway, tunnelEthernet)
				if setup != nil {
					setup(n)
				}
				if c.packet.dstMAC == nil {
					c.packet.dstMAC = ownMAC
				}
				if c.prepare != nil {
					c.prepare(n, c.packet)
				}
				frame := c.packet.frame(t)
				if c.edit != nil {
					frame = c.edit(frame)
				}
				action, out := n.run(program, c.device, frame, c.gso)
				if action != c.action {
					t.Errorf("action %d, want %d", action, c.action)
				}
				packets, octets := n.counter(program, c.reason)
				if packets != 1 || octets != uint64(len(frame)) {
					t.Errorf("counter of reason %d: %d packets, %d bytes; want 1 and %d; counted instead: %v",
						c.reason, packets, octets, len(frame), n.counted(program))
				}
				reached[c.reason] = true
				if c.action == actShot {
					n.remembers(c.reason, c.packet, n.index[c.device])
				}
				want := frame
				if c.action == actRedirect {
					want = forwarded(t, frame, c.wantDst, c.wantSrc)
				}
				if !bytes.Equal(out, want) {
					t.Errorf("the frame left as\n%x, want\n%x", out, want)
				}
			})
		})
	}
}

// counted lists the reasons of program that are not zero.
func (n *node) counted(program string) (out []Reason) {
	for r := Reason(0); r < ReasonMax; r++ {
		if packets, _ := n.counter(program, r); packets > 0 {
			out = append(out, r)
		}
	}
	return out
}

// forwarded is what a router makes of frame: TTL less one, a right IPv4 checksum computed from scratch, new Ethernet
// addresses where given.
func forwarded(t *testing.T, frame []byte, dst, src net.HardwareAddr) []byte {
	t.Helper()
	out := bytes.Clone(frame)
	if dst != nil {
		copy(out[0:6], dst)
		copy(out[6:12], src)
	}
	ip := out[14:]
	if ip[0]>>4 == 6 {
		ip[7]--
		return out
	}
	ip[8]--
	ip[10], ip[11] = 0, 0
	var sum uint32
	for i := 0; i < 20; i += 2 {
		sum += uint32(ip[i])<<8 | uint32(ip[i+1])
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	ip[10], ip[11] = byte(^sum>>8), byte(^sum)
	return out
}

func badChecksum(frame []byte) []byte {
	frame[14+10] ^= 0xff
	return frame
}

func TestFromPodRedirectsEstablishedFlowsAndLeavesTheRestToTheStack(t *testing.T) {
	out := packet{src: localPod, dst: remotePod, dstMAC: podGateway, proto: tcp, sport: 40000, dport: 80}
	out6 := packet{src: localPod6, dst: remotePod6, dstMAC: podGateway, proto: udp, sport: 40000, dport: 53}
	with := func(p packet, change func(*packet)) packet { change(&p); return p }
	cases := []tcCase{
		{name: "established TCP goes to the gateway's VTEP", packet: out, prepare: established,
			reason: FromPodRavenReasonRAVEN_REDIRECT_OVERLAY, action: actRedirect, wantDst: vtepMAC, wantSrc: ownMAC},
		{name: "the reply direction of an established flow too", packet: out, prepare: establishedReply,
			reason: FromPodRavenReasonRAVEN_REDIRECT_OVERLAY, action: actRedirect, wantDst: vtepMAC, wantSrc: ownMAC},
		{name: "answered UDP over IPv6", packet: out6, prepare: func(n *node, p packet) { insertConntrack(n, p, "SEEN_REPLY") },
			reason: FromPodRavenReasonRAVEN_REDIRECT_OVERLAY, action: actRedirect, wantDst: vtepMAC, wantSrc: ownMAC},
		{name: "into the tunnel where the next hop is one", packet: out, prepare: func(n *node, p packet) {
			established(n, p)
			n.route("10.244.9.0/24", FibEntry{Nexthop: slotTunnel, Scope: ScopeRemote})
		}, reason: FromPodRavenReasonRAVEN_REDIRECT_TUNNEL, action: actRedirect},
		{name: "to the on-link gateway where the next hop is direct", packet: out, prepare: func(n *node, p packet) {
			established(n, p)
			n.direct(false)
		}, reason: FromPodRavenReasonRAVEN_REDIRECT_DIRECT, action: actRedirect},

		{name: "acceleration switched off", packet: out, prepare: func(n *node, p packet) {
			established(n, p)
			n.configure(func(c *NodeConfig) { c.Flags = 0 })
		}, reason: FromPodRavenReasonRAVEN_PASS_DISABLED, action: actUnspec},
		{name: "ARP", packet: out, edit: func(f []byte) []byte { f[12], f[13] = 0x08, 0x06; return f },
			reason: FromPodRavenReasonRAVEN_PASS_NOT_IP, action: actUnspec},
		{name: "a frame for a neighbour on the same bridge", packet: with(out, func(p *packet) { p.dstMAC = podMAC }),
			prepare: established, reason: FromPodRavenReasonRAVEN_PASS_NOT_IP, action: actUnspec},
		{name: "a TCP header cut short", packet: out, edit: func(f []byte) []byte { return f[:14+20+10] },
			reason: FromPodRavenReasonRAVEN_PASS_MALFORMED, action: actUnspec},
		{name: "a wrong IPv4 checksum", packet: out, edit: badChecksum,
			reason: FromPodRavenReasonRAVEN_PASS_MALFORMED, action: actUnspec},
		{name: "an IPv4 length beyond the frame", packet: out, edit: func(f []byte) []byte { f[16] = 0x10; return f },
			reason: FromPodRavenReasonRAVEN_PASS_MALFORMED, action: actUnspec},
		{name: "an IPv6 length beyond the frame", packet: out6, edit: func(f []byte) []byte { f[18] = 0x10; return f },
			reason: FromPodRavenReasonRAVEN_PASS_MALFORMED, action: actUnspec},
		{name: "IPv4 options", packet: with(out, func(p *packet) { p.options = true }),
			reason: FromPodRavenReasonRAVEN_PASS_IP_OPTIONS, action: actUnspec},
		{name: "an IPv6 extension header", packet: with(out6, func(p *packet) { p.options = true }),
			reason: FromPodRavenReasonRAVEN_PASS_IP_OPTIONS, action: actUnspec},
		{name: "an IPv4 fragment", packet: with(out, func(p *packet) { p.fragment = true }),
			reason: FromPodRavenReasonRAVEN_PASS_FRAGMENT, action: actUnspec},
		{name: "an IPv6 fragment", packet: with(out6, func(p *packet) { p.fragment = true }),
			reason: FromPodRavenReasonRAVEN_PASS_FRAGMENT, action: actUnspec},
		{name: "a destination that is nobody's", packet: with(out, func(p *packet) { p.dst = strangerPod }),
			reason: FromPodRavenReasonRAVEN_PASS_NO_ROUTE, action: actUnspec},
		{name: "a neighbour pod on this node", packet: with(out, func(p *packet) { p.dst = siblingPod }),
			reason: FromPodRavenReasonRAVEN_PASS_NO_ROUTE, action: actUnspec},
		{name: "another pod's address of this node", packet: with(out, func(p *packet) { p.src = siblingPod }),
			reason: FromPodRavenReasonRAVEN_PASS_UNKNOWN_POD, action: actUnspec},
		{name: "ICMP", packet: with(out, func(p *packet) { p.proto = icmp4 }),
			reason: FromPodRavenReasonRAVEN_PASS_PROTOCOL, action: actUnspec},
		{name: "SCTP", packet: with(out, func(p *packet) { p.proto = layers.IPProtocolSCTP }),
			reason: FromPodRavenReasonRAVEN_PASS_PROTOCOL, action: actUnspec},
		{name: "SYN", packet: with(out, func(p *packet) { p.syn = true }), prepare: established,
			reason: FromPodRavenReasonRAVEN_PASS_TCP_CONTROL, action: actUnspec},
		{name: "FIN", packet: with(out, func(p *packet) { p.fin = true }), prepare: established,
			reason: FromPodRavenReasonRAVEN_PASS_TCP_CONTROL, action: actUnspec},
		{name: "RST", packet: with(out, func(p *packet) { p.rst = true }), prepare: established,
			reason: FromPodRavenReasonRAVEN_PASS_TCP_CONTROL, action: actUnspec},
		{name: "a flow that conntrack does not know", packet: out,
			reason: FromPodRavenReasonRAVEN_PASS_UNTRACKED, action: actUnspec},
		{name: "TCP answered but not assured", packet: out, prepare: func(n *node, p packet) { insertConntrack(n, p, "SEEN_REPLY") },
			reason: FromPodRavenReasonRAVEN_PASS_UNESTABLISHED, action: actUnspec},
		{name: "UDP without an answer", packet: out6, prepare: func(n *node, p packet) { insertConntrack(n, p, "") },
			reason: FromPodRavenReasonRAVEN_PASS_UNESTABLISHED, action: actUnspec},
		{name: "a flow whose destination is translated", packet: out, prepare: func(n *node, p packet) {
			insertConntrack(n, p, "SEEN_REPLY,ASSURED", "--dst-nat", "10.244.9.77")
		}, reason: FromPodRavenReasonRAVEN_PASS_NAT, action: actUnspec},
		{name: "a flow whose source is translated", packet: out, prepare: func(n *node, p packet) {
			insertConntrack(n, p, "SEEN_REPLY,ASSURED", "--src-nat", "172.16.2.104")
		}, reason: FromPodRavenReasonRAVEN_PASS_NAT, action: actUnspec},
		{name: "the last hop its TTL allows", packet: with(out, func(p *packet) { p.ttl = 1 }), prepare: established,
			reason: FromPodRavenReasonRAVEN_PASS_TTL, action: actUnspec},
		{name: "larger than the path", packet: with(out, func(p *packet) { p.payload = testMTU - 39 }), prepare: established,
			reason: FromPodRavenReasonRAVEN_PASS_OVERSIZE, action: actUnspec},
		{name: "exactly as large as the path", packet: with(out, func(p *packet) { p.payload = testMTU - 40 }), prepare: established,
			reason: FromPodRavenReasonRAVEN_REDIRECT_OVERLAY, action: actRedirect, wantDst: vtepMAC, wantSrc: ownMAC},
		{name: "GSO whose segments fit", packet: with(out, func(p *packet) { p.payload = 3000 }), gso: testMTU - 40, prepare: established,
			reason: FromPodRavenReasonRAVEN_REDIRECT_OVERLAY, action: actRedirect, wantDst: vtepMAC, wantSrc: ownMAC},
		{name: "GSO whose segments do not fit", packet: with(out, func(p *packet) { p.payload = 3000 }), gso: testMTU - 39, prepare: established,
			reason: FromPodRavenReasonRAVEN_PASS_OVERSIZE, action: actUnspec},
		{name: "a next hop that is down", packet: with(out, func(p *packet) { p.dst = netip.MustParseAddr("10.244.44.1") }),
			prepare: established, reason: FromPodRavenReasonRAVEN_PASS_NEXTHOP_DOWN, action: actUnspec},
		{name: "a next hop that is empty", packet: with(out, func(p *packet) { p.dst = netip.MustParseAddr("10.244.45.1") }),
			prepare: established, reason: FromPodRavenReasonRAVEN_PASS_NEXTHOP_DOWN, action: actUnspec},

		{name: "the next hop's device has gone", packet: out, prepare: func(n *node, p packet) {
			established(n, p)
			n.put("raven_nexthops", uint32(slotOverlay), Nexthop{Group: 1, Ifindex: goneIndex, Mtu: testMTU, Kind: NexthopOverlay,
				Flags: NexthopHealthy | NexthopEthernet, Dmac: mac(vtepMAC), Smac: mac(ownMAC)})
		}, reason: FromPodRavenReasonRAVEN_PASS_NEXTHOP_DOWN, action: actUnspec},

		{name: "a spoofed source", packet: with(out, func(p *packet) { p.src = strangerPod }),
			reason: FromPodRavenReasonRAVEN_DROP_SPOOFED_SOURCE, action: actShot},
		{name: "the source of another region", packet: with(out, func(p *packet) { p.src = remotePod }),
			reason: FromPodRavenReasonRAVEN_DROP_SPOOFED_SOURCE, action: actShot},
		{name: "a spoofed IPv6 source", packet: with(out6, func(p *packet) { p.src = strangerPod6 }),
			reason: FromPodRavenReasonRAVEN_DROP_SPOOFED_SOURCE, action: actShot},
		{name: "a spoofed source towards nobody is not Raven's to judge", packet: with(out, func(p *packet) { p.src, p.dst = strangerPod, strangerPod }),
			reason: FromPodRavenReasonRAVEN_PASS_NO_ROUTE, action: actUnspec},
	}
	for i := range cases {
		cases[i].device = "pod0"
	}
	runTable(t, "raven_from_pod", false, false, nil, cases)
}

func TestFromOverlayOnAMemberDeliversEstablishedFlowsFromOtherRegions(t *testing.T) {
	in := packet{src: remotePod, dst: localPod, proto: tcp, sport: 80, dport: 40000}
	in6 := packet{src: remotePod6, dst: localPod6, proto: udp, sport: 53, dport: 40000}
	with := func(p packet, change func(*packet)) packet { change(&p); return p }
	cases := []tcCase{
		{name: "to the pod", packet: in, prepare: establishedReply,
			reason: FromPodRavenReasonRAVEN_REDIRECT_POD, action: actRedirect, wantDst: podMAC, wantSrc: podGateway},
		{name: "to the pod, while this node's own packets already go without VXLAN", packet: in, prepare: func(n *node, p packet) {
			establishedReply(n, p)
			n.direct(false)
		}, reason: FromPodRavenReasonRAVEN_REDIRECT_POD, action: actRedirect, wantDst: podMAC, wantSrc: podGateway},
		{name: "to the pod over IPv6", packet: in6, prepare: establishedReply,
			reason: FromPodRavenReasonRAVEN_REDIRECT_POD, action: actRedirect, wantDst: podMAC, wantSrc: podGateway},
		{name: "a new flow", packet: in, reason: FromPodRavenReasonRAVEN_PASS_UNTRACKED, action: actUnspec},
		{name: "a pod whose device has gone", packet: in, prepare: func(n *node, p packet) {
			establishedReply(n, p)
			n.put("raven_pods", addr(localPod), Pod{Ifindex: goneIndex, Mac: mac(podMAC), GwMac: mac(podGateway), Mtu: 1500})
		}, reason: FromPodRavenReasonRAVEN_PASS_UNKNOWN_POD, action: actUnspec},
		{name: "ICMP", packet: with(in, func(p *packet) { p.proto = icmp4 }),
			reason: FromPodRavenReasonRAVEN_PASS_PROTOCOL, action: actUnspec},
		{name: "a local address that no known pod has", packet: with(in, func(p *packet) { p.dst = siblingPod }), prepare: establishedReply,
			reason: FromPodRavenReasonRAVEN_PASS_UNKNOWN_POD, action: actUnspec},
		{name: "this node itself", packet: with(in, func(p *packet) { p.dst = nodeIP }),
			reason: FromPodRavenReasonRAVEN_PASS_LOCAL_HOST, action: actUnspec},
		{name: "larger than the pod's device", packet: with(in, func(p *packet) { p.payload = 1500 - 39 }), prepare: establishedReply,
			reason: FromPodRavenReasonRAVEN_PASS_OVERSIZE, action: actUnspec},
		{name: "a member forwards to no other region", packet: with(in, func(p *packet) { p.dst = netip.MustParseAddr("172.16.1.90") }),
			reason: FromPodRavenReasonRAVEN_PASS_NO_ROUTE, action: actUnspec},
		{name: "not for this host", packet: with(in, func(p *packet) { p.dstMAC = podMAC }),
			reason: FromPodRavenReasonRAVEN_PASS_NOT_IP, action: actUnspec},
		{name: "acceleration switched off", packet: in, prepare: func(n *node, p packet) {
			n.configure(func(c *NodeConfig) { c.Flags = 0 })
		}, reason: FromPodRavenReasonRAVEN_PASS_DISABLED, action: actUnspec},
		{name: "neighbour discovery stays with the link", packet: packet{src: netip.MustParseAddr("fe80::1"),
			dst: netip.MustParseAddr("ff02::1"), proto: icmp6},
			reason: FromPodRavenReasonRAVEN_PASS_NO_ROUTE, action: actUnspec},
		{name: "a source of nobody's", packet: with(in, func(p *packet) { p.src = strangerPod }),
			reason: FromPodRavenReasonRAVEN_DROP_WRONG_REGION_SOURCE, action: actShot},
		{name: "this node's own pods as source", packet: with(in, func(p *packet) { p.src = siblingPod }),
			reason: FromPodRavenReasonRAVEN_DROP_WRONG_REGION_SOURCE, action: actShot},
		{name: "a pod of the region's other node as source", packet: with(in, func(p *packet) { p.src = memberPod }),
			reason: FromPodRavenReasonRAVEN_DROP_WRONG_REGION_SOURCE, action: actShot},
		{name: "the region's other node, whose NodePort leads here", packet: with(in, func(p *packet) { p.src = netip.MustParseAddr("172.16.2.103") }),
			reason: FromPodRavenReasonRAVEN_PASS_NO_ROUTE, action: actUnspec},
	}
	for i := range cases {
		cases[i].device = "raven0"
	}
	runTable(t, "raven_from_overlay", false, false, nil, cases)
}

func TestFromOverlayOnAGatewayForwardsItsRegionIntoTheTunnel(t *testing.T) {
	out := packet{src: memberPod, dst: remotePod, proto: tcp, sport: 40000, dport: 80}
	out6 := packet{src: memberPod6, dst: remotePod6, proto: icmp6}
	with := func(p packet, change func(*packet)) packet { change(&p); return p }
	cases := []tcCase{
		{name: "without asking conntrack", packet: out, reason: FromPodRavenReasonRAVEN_REDIRECT_TUNNEL, action: actRedirect},
		{name: "SYN too: policy is decided at the flow's ends", packet: with(out, func(p *packet) { p.syn = true }),
			reason: FromPodRavenReasonRAVEN_REDIRECT_TUNNEL, action: actRedirect},
		{name: "ICMPv6 too", packet: out6, reason: FromPodRavenReasonRAVEN_REDIRECT_TUNNEL, action: actRedirect},
		{name: "to another node", packet: with(out, func(p *packet) { p.dst = netip.MustParseAddr("172.16.1.90") }),
			reason: FromPodRavenReasonRAVEN_REDIRECT_TUNNEL, action: actRedirect},
		{name: "a loop dies by TTL", packet: with(out, func(p *packet) { p.ttl = 1 }),
			reason: FromPodRavenReasonRAVEN_PASS_TTL, action: actUnspec},
		{name: "an unknown protocol", packet: with(out, func(p *packet) { p.proto = layers.IPProtocolSCTP }),
			reason: FromPodRavenReasonRAVEN_PASS_PROTOCOL, action: actUnspec},
		{name: "in-region prefixes serve only what comes out of the tunnel", packet: with(out, func(p *packet) { p.dst = memberPod }),
			reason: FromPodRavenReasonRAVEN_PASS_NO_ROUTE, action: actUnspec},
		{name: "a destination of nobody's", packet: with(out, func(p *packet) { p.dst = strangerPod }),
			reason: FromPodRavenReasonRAVEN_PASS_NO_ROUTE, action: actUnspec},
		{name: "another region's source from inside the region", packet: with(out, func(p *packet) { p.src = remotePod }),
			reason: FromPodRavenReasonRAVEN_DROP_WRONG_REGION_SOURCE, action: actShot},
	}
	for i := range cases {
		cases[i].device = "raven0"
	}
	runTable(t, "raven_from_overlay", true, false, nil, cases)
}

func TestFromTunnelForwardsIntoTheRegionToPodsAndToOtherRegions(t *testing.T) {
	in := packet{src: remotePod, dst: memberPod, proto: tcp, sport: 80, dport: 40000}
	toPod := packet{src: remotePod, dst: localPod, proto: udp, sport: 53, dport: 40000}
	with := func(p packet, change func(*packet)) packet { change(&p); return p }
	relayTo := netip.MustParseAddr("10.244.30.1")
	cases := []tcCase{
		{name: "to a node of the region", packet: in,
			reason: FromPodRavenReasonRAVEN_REDIRECT_OVERLAY, action: actRedirect, wantDst: vtepMAC, wantSrc: ownMAC},
		{name: "to a node of the region, on-link", packet: in, prepare: func(n *node, p packet) { n.direct(true) },
			reason: FromPodRavenReasonRAVEN_REDIRECT_DIRECT, action: actRedirect},
		{name: "to a pod of the gateway", packet: toPod, prepare: establishedReply,
			reason: FromPodRavenReasonRAVEN_REDIRECT_POD, action: actRedirect, wantDst: podMAC, wantSrc: podGateway},
		{name: "a new flow to a pod of the gateway", packet: toPod,
			reason: FromPodRavenReasonRAVEN_PASS_UNTRACKED, action: actUnspec},
		{name: "to the gateway itself", packet: with(in, func(p *packet) { p.dst = nodeIP }),
			reason: FromPodRavenReasonRAVEN_PASS_LOCAL_HOST, action: actUnspec},
		{name: "relayed to a third region", packet: with(in, func(p *packet) { p.dst = relayTo }), prepare: func(n *node, p packet) {
			n.route("10.244.30.0/24", FibEntry{Nexthop: slotTunnel, Scope: ScopeRemote})
		}, reason: FromPodRavenReasonRAVEN_REDIRECT_TUNNEL, action: actRedirect},
		{name: "a relay loop dies by TTL", packet: with(in, func(p *packet) { p.dst, p.ttl = relayTo, 1 }), prepare: func(n *node, p packet) {
			n.route("10.244.30.0/24", FibEntry{Nexthop: slotTunnel, Scope: ScopeRemote})
		}, reason: FromPodRavenReasonRAVEN_PASS_TTL, action: actUnspec},
		{name: "a fragment", packet: with(in, func(p *packet) { p.fragment = true }),
			reason: FromPodRavenReasonRAVEN_PASS_FRAGMENT, action: actUnspec},
		{name: "larger than the way to the node", packet: with(in, func(p *packet) { p.payload = testMTU - 39 }),
			reason: FromPodRavenReasonRAVEN_PASS_OVERSIZE, action: actUnspec},
		{name: "a destination of nobody's", packet: with(in, func(p *packet) { p.dst = strangerPod }),
			reason: FromPodRavenReasonRAVEN_PASS_NO_ROUTE, action: actUnspec},
		{name: "this region's own source out of the tunnel", packet: with(in, func(p *packet) { p.src = memberPod }),
			reason: FromPodRavenReasonRAVEN_DROP_WRONG_REGION_SOURCE, action: actShot},
		{name: "a source whose next hop is another device", packet: in, prepare: func(n *node, p packet) {
			n.route("10.244.9.0/24", FibEntry{Nexthop: slotOverlay, Scope: ScopeRemote})
		}, reason: FromPodRavenReasonRAVEN_DROP_WRONG_REGION_SOURCE, action: actShot},
	}
	for i := range cases {
		cases[i].device = "tun0"
	}
	runTable(t, "raven_from_tunnel", true, true, nil, cases)
}

func TestFromUnderlayTakesOnlyWhatCameByADirectNextHopAndNeverDrops(t *testing.T) {
	with := func(p packet, change func(*packet)) packet { change(&p); return p }
	out := packet{src: memberPod, dst: remotePod, proto: tcp, sport: 40000, dport: 80}
	t.Run("gateway", func(t *testing.T) {
		cases := []tcCase{
			{name: "into the tunnel", packet: out, reason: FromPodRavenReasonRAVEN_REDIRECT_TUNNEL, action: actRedirect},
			{name: "a source that is no member's", packet: with(out, func(p *packet) { p.src = strangerPod }),
				reason: FromPodRavenReasonRAVEN_PASS_NO_ROUTE, action: actUnspec},
			{name: "this node itself", packet: with(out, func(p *packet) { p.dst = nodeIP }),
				reason: FromPodRavenReasonRAVEN_PASS_LOCAL_HOST, action: actUnspec},
			{name: "anything else", packet: with(out, func(p *packet) { p.dst = strangerPod }),
				reason: FromPodRavenReasonRAVEN_PASS_NO_ROUTE, action: actUnspec},
		}
		for i := range cases {
			cases[i].device = "nic0"
		}
		runTable(t, "raven_from_underlay", true, false, func(n *node) { n.direct(true) }, cases)
	})
	t.Run("member", func(t *testing.T) {
		in := packet{src: remotePod, dst: localPod, proto: tcp, sport: 80, dport: 40000}
		cases := []tcCase{
			{name: "to the pod", packet: in, prepare: establishedReply,
				reason: FromPodRavenReasonRAVEN_REDIRECT_POD, action: actRedirect, wantDst: podMAC, wantSrc: podGateway},
			{name: "a source of the own region", packet: with(in, func(p *packet) { p.src = memberPod }), prepare: establishedReply,
				reason: FromPodRavenReasonRAVEN_PASS_NO_ROUTE, action: actUnspec},
			{name: "a member is no router", packet: out, reason: FromPodRavenReasonRAVEN_PASS_NO_ROUTE, action: actUnspec},
		}
		for i := range cases {
			cases[i].device = "nic0"
		}
		runTable(t, "raven_from_underlay", false, false, func(n *node) { n.direct(false) }, cases)
	})
}

// A sum over the whole packet, as some NICs make it, must still be right when the packet goes on, or the kernel of the
// next stop takes the NIC for broken and says so for every packet.
func TestTheSumThatANICMadeStaysRightWhenAHopIsCounted(t *testing.T) {
	for name, in := range map[string]packet{
		"IPv4": {src: memberPod, dst: remotePod, dstMAC: ownMAC, proto: udp, sport: 40000, dport: 53},
		"IPv6": {src: memberPod6, dst: remotePod6, dstMAC: ownMAC, proto: udp, sport: 40000, dport: 53},
	} {
		t.Run(name, func(t *testing.T) {
			netns.Run(t, func(t *testing.T) {
				n := newNode(t, true, false)
				frame := in.frame(t)
				ret, err := n.programs["raven_from_overlay"].Run(&ebpf.RunOptions{
					Data: frame, DataOut: make([]byte, len(frame)+256), Repeat: 1, Flags: testChecksumComplete,
					Context: &skb{Ifindex: uint32(n.index["raven0"])},
				})
				if errors.Is(err, unix.EINVAL) {
					t.Skip("this kernel cannot test sums")
				}
				if err != nil || int(int32(ret)) != actRedirect {
					t.Errorf("action %d, %v; want a redirect with the sum adjusted", int32(ret), err)
				}
			})
		})
	}
}

// testChecksumComplete is BPF_F_TEST_SKB_CHECKSUM_COMPLETE (linux/bpf.h, Linux 6.15): the packet comes with a sum, which
// the kernel checks after the program and answers a wrong one with EBADMSG.
const testChecksumComplete = 1 << 2
