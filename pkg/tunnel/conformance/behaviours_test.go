package conformance

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/ravencni/raven/pkg/topology"
	"github.com/ravencni/raven/pkg/tunnel"
)

func reachesAll(t *testing.T, w *world) {
	w.east.awaitPods(w.hub)
	w.hub.awaitPods(w.west)
	w.east.awaitPods(w.west)
	w.west.awaitPods(w.east)
}

func writesOnce(t *testing.T, w *world) {
	for _, h := range w.all() {
		before := h.devices()
		for range 3 {
			if n := h.apply(); n != 0 {
				t.Errorf("%s: another Apply made %d writes", h.name, n)
			}
		}
		if after := h.devices(); !slices.Equal(before, after) {
			t.Errorf("%s: the devices were %+v and are %+v", h.name, before, after)
		}
	}
}

func makesADevice(t *testing.T, w *world) {
	for _, h := range w.all() {
		if len(h.devices()) == 0 {
			t.Errorf("%s has no device", h.name)
		}
		for _, d := range h.devices() {
			h.do(func() error {
				l, err := netlink.LinkByIndex(d.Index)
				if err != nil {
					return err
				}
				if a := l.Attrs(); a.Name != d.Name || a.MTU != d.MTU || d.MTU != h.plan.Tunnel.MTU || d.Ethernet {
					t.Errorf("%s: %+v is device %s with MTU %d, planned is %d", h.name, d, a.Name, a.MTU, h.plan.Tunnel.MTU)
				}
				own, err := netlink.AddrList(l, netlink.FAMILY_V4)
				if len(own) != 1 || own[0].IPNet.String() != h.plan.NodeIP4.String()+"/32" {
					t.Errorf("%s: %s has the addresses %v, want the node's alone", h.name, d.Name, own)
				}
				return err
			})
		}
	}
}

