package wireguard

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/ravencni/raven/pkg/topology"

	"github.com/ravencni/raven/pkg/tunnel/detached"
)

// star is an exposed hub and two edges behind NAT boxes, around a router that drops what is not public:
//
//	edge1 -- nat1 --\
//	                 router -- hub
//	edge2 -- nat2 --/
type star struct {
	hub, edge1, edge2, nat1, nat2, router *host
	planHub, plan1, plan2                 *topology.Plan
}

const natRules = `table ip nat {
	chain out { type nat hook postrouting priority srcnat; oifname "wan" masquerade; }
	chain in { type filter hook forward priority filter; policy drop; iifname "lan" accept; ct state established accept; }
}`

const routerRules = `table ip public {
	counter private {}
	chain forward {
		type filter hook forward priority filter;
		ip saddr { 10.0.0.0/8, 192.168.0.0/16 } counter name private drop
		ip daddr { 10.0.0.0/8, 192.168.0.0/16 } counter name private drop
	}
}`

func newStar(t *testing.T) *star {
	t.Helper()
	s := &star{router: newHost(t, "router"), nat1: newHost(t, "nat1"), nat2: newHost(t, "nat2")}
	s.hub, s.edge1, s.edge2 = newHost(t, "hub").serve(Options{}), newHost(t, "edge1").serve(Options{}), newHost(t, "edge2").serve(Options{})
	cable(s.hub, "eth0", "192.0.2.1/24", s.router, "hub", "192.0.2.254/24")
	cable(s.nat1, "wan", "198.51.100.1/24", s.router, "nat1", "198.51.100.254/24")
	cable(s.nat2, "wan", "203.0.113.1/24", s.router, "nat2", "203.0.113.254/24")
	cable(s.edge1, "eth0", "192.168.1.2/24", s.nat1, "lan", "192.168.1.1/24")
	cable(s.edge2, "eth0", "192.168.2.2/24", s.nat2, "lan", "192.168.2.1/24")
	for h, via := range map[*host]string{
		s.hub: "192.0.2.254", s.nat1: "198.51.100.254", s.nat2: "203.0.113.254", s.edge1: "192.168.1.1", s.edge2: "192.168.2.1",
	} {
		h.route("0.0.0.0/0", "", via)
	}
	s.nat1.nft(natRules)
	s.nat2.nft(natRules)
	s.router.nft(routerRules)
	for h, pod := range map[*host]string{
		s.router: "10.9.9.9/32", s.nat1: "10.9.9.9/32", s.nat2: "10.9.9.9/32",
		s.hub: "10.0.0.1/32", s.edge1: "10.1.0.1/32", s.edge2: "10.2.0.1/32",
	} {
		h.pod(pod)
	}
	s.edge1.awaitPing("192.0.2.1")
	s.edge2.awaitPing("192.0.2.1")
	s.planHub = plan("hub", "192.0.2.1", peerAt("edge1", s.edge1.key(), "", 0, "10.1.0.0/24"), peerAt("edge2", s.edge2.key(), "", 0, "10.2.0.0/24"))
	s.plan1 = plan("edge1", "192.168.1.2", peerAt("hub", s.hub.key(), "192.0.2.1:4500", 25, "10.0.0.0/24", "10.2.0.0/24"))
	s.plan2 = plan("edge2", "192.168.2.2", peerAt("hub", s.hub.key(), "192.0.2.1:4500", 25, "10.0.0.0/24", "10.1.0.0/24"))
	s.hub.apply(s.planHub, -1)
	s.edge1.apply(s.plan1, -1)
	s.edge2.apply(s.plan2, -1)
	s.routes()
	s.edge1.route("10.0.0.0/8", DefaultDevice, "")
	s.edge2.route("10.0.0.0/8", DefaultDevice, "")
	return s
}

func (s *star) routes() { s.hub.route("10.0.0.0/8", DefaultDevice, "") }

