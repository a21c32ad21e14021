package filter

import (
	"strings"
	"testing"

	"github.com/ravencni/raven/pkg/topology"
	"github.com/ravencni/raven/pkg/tunnel"
)

// TestADeviceOfOnePeerTakesThatPeersSourcesOnly has 10.2.0.0/16 behind raven-wg0 and 10.3.0.0/16 behind another device.
func TestADeviceOfOnePeerTakesThatPeersSourcesOnly(t *testing.T) {
	inWorld(t, topology.RoleGateway, func(t *testing.T, w *world) {
		w.node.ip("link add raven-wg1 type veth peer name far1", "link set raven-wg1 up", "link set far1 up",
			"route replace 10.3.0.0/16 dev raven-wg1")
		w.plan.Prefixes = append(w.plan.Prefixes, topology.Prefix{Prefix: pfx("10.3.0.0/16"), Scope: topology.ScopeRemote})
		w.apply(t)
		passes(t, w.remote, "10.3.0.5:7000", "10.1.1.2:7001", w.pod1.listen("10.1.1.2:7001")) // one device for all: it knows the peers

		w.host.TunnelPerPeer = []tunnel.Device{{Name: "raven-wg0", Peer: "north-1"}, {Name: "raven-wg1", Peer: "south-1"}}
		w.host.Tunnel = tunnel.Device{}
		w.apply(t)
		passes(t, w.remote, "10.2.0.5:7000", "10.1.1.2:7002", w.pod1.listen("10.1.1.2:7002"))
		passes(t, w.remote, "[fd10:2::5]:7000", "[fd10:1:1::2]:7002", w.pod1.listen("[fd10:1:1::2]:7002"))
		w.counted(t, CounterWrongRegionSource, 1, func() {
			w.remote.send("10.3.0.5:7000", "10.1.1.2:7003", "one peer in another's name")
		})
		if n := w.apply(t); n != 0 {
			t.Errorf("another apply made %d writes", n)
		}

		// However many peers there are, the rules stay as many.
		before := strings.Count(w.node.run("nft", "list", "table", "inet", TableName), "\n")
		w.host.TunnelPerPeer = append(w.host.TunnelPerPeer, tunnel.Device{Name: "raven-wg2", Peer: "west-1"})
		if n := w.apply(t); n != 0 {
			t.Errorf("one more peer costs %d writes", n)
		}
		if after := strings.Count(w.node.run("nft", "list", "table", "inet", TableName), "\n"); after != before {
			t.Errorf("the table has %d lines, had %d", after, before)
		}
	})
}

// TestWhileARegionSwitchesBothDriversAreAdmitted has the routes lead to another driver's device, of one peer, and packets
// still come by raven-wg0.
func TestWhileARegionSwitchesBothDriversAreAdmitted(t *testing.T) {
	inWorld(t, topology.RoleGateway, func(t *testing.T, w *world) {
		w.node.ip("link add raven-ipsec0 type veth peer name far1", "link set raven-ipsec0 up", "link set far1 up")
		w.host.TunnelPerPeer = []tunnel.Device{{Name: "raven-ipsec0", Peer: "north-1"}}
		w.host.Also, w.host.Tunnel = []tunnel.Device{w.host.Tunnel}, tunnel.Device{}
		w.apply(t)
		w.node.ip("route replace 10.2.0.0/16 dev raven-ipsec0")
		passes(t, w.remote, "10.2.0.5:7000", "10.1.1.2:7001", w.pod1.listen("10.1.1.2:7001")) // peers still use that driver
		w.counted(t, CounterWrongRegionSource, 1, func() {
			w.remote.send("10.66.0.5:7000", "10.1.1.2:7001", "a source of no region")
		})
		text := w.node.run("nft", "list", "table", "inet", TableName)
		if !strings.Contains(text, `iifname "raven-wg0"`) || !strings.Contains(text, `iifname "raven-ipsec*"`) {
			t.Errorf("the table does not judge both drivers' packets:\n%s", text)
		}

		// The traffic goes by that one now, and peers still send by the other.
		w.host.Also, w.host.Tunnel, w.host.TunnelPerPeer = w.host.TunnelPerPeer, w.host.Also[0], nil
		w.apply(t)
		passes(t, w.remote, "10.2.0.5:7000", "10.1.1.2:7002", w.pod1.listen("10.1.1.2:7002"))
	})
}
