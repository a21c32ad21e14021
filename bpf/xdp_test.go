package bpf

import (
	"bytes"
	"net/netip"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/ravencni/raven/test/netns"
)

// initiation makes p's payload look like the first message of a WireGuard handshake.
func initiation(frame []byte) []byte {
	frame[14+20+8] = 1
	return frame
}

func TestXDPDropsStrangersVXLANAndHandshakeFloodsAndNothingElse(t *testing.T) {
	member, stranger := netip.MustParseAddr("172.16.2.103"), netip.MustParseAddr("172.16.2.66")
	vxlan := packet{src: member, dst: nodeIP, dstMAC: ownMAC, proto: udp, sport: 5555, dport: 4472, payload: 60}
	handshake := packet{src: stranger, dst: nodeIP, dstMAC: ownMAC, proto: udp, sport: 4500, dport: 4500, payload: 148}
	with := func(p packet, change func(*packet)) packet { change(&p); return p }
	for _, c := range []struct {
		name    string
		packet  packet
		edit    func([]byte) []byte
		before  int // how many times the packet was sent already
		prepare func(*node)
		reason  Reason
		action  int
	}{
		{name: "VXLAN from a member", packet: vxlan, reason: FromPodRavenReasonRAVEN_PASS_UNDERLAY, action: xdpPass},
		{name: "VXLAN from a stranger", packet: with(vxlan, func(p *packet) { p.src = stranger }),
			reason: FromPodRavenReasonRAVEN_DROP_VXLAN_STRANGER, action: xdpDrop},
		{name: "VXLAN from a stranger over IPv6", packet: with(vxlan, func(p *packet) { p.src, p.dst = strangerPod6, localPod6 }),
			reason: FromPodRavenReasonRAVEN_DROP_VXLAN_STRANGER, action: xdpDrop},
		{name: "the last handshake within the limit", packet: handshake, edit: initiation, before: 4,
			reason: FromPodRavenReasonRAVEN_PASS_UNDERLAY, action: xdpPass},
		{name: "the first handshake over the limit", packet: handshake, edit: initiation, before: 5,
			reason: FromPodRavenReasonRAVEN_DROP_HANDSHAKE_FLOOD, action: xdpDrop},
		{name: "data of an established tunnel is not counted", packet: handshake, before: 50,
			edit:   func(f []byte) []byte { f[14+20+8] = 4; return f },
			reason: FromPodRavenReasonRAVEN_PASS_UNDERLAY, action: xdpPass},
		{name: "no limit set", packet: handshake, edit: initiation, before: 50,
			prepare: func(n *node) { n.configure(func(c *NodeConfig) { c.HandshakesPerSecond = 0 }) },
			reason:  FromPodRavenReasonRAVEN_PASS_UNDERLAY, action: xdpPass},
		{name: "TCP", packet: with(vxlan, func(p *packet) { p.proto = tcp }),
			reason: FromPodRavenReasonRAVEN_PASS_UNDERLAY, action: xdpPass},
		{name: "ARP", packet: vxlan, edit: func(f []byte) []byte { f[12], f[13] = 8, 6; return f },
			reason: FromPodRavenReasonRAVEN_PASS_NOT_IP, action: xdpPass},
		{name: "a fragment", packet: with(vxlan, func(p *packet) { p.fragment = true }),
			reason: FromPodRavenReasonRAVEN_PASS_FRAGMENT, action: xdpPass},
		{name: "IPv4 options", packet: with(vxlan, func(p *packet) { p.options = true }),
			reason: FromPodRavenReasonRAVEN_PASS_IP_OPTIONS, action: xdpPass},
		{name: "a UDP header cut short", packet: vxlan, edit: func(f []byte) []byte { return f[:14+20+4] },
			reason: FromPodRavenReasonRAVEN_PASS_MALFORMED, action: xdpPass},
	} {
		t.Run(c.name, func(t *testing.T) {
			netns.Run(t, func(t *testing.T) {
				n := newNode(t, false, false)
				if c.prepare != nil {
					c.prepare(n)
				}
				frame := c.packet.frame(t)
				if c.edit != nil {
					frame = c.edit(frame)
				}
				for range c.before {
					n.runXDP(frame)
				}
				before, _ := n.counter("raven_xdp_underlay", c.reason)
				action, out := n.runXDP(frame)
				if action != c.action {
					t.Errorf("action %d, want %d", action, c.action)
				}
				if after, _ := n.counter("raven_xdp_underlay", c.reason); after != before+1 {
					t.Errorf("reason %d was not counted, but %v", c.reason, n.counted("raven_xdp_underlay"))
				}
				if !bytes.Equal(out, frame) {
					t.Errorf("the frame was changed to\n%x, was\n%x", out, frame)
				}
				reached[c.reason] = true
				if c.action == xdpDrop {
					n.remembers(c.reason, c.packet, 0)
				}
			})
		})
	}
}

func (n *node) runXDP(frame []byte) (int, []byte) {
	n.t.Helper()
	opts := &ebpf.RunOptions{Data: frame, DataOut: make([]byte, len(frame)+256), Repeat: 1}
	ret, err := n.programs["raven_xdp_underlay"].Run(opts)
	if err != nil {
		n.t.Fatalf("test-run raven_xdp_underlay: %v", err)
	}
	return int(ret), opts.DataOut
}