func (h *host) nft(rules string) { h.run("sh", "-c", "nft -f - <<'END'\n"+rules+"\nEND") }

func TestTwoEdgesBehindNATReachOneAnotherThroughTheHub(t *testing.T) {
	s := newStar(t)
	s.edge2.echo("10.2.0.1:7")
	s.edge1.awaitEcho("10.1.0.1", "10.2.0.1:7", waitLong)
	s.edge1.run("ping", "-c", "3", "-i", "0.01", "-W", "5", "-I", "10.1.0.1", "10.2.0.1")
	for h, p := range map[*host]*topology.Plan{s.hub: s.planHub, s.edge1: s.plan1, s.edge2: s.plan2} {
		h.apply(p, 0)
	}
	for node, address := range map[string]string{"edge1": "198.51.100.1", "edge2": "203.0.113.1"} {
		if got := s.hub.status()[node].Endpoint.Addr().String(); got != address {
			t.Errorf("the hub sees %s at %s, want %s", node, got, address)
		}
	}
	if got := s.router.run("nft", "list", "counter", "ip", "public", "private"); !strings.Contains(got, "packets 0") {
		t.Errorf("a private address got onto the public network: %s", got)
	}
}

func TestALearnedEndpointThatMovesIsFollowedAndNeverWritten(t *testing.T) {
	s := newStar(t)
	s.edge2.echo("10.2.0.1:7")
	s.edge1.awaitEcho("10.1.0.1", "10.2.0.1:7", waitLong)
	s.hub.apply(s.planHub, 0)
	old, handshake := s.hub.status()["edge1"].Endpoint, s.hub.status()["edge1"].LastHandshake
	s.nat1.run("nft", "flush", "chain", "ip", "nat", "out")
	s.nat1.run("nft", "add", "rule", "ip", "nat", "out", "oifname", "wan", "ip", "protocol", "udp", "masquerade", "to", ":40000")
	s.nat1.run("conntrack", "-D", "-p", "udp")
	s.edge1.awaitEcho("10.1.0.1", "10.2.0.1:7", waitLong)
	for range 10 {
		s.hub.apply(s.planHub, 0)
	}
	now := s.hub.status()["edge1"]
	if now.Endpoint == old || now.Endpoint != netip.MustParseAddrPort("198.51.100.1:40000") || !now.LastHandshake.Equal(handshake) {
		t.Errorf("edge1 was at %v and is at %v, handshakes %v and %v", old, now.Endpoint, handshake, now.LastHandshake)
	}
}

func TestAHubWhoseProcessIsKilledFindsItsEdgesAgainBeforeTheySpeak(t *testing.T) {
	needsUserspace(t)
	s := newStar(t)
	s.edge2.echo("10.2.0.1:7")
	s.edge1.awaitEcho("10.1.0.1", "10.2.0.1:7", waitLong)
	s.hub.apply(s.planHub, 0)
	old := s.hub.process()
	if err := syscall.Kill(old.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	s.hub.awaitEnd(old)
	began := time.Now()
	s.hub.restart() // the agent died too
	s.hub.apply(s.planHub, -1)
	s.hub.awaitHandshake("edge1")
	s.hub.awaitHandshake("edge2")
	t.Logf("both edges are back %v after the process died", time.Since(began))
	s.routes()
	s.edge1.awaitEcho("10.1.0.1", "10.2.0.1:7", waitLong)
	s.hub.apply(s.planHub, 0)
}

// sink counts the datagrams that arrive on addr until the test ends.
func (h *host) sink(addr string) *atomic.Int64 {
	h.t.Helper()
	pc := h.listen(addr)
	var arrived atomic.Int64
	var wg sync.WaitGroup
	wg.Go(func() {
		buf := make([]byte, 64)
		for {
			if _, _, err := pc.ReadFrom(buf); err != nil {
				return
			}
			arrived.Add(1)
		}
	})
	h.t.Cleanup(func() {
		pc.Close()
		wg.Wait()
	})
	return &arrived
}

// stream sends a datagram every millisecond until stop is called, which returns how many were sent. No more than a few
// are under way at a time, so that a busy machine loses none in a queue.
func (h *host) stream(from, to string, arrived func() int64) (stop func() (sent int64)) {
	h.t.Helper()
	var c *net.UDPConn
	h.do(func() (err error) {
		c, err = net.DialUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(from)), net.UDPAddrFromAddrPort(netip.MustParseAddrPort(to)))
		return err
	})
	ctx, cancel := context.WithCancel(context.Background())
	var sent int64
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for ctx.Err() == nil {
			if sent < arrived()+64 {
				if _, err := c.Write([]byte("datagram")); err != nil {
					h.t.Errorf("send to %s: %v", to, err)
					return
				}
				sent++
			}
			<-tick.C
		}
	})
	return func() int64 {
		cancel()
		wg.Wait()
		c.Close()
		return sent
	}
}