// carriesItsMTU: a packet as long as the device takes goes through, and the underlay need not cut it.
func carriesItsMTU(t *testing.T, w *world) {
	const headers = 28 // IPv4 and ICMP
	size := fmt.Sprint(w.hub.plan.Tunnel.MTU - headers)
	frames, err := w.east.capture("wire", func() {
		if err := w.east.pingOnce(w.east.pods[0].String(), w.hub.pods[0].String(), "-M", "do", "-s", size); err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range frames {
		if len(f) > 14+20 && f[12] == 8 && f[13] == 0 && binary.BigEndian.Uint16(f[14+6:])&0x3fff != 0 {
			t.Fatal("the packet crossed the wire in fragments")
		}
	}
}

func tellsHowPeersAre(t *testing.T, w *world) {
	before := w.hub.status()
	if err := w.east.pingOnce(w.east.pods[0].String(), w.hub.pods[0].String(), "-s", "1000"); err != nil {
		t.Fatal(err)
	}
	w.hub.await("the bytes to be counted", func() error {
		if s := w.hub.status()["east"]; s.RxBytes < before["east"].RxBytes+1000 || s.TxBytes < before["east"].TxBytes+1000 {
			return fmt.Errorf("status was %+v and is %+v", before["east"], s)
		}
		return nil
	})
	for edge, address := range map[string]string{"east": "198.51.1.2", "west": "198.51.2.2"} {
		s := w.hub.status()[edge]
		if s.State != tunnel.StateUp || s.Message != "" || s.Endpoint.Addr().String() != address || s.LastHandshake.IsZero() {
			t.Errorf("the hub says of %s: %+v", edge, s)
		}
	}
	if s := w.east.status(); len(s) != 1 || s["hub"].State != tunnel.StateUp || s["hub"].Endpoint != netip.MustParseAddrPort("198.51.1.1:4500") {
		t.Errorf("east says %+v", s)
	}
}

func showsNothing(t *testing.T, w *world) {
	const pattern = "726176656e2d736563726574"
	frames, err := w.east.capture("wire", func() {
		for i := range w.east.pods {
			if err := w.east.pingOnce(w.east.pods[i].String(), w.hub.pods[i].String(), "-p", pattern, "-s", "200"); err != nil {
				t.Error(err)
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	carried := 0
	for _, f := range frames {
		if bytes.Contains(f, []byte("raven-secret")) {
			t.Errorf("what pods say can be read on the wire: % x", f)
		}
		if len(f) < 14+20+8 || f[12] != 8 || f[13] != 0 {
			continue // ARP and neighbour discovery
		}
		if f[14+9] != 17 || binary.BigEndian.Uint16(f[14+20:]) != mainPort && binary.BigEndian.Uint16(f[14+22:]) != mainPort {
			t.Errorf("a packet that is not the tunnel's crosses the wire: % x", f)
		}
		if len(f) > 200 {
			carried++
		}
	}
	if carried < 4 {
		t.Errorf("%d packets were seen, and there were 2 requests and 2 answers", carried)
	}
}

// mostLoss of traffic there may be where prefixes change; only IPsec in user space loses any (docs/design/ipsec.md).
const mostLoss = 300 * time.Millisecond

func (w *world) lost(t *testing.T, what string, stop func() (lost, of int)) {
	t.Helper()
	lost, of := stop()
	t.Logf("%s: %d of %d packets lost", what, lost, of)
	most := 0
	if w.Name == "ipsec-userspace" {
		most = int(mostLoss / pace())
	}
	if lost > most {
		t.Errorf("%s: the others' traffic lost %d of %d packets", what, lost, of)
	}
}

func takesAPrefixIn(t *testing.T, w *world) {
	prefixes := []netip.Prefix{netip.MustParsePrefix("10.61.0.0/24"), netip.MustParsePrefix("fd00:61::/64")}
	pods := [2]netip.Addr{prefixes[0].Addr().Next(), prefixes[1].Addr().Next()}
	for _, pod := range pods {
		w.east.pod(pod)
	}
	stop := w.west.pinging(w.hub)
	old := w.east.plan.LocalPrefixes
	set := func(local []netip.Prefix) {
		w.east.plan.LocalPrefixes = local
		w.hub.plan.Tunnel.Peers[0].Prefixes = local
		w.west.plan.Tunnel.Peers[0].Prefixes = slices.Concat(w.hub.plan.LocalPrefixes, local)
		for _, h := range w.all() {
			h.apply()
		}
	}
	set(slices.Concat(old, prefixes))
	for _, from := range []*host{w.hub, w.west} {
		for i, pod := range pods {
			from.await("an answer from a pod of the new prefix", func() error { return from.pingOnce(from.pods[i].String(), pod.String()) })
		}
	}
	set(old)
	w.east.awaitPods(w.west)
	w.lost(t, "a prefix came and went", stop)
}

// outlivesItsAgent: an agent that starts anew, with nothing in its memory, finds all as it should be.
func outlivesItsAgent(t *testing.T, w *world) {
	stop := w.east.pinging(w.west)
	for _, h := range w.all() {
		before := h.status()
		h.newDriver()
		if n := h.apply(); n != 0 {
			t.Errorf("%s: a new agent made %d writes", h.name, n)
		}
		for node, s := range h.status() {
			if s.State != tunnel.StateUp || before[node].LastHandshake.Sub(s.LastHandshake).Abs() > time.Second {
				t.Errorf("%s: the tunnel to %s was %+v and is %+v", h.name, node, before[node], s)
			}
		}
	}
	if lost, of := stop(); lost > 0 {
		t.Errorf("new agents cost %d of %d packets", lost, of)
	}
}

func dropsOnePeer(t *testing.T, w *world) {
	stop := w.east.pinging(w.hub)
	both := w.hub.plan.Tunnel.Peers
	w.hub.plan.Tunnel.Peers = both[:1]
	w.hub.apply()
	if s := w.hub.status(); len(s) != 1 || s["east"].State != tunnel.StateUp {
		t.Errorf("the hub still says %+v", s)
	}
	w.west.await("the hub to take no more from west", func() error {
		if w.west.pingOnce(w.west.pods[0].String(), w.hub.pods[0].String()) == nil {
			return errors.New("it still answers")
		}
		return nil
	})
	w.hub.plan.Tunnel.Peers = both
	w.hub.apply()
	t.Logf("west is back after %v", w.west.awaitPods(w.hub))
	w.lost(t, "a peer went and came", stop)
}

func suffersABadPeer(t *testing.T, w *world) {
	stop := w.east.pinging(w.west)
	good := w.hub.plan.Tunnel.Peers
	w.hub.plan.Tunnel.Peers = append(slices.Clone(good), topology.Peer{
		Region: "bad", Node: "bad", Endpoint: netip.MustParseAddrPort("0.0.0.0:4500"), Prefixes: []netip.Prefix{netip.MustParsePrefix("10.66.0.0/24")},
	})
	for range 2 {
		if _, err := w.hub.tryApply(); err == nil || !strings.Contains(err.Error(), "bad") {
			t.Errorf("the error does not name the bad peer: %v", err)
		}
	}
	for node, s := range w.hub.status() {
		if (s.State == tunnel.StateUp) == (node == "bad") {
			t.Errorf("with a bad peer %s is %+v", node, s)
		}
	}
	w.hub.plan.Tunnel.Peers = good
	w.hub.apply()
	if lost, of := stop(); lost > 0 {
		t.Errorf("a bad peer cost others %d of %d packets", lost, of)
	}
}

func saysWhoDoesNotAnswer(t *testing.T, w *world) {
	stop := w.east.pinging(w.west)
	good := w.hub.plan.Tunnel.Peers
	w.hub.plan.Tunnel.Peers = append(slices.Clone(good), topology.Peer{
		Region: "silent", Node: "silent", PublicKey: "IHNpbGVudCBzaWxlbnQgc2lsZW50IHNpbGVudCBzaWw=",
		Endpoint: netip.MustParseAddrPort("198.51.1.77:4500"), Prefixes: []netip.Prefix{netip.MustParsePrefix("10.77.0.0/24")},
	})
	w.hub.apply()
	w.hub.await("a word about the silent peer", func() error {
		if s := w.hub.status()["silent"]; s.State == tunnel.StateUp || !strings.Contains(s.Message, "198.51.1.77:4500") && !strings.Contains(s.Message, "not answer") {
			return fmt.Errorf("the status is %+v", s)
		}
		return nil
	})
	w.hub.plan.Tunnel.Peers = good
	w.hub.apply()
	if lost, of := stop(); lost > 0 {
		t.Errorf("a silent peer cost others %d of %d packets", lost, of)
	}
}

func movesToAnotherPort(t *testing.T, w *world) {
	for _, port := range []uint16{4600, mainPort} {
		w.hub.plan.Tunnel.ListenPort = int(port)
		for n, edge := range []*host{w.east, w.west} {
			edge.plan.Tunnel.Peers[0].Endpoint = netip.MustParseAddrPort(fmt.Sprintf("198.51.%d.1:%d", n+1, port))
		}
		for _, h := range w.all() {
			h.apply()
		}
		for _, edge := range []*host{w.east, w.west} {
			t.Logf("at port %d %s reaches the hub after %v", port, edge.name, edge.awaitPods(w.hub))
			want := edge.plan.Tunnel.Peers[0].Endpoint
			edge.await("the hub at its new port", func() error {
				if got := edge.status()["hub"].Endpoint; got != want {
					return fmt.Errorf("it is at %v, want %v", got, want)
				}
				return nil
			})
		}
	}
}

// comesBack: what holds the tunnels is killed, and the next Apply mends it.
func comesBack(t *testing.T, w *world) {
	if w.process == "" {
		t.Skip("no process holds the tunnels")
	}
	killed := w.hub.kill()
	w.hub.await("the dead process to be missed", func() error {
		if _, err := w.hub.tryApply(); err != nil {
			return err
		}
		if now := w.hub.processes(); len(now) == 0 || slices.Equal(now, killed) {
			return fmt.Errorf("the processes are %v", now)
		}
		return nil
	})
	for _, edge := range []*host{w.east, w.west} {
		t.Logf("%s is back after %v", edge.name, edge.awaitPods(w.hub))
	}
	w.east.awaitPods(w.west)
}

func endsWithoutAPlan(t *testing.T, w *world) {
	was := w.west.plan
	w.west.plan = &topology.Plan{Node: "west", Region: "west", Role: topology.RoleMember, NodeIP4: was.NodeIP4}
	stop := w.east.pinging(w.hub)
	if n := w.west.apply(); n == 0 || len(w.west.devices()) > 0 {
		t.Errorf("%d writes, and the devices are %+v", n, w.west.devices())
	}
	w.west.gone(t)
	if n := w.west.apply(); n != 0 {
		t.Errorf("another Apply of nothing made %d writes", n)
	}
	w.west.plan = was
	w.west.apply()
	w.west.awaitPods(w.hub)
	w.west.awaitPods(w.east)
	if lost, of := stop(); lost > 0 {
		t.Errorf("a peer that ended cost others %d of %d packets", lost, of)
	}
}

func cleansUp(t *testing.T, w *world) {
	for _, h := range w.all() {
		for range 2 {
			h.do(func() error { return h.driver.Cleanup(t.Context()) })
		}
		h.gone(t)
		left, err := filepath.Glob(filepath.Join(h.dir, "*", "*"))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range left {
			if !strings.HasSuffix(name, ".key") {
				t.Errorf("%s: %s is left", h.name, name)
			}
		}
		h.apply()
	}
	for _, edge := range []*host{w.east, w.west} {
		edge.awaitPods(w.hub)
	}
}
