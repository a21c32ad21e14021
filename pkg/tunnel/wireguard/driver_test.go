package wireguard

import (
	"net/netip"
	"testing"
	"time"

	"github.com/ravencni/raven/pkg/topology"
	"github.com/ravencni/raven/pkg/tunnel"
)

// pair is two gateways on one cable, each with a pod, and their plans.
type pair struct {
	a, b         *host
	planA, planB *topology.Plan
}

func newPair(t *testing.T) *pair {
	t.Helper()
	p := &pair{a: newHost(t, "a").serve(Options{}), b: newHost(t, "b").serve(Options{})}
	cable(p.a, "eth0", "192.0.2.1/24", p.b, "eth0", "192.0.2.2/24")
	p.a.pod("10.1.0.1/32")
	p.b.pod("10.2.0.1/32")
	p.a.awaitPing("192.0.2.2")
	p.planA = plan("a", "192.0.2.1", peerAt("b", p.b.key(), "192.0.2.2:4500", 0, "10.2.0.0/24", "fd00:2::/64"))
	p.planB = plan("b", "192.0.2.2", peerAt("a", p.a.key(), "192.0.2.1:4500", 0, "10.1.0.0/24", "fd00:1::/64"))
	return p
}

// connect applies both plans, routes the pods' prefixes and waits for the first datagram to return.
func (p *pair) connect() {
	p.a.t.Helper()
	p.a.apply(p.planA, -1)
	p.b.apply(p.planB, -1)
	p.a.route("10.2.0.0/24", DefaultDevice, "")
	p.b.route("10.1.0.0/24", DefaultDevice, "")
	p.b.echo("10.2.0.1:7")
	p.a.awaitEcho("10.1.0.1", "10.2.0.1:7", 10*time.Second)
}

func TestTwoGatewaysExchangeDatagramsAndTenMoreAppliesWriteNothing(t *testing.T) {
	p := newPair(t)
	p.connect()
	before := p.a.device()
	for range 10 {
		if r := p.a.apply(p.planA, 0); r.Device.Name != DefaultDevice || r.Device.Index == 0 || r.Device.Ethernet || r.Device.MTU != 1405 {
			t.Fatalf("Apply reports the device %+v", r.Device)
		}
	}
	after := p.a.device()
	if got, want := after.Peers[0].LastHandshakeTime, before.Peers[0].LastHandshakeTime; !got.Equal(want) {
		t.Errorf("a handshake at %v, the last one was at %v", got, want)
	}
	s := p.a.status()["b"]
	if s.State != tunnel.StateUp || s.Endpoint != netip.MustParseAddrPort("192.0.2.2:4500") || s.RxBytes == 0 || s.TxBytes == 0 {
		t.Errorf("status of b: %+v", s)
	}
}