func TestMovingAPrefixBetweenPeersAndChangingOthersLosesNoPacket(t *testing.T) {
	s := newStar(t)
	for _, e := range []*host{s.edge1, s.edge2} {
		e.pod("10.7.0.1/32") // stands behind both edges
		e.echo("10.7.0.1:7")
	}
	at := func(edge string, more ...topology.Peer) *topology.Plan {
		p1, p2 := peerAt("edge1", s.edge1.key(), "", 0, "10.1.0.0/24"), peerAt("edge2", s.edge2.key(), "", 0, "10.2.0.0/24")
		moved := netip.MustParsePrefix("10.7.0.0/24")
		if edge == "edge1" {
			p1.Prefixes = append(p1.Prefixes, moved)
		} else {
			p2.Prefixes = append(p2.Prefixes, moved)
		}
		return plan("hub", "192.0.2.1", append([]topology.Peer{p1, p2}, more...)...)
	}
	for _, edge := range []string{"edge2", "edge1"} {
		s.hub.apply(at(edge), -1)
		s.hub.awaitEcho("10.0.0.1", "10.7.0.1:7", waitLong)
	}
	before := s.hub.status()
	// Requests are counted, not answers: of those under way the hub rightly drops what comes from the old owner.
	moved1, moved2, steady := s.edge1.sink("10.7.0.1:9"), s.edge2.sink("10.7.0.1:9"), s.edge2.sink("10.2.0.1:9")
	moved := func() int64 { return moved1.Load() + moved2.Load() }
	stopMoving := s.hub.stream("10.0.0.1:1001", "10.7.0.1:9", moved)
	stopSteady := s.hub.stream("10.0.0.1:1002", "10.2.0.1:9", steady.Load)
	for i := range 20 {
		s.hub.apply(at("edge2", peerAt("third", newPublicKey(t), "192.0.2.99:4500", i, "10.3.0.0/24", fmt.Sprintf("10.4.%d.0/24", i))), -1)
		s.hub.apply(at("edge1"), -1)
	}
	sentMoving, sentSteady := stopMoving(), stopSteady()
	arrived := func() bool { return moved() == sentMoving && steady.Load() == sentSteady }
	if err := detached.Await(t.Context(), waitLong, arrived); err != nil {
		t.Errorf("of %d datagrams to the moving prefix %d and %d arrived, of %d to the other %d",
			sentMoving, moved1.Load(), moved2.Load(), sentSteady, steady.Load())
	}
	if moved1.Load() == 0 || moved2.Load() == 0 {
		t.Errorf("the prefix has not moved: %d and %d datagrams", moved1.Load(), moved2.Load())
	}
	for node, now := range s.hub.status() {
		if !now.LastHandshake.Equal(before[node].LastHandshake) {
			t.Errorf("a handshake with %s at %v, the last one was at %v", node, now.LastHandshake, before[node].LastHandshake)
		}
	}
}
