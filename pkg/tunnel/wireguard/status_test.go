package wireguard

import (
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/ravencni/raven/pkg/tunnel"
)

func TestStatusSaysWhyAPeerIsNotUp(t *testing.T) {
	p := peer{region: "b", node: "b", key: testPeerKey(1)}
	at := net.UDPAddrFromAddrPort(netip.MustParseAddrPort("192.0.2.2:4500"))
	for name, c := range map[string]struct {
		have  *wgtypes.Device
		state tunnel.State
		word  string
	}{
		"no device":     {nil, tunnel.StateDown, "is gone"},
		"no such peer":  {&wgtypes.Device{ListenPort: 4500}, tunnel.StateDown, "does not have this peer"},
		"no port":       {peerDevice(0, wgtypes.Peer{Endpoint: at}), tunnel.StateDown, "no UDP port"},
		"waiting":       {peerDevice(4500, wgtypes.Peer{}), tunnel.StateConnecting, "waits on UDP port 4500"},
		"dialling":      {peerDevice(4500, wgtypes.Peer{Endpoint: at}), tunnel.StateConnecting, "dialled 192.0.2.2:4500"},
		"idle too long": {peerDevice(4500, wgtypes.Peer{Endpoint: at, LastHandshakeTime: testNow.Add(-180 * time.Second)}), tunnel.StateConnecting, "last handshake 3m0s ago"},
		"fresh":         {peerDevice(4500, wgtypes.Peer{Endpoint: at, LastHandshakeTime: testNow.Add(-179 * time.Second)}), tunnel.StateUp, ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := statusOf(p, c.have, DefaultDevice, testNow)
			if s.Node != "b" || s.State != c.state || !strings.Contains(s.Message, c.word) || (c.word == "") != (s.Message == "") {
				t.Errorf("status %+v", s)
			}
		})
	}
}

func peerDevice(port int, p wgtypes.Peer) *wgtypes.Device {
	p.PublicKey = testPeerKey(1)
	return &wgtypes.Device{ListenPort: port, Peers: []wgtypes.Peer{p}}
}
