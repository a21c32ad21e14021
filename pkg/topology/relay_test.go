package topology

import (
	"fmt"
	"slices"
	"testing"

	"github.com/ravencni/raven/pkg/apis/raven/v1beta1"
)

// natted is a cluster of regions behind NAT and hubs, one node each.
func natted(regions, hubs int) *cluster {
	c := newCluster()
	for i := range regions {
		name := fmt.Sprintf("edge-%02d", i)
		c.gateway(name, name+"-1", "")
		c.node(name+"-1", name, []string{fmt.Sprintf("172.16.%d.1", i)}, []string{fmt.Sprintf("10.1.%d.0/24", i)})
	}
	for i := range hubs {
		addHub(c, i)
	}
	return c
}

func addHub(c *cluster, i int) {
	name := fmt.Sprintf("hub-%d", i)
	c.gateway(name, name+"-1", fmt.Sprintf("203.0.113.%d", i+1))
	c.node(name+"-1", name, []string{fmt.Sprintf("192.168.%d.1", i)}, []string{fmt.Sprintf("10.2.%d.0/24", i)})
}

// relayOf is the region through which one region's gateway reaches another.
func relayOf(c *cluster, from, to string) string {
	p := c.plan(from + "-1")
	for _, peer := range p.Tunnel.Peers {
		if slices.Contains(peer.Relays, to) {
			return peer.Region
		}
	}
	return ""
}

func relays(c *cluster, regions int) map[string]string {
	out := make(map[string]string)
	for a := range regions {
		for b := range regions {
			if a != b {
				from, to := fmt.Sprintf("edge-%02d", a), fmt.Sprintf("edge-%02d", b)
				out[from+" "+to] = relayOf(c, from, to)
			}
		}
	}
	return out
}

func TestRegionsBehindNATReachOneAnotherThroughHubs(t *testing.T) {
	for hubs := 1; hubs <= 3; hubs++ {
		t.Run(fmt.Sprintf("%d hubs", hubs), func(t *testing.T) {
			c := natted(12, hubs)
			if stopped := consistent(t, c.State); stopped != 0 {
				t.Errorf("%d walks stopped", stopped)
			}
			count := make(map[string]int)
			for a := range 12 {
				for b := range a {
					from, to := fmt.Sprintf("edge-%02d", a), fmt.Sprintf("edge-%02d", b)
					there, back := relayOf(c, from, to), relayOf(c, to, from)
					if there == "" || there != back {
						t.Errorf("%s to %s goes through %q, back through %q", from, to, there, back)
					}
					count[there]++
				}
			}
			// 66 pairs: with three hubs each takes 22 on average; a hub with fewer than 10 would be no spread at all.
			for i := range hubs {
				if n := count[fmt.Sprintf("hub-%d", i)]; n < 10 {
					t.Errorf("hub-%d relays %d of 66 pairs: %v", i, n, count)
				}
			}
		})
	}
}

func TestWithoutAHubRegionsBehindNATAreUnreachableAndSaySo(t *testing.T) {
	p := natted(3, 0).plan("edge-00-1")
	equal(t, "number of peers", 0, len(p.Tunnel.Peers))
	for _, id := range []string{"region/edge-01", "region/edge-02"} {
		if h := hopOf(p, id); h == nil || h.Kind != KindUnreachable {
			t.Errorf("next hop %s: %v", id, h)
		}
	}
	equal(t, "number of problems", 1, len(p.Problems))
	if p.Problems[0].Object != "Gateway/edge-00" || p.Problems[0].Reason != ReasonNoRelay {
		t.Errorf("problems %v", p.Problems)
	}
}

func TestANewNodeOrRegionMovesNoRelay(t *testing.T) {
	before := relays(natted(8, 3), 8)
	c := natted(8, 3)
	c.node("edge-03-2", "edge-03", []string{"172.16.3.2"}, []string{"10.3.0.0/24"})
	c.node("hub-1-2", "hub-1", []string{"192.168.1.2"}, []string{"10.3.1.0/24"})
	c.gateway("another", "another-1", "")
	c.node("another-1", "another", []string{"172.20.0.1"}, []string{"10.3.2.0/24"})
	equal(t, "relays", before, relays(c, 8))
}

func TestANewHubTakesPairsButMovesNoneBetweenOldHubs(t *testing.T) {
	before := relays(natted(10, 2), 10)
	after := relays(natted(10, 3), 10)
	moved := 0
	for pair, hub := range after {
		if hub == before[pair] {
			continue
		}
		moved++
		if hub != "hub-2" {
			t.Errorf("pair %s moved from %s to %s when hub-2 came", pair, before[pair], hub)
		}
	}
	if moved == 0 || moved > len(after)/2 {
		t.Errorf("%d of %d pairs moved to the third hub", moved, len(after))
	}
}

func TestALostHubMovesItsOwnPairsOnly(t *testing.T) {
	before := relays(natted(10, 3), 10)
	c := natted(10, 3)
	c.endpoint("hub-1-1").Status.Tunnels[0].PublicKey = "broken"
	for pair, hub := range relays(c, 10) {
		if hub != before[pair] && before[pair] != "hub-1" || hub == "hub-1" {
			t.Errorf("pair %s moved from %s to %s when hub-1 broke", pair, before[pair], hub)
		}
	}
}

