package bpf

import (
	"bytes"
	"testing"

	"github.com/ravencni/raven/test/netns"
)

// What XFRM decrypted comes out of its interface with the outer packet's Ethernet header rebuilt before it, or without
// any, as the device had one that the outer packet came by. Test runs have one, and a TUN device has none. Nothing is
// padded behind a decrypted packet, so none here is as short as to need it.
func TestWhatXFRMDecryptedIsReadWithAnEthernetHeaderAndWithout(t *testing.T) {
	for name, p := range map[string]packet{
		"IPv4": {src: remotePod, dst: memberPod, proto: udp, sport: 1, dport: 2, payload: 100},
		"IPv6": {src: remotePod6, dst: memberPod6, proto: tcp, sport: 1, dport: 2},
	} {
		p.dstMAC = ownMAC
		t.Run(name, func(t *testing.T) {
			netns.Run(t, func(t *testing.T) {
				n := newNode(t, true, false, decryptedByXFRM)
				frame := p.frame(t)
				action, out := n.run("raven_from_tunnel", "tun0", frame, 0)
				if want := forwarded(t, frame, vtepMAC, ownMAC); action != actRedirect || !bytes.Equal(out, want) {
					t.Errorf("with Ethernet: action %d, the frame left as\n%x, want\n%x; counted %v", action, out, want, n.counted("raven_from_tunnel"))
				}
			})
			netns.Run(t, func(t *testing.T) {
				n := newTunNode(t, decryptedByXFRM)
				out := listen(t, n.index["raven0p"])
				frame := p.frame(t)
				_, err := n.tun.Write(frame[14:])
				must(t, err)
				receive(t, out, forwarded(t, frame, vtepMAC, ownMAC))
				n.expect(FromPodRavenReasonRAVEN_REDIRECT_OVERLAY)
			})
		})
	}
}