func TestAHubWithAnAddressThatBothEndsCanDialIsPreferred(t *testing.T) {
	c := natted(6, 1)
	c.gateway("a-six", "a-six-1", "2001:db8::1")
	c.node("a-six-1", "a-six", []string{"192.168.6.1", "fd00:6::1"}, []string{"10.2.6.0/24"})
	for pair, hub := range relays(c, 6) {
		if hub != "hub-0" {
			t.Errorf("pair %s of IPv4 regions goes through %s", pair, hub)
		}
	}
	// Where there is no other, it is better than none.
	c.endpoint("hub-0-1").Status.Tunnels[0].PublicKey = "broken"
	if hub := relayOf(c, "edge-00", "edge-01"); hub != "a-six" {
		t.Errorf("the only hub left is not used, but %q", hub)
	}
}

func TestARegionThatCanBeDialledButIsNotExposedDoesNotRelay(t *testing.T) {
	c := natted(2, 1)
	c.gatewayNamed("hub-0").Spec.ExposeType = v1beta1.ExposeNone
	if hub := relayOf(c, "edge-00", "edge-01"); hub != "" {
		t.Errorf("%s relays", hub)
	}
	if !delivered(c.plan("edge-00-1"))["10.2.0.0/24"] {
		t.Error("the region that can be dialled is not reached directly")
	}
}

func TestTwoExposedRegionsDialOneAnotherWithoutKeepalive(t *testing.T) {
	c := natted(0, 2)
	for node, dials := range map[string]string{"hub-0-1": "203.0.113.2:4500", "hub-1-1": "203.0.113.1:4500"} {
		peer := c.plan(node).Tunnel.Peers[0]
		if peer.Endpoint.String() != dials || peer.KeepaliveSeconds != 0 {
			t.Errorf("%s dials %s with keepalive %d", node, peer.Endpoint, peer.KeepaliveSeconds)
		}
	}
	if stopped := consistent(t, c.State); stopped != 0 {
		t.Errorf("%d walks stopped", stopped)
	}
}

func TestThePortToDialIsTheFirstThatIsNamed(t *testing.T) {
	for _, x := range []struct {
		public, port, published, configured int
		want                                uint16
	}{
		{31500, 4501, 4502, 4503, 31500},
		{0, 4501, 4502, 4503, 4501},
		{0, 0, 4502, 4503, 4502},
		{0, 0, 0, 4503, 4503},
		{0, 0, 0, 0, 4500},
		{99999, -1, 0, 0, 4500},
	} {
		c := natted(1, 1)
		e := c.gatewayNamed("hub-0").Status.ActiveEndpoints[0]
		e.PublicPort, e.Port = x.public, x.port
		c.endpoint("hub-0-1").Status.Tunnels[0].Port = x.published
		c.Config.TunnelPort = x.configured
		if got := c.plan("edge-00-1").Tunnel.Peers[0].Endpoint.Port(); got != x.want {
			t.Errorf("%+v: dials port %d", x, got)
		}
	}
}

func TestTheSecondPortIsDialledAndKeptByTheNodesOwnWord(t *testing.T) {
	c := natted(1, 1)
	hub := c.gatewayNamed("hub-0").Status.ActiveEndpoints[0]
	hub.Port, hub.PublicPort = 4501, 31500
	port := &c.endpoint("hub-0-1").Status.Tunnels[0]
	port.Port = 51820
	equal(t, "port to dial", 31500, int(c.plan("edge-00-1").Tunnel.Peers[0].Endpoint.Port()))
	port.Second = true
	equal(t, "port to dial", 51820, int(c.plan("edge-00-1").Tunnel.Peers[0].Endpoint.Port()))
	for choice, want := range map[PortChoice]int{PortKept: 51820, PortMain: 4501, PortSecond: 51820} {
		tunnel := Compile(c.State, "hub-0-1", Local{UnderlayMTU: 1500, Port: choice}).Tunnel
		equal(t, "listening port", want, tunnel.ListenPort)
		equal(t, "second", want == 51820, tunnel.Second)
	}
	hub.Port = 51820
	equal(t, "listening port", 4500, Compile(c.State, "hub-0-1", Local{Port: PortSecond}).Tunnel.ListenPort)
}

func TestTheListeningPortIsTheEndpointsNotThePublicOne(t *testing.T) {
	c := natted(1, 1)
	e := c.gatewayNamed("hub-0").Status.ActiveEndpoints[0]
	e.Port, e.PublicPort = 4501, 31500
	equal(t, "port", 4501, c.plan("hub-0-1").Tunnel.ListenPort)
	e.Port = 0
	c.Config.TunnelPort = 51820
	equal(t, "port", 51820, c.plan("hub-0-1").Tunnel.ListenPort)
}

func TestTheKeyInTheGatewaysStatusServesWhileTheTunnelEndpointIsMissing(t *testing.T) {
	c := natted(1, 1)
	c.Endpoints = nil
	c.gatewayNamed("hub-0").Status.ActiveEndpoints[0].Config = map[string]string{v1beta1.ConfigPublicKey: keyOf("mirrored")}
	equal(t, "key", keyOf("mirrored"), c.plan("edge-00-1").Tunnel.Peers[0].PublicKey)
}

func TestThePlainDriverNeedsNoKeys(t *testing.T) {
	c := natted(2, 1)
	c.Config.Driver = DriverPlain
	c.Endpoints = nil
	if p := c.plan("edge-00-1"); len(p.Problems) != 0 || !delivered(p)["10.1.1.0/24"] {
		t.Errorf("problems %v, prefixes %v", p.Problems, p.Prefixes)
	}
}
