package wireguard

import (
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"regexp"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/ravencni/raven/pkg/topology"
	"github.com/ravencni/raven/pkg/tunnel"
)

// TestAHundredPeersThatDialOneGateway has a hub that knows no peer's address, and a hundred devices behind one NAT that dial
// it, each with a key and a range of its own.
func TestAHundredPeersThatDialOneGateway(t *testing.T) {
	hub, nat, edges := newHost(t, "hub").serve(Options{}), newHost(t, "nat"), newHost(t, "edges")
	cable(hub, "eth0", "192.0.2.1/24", nat, "wan", "192.0.2.254/24")
	cable(edges, "eth0", "192.168.1.2/24", nat, "lan", "192.168.1.1/24")
	edges.route("0.0.0.0/0", "", "192.168.1.1")
	nat.pod("10.9.9.9/32")
	nat.nft(natRules)
	edges.awaitPing("192.0.2.1")

	const peers = 100
	var keys []wgtypes.Key
	var all []topology.Peer
	for n := range peers {
		key, err := wgtypes.GeneratePrivateKey()
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, key)
		all = append(all, peerAt(fmt.Sprintf("edge-%03d", n), key.PublicKey().String(), "", 0, fmt.Sprintf("10.100.%d.0/24", n)))
	}
	with := func(peers []topology.Peer) *topology.Plan { return plan("hub", "192.0.2.1", peers...) }
	hub.apply(with(nil), -1)
	t.Logf("no peers: the device's process has %s", hub.resident())
	before := 0
	for _, count := range []int{peers / 2, peers} {
		began := time.Now()
		hub.apply(with(all[:count]), count-before)
		told := time.Since(began)
		for _, key := range keys[before:count] {
			edges.dialAs(key, hub.key())
		}
		hub.awaitUp(count)
		t.Logf("%d peers: %d writes in %v, all up after %v, the device's process has %s", count, count-before, told.Round(time.Millisecond),
			time.Since(began).Round(time.Millisecond), hub.resident())
		before = count
	}

	// One of them has another prefix, and one goes: the others' tunnels stay what they are.
	old := hub.handshakes()
	all[7].Prefixes = append(all[7].Prefixes, peerAt("", "", "", 0, "10.200.7.0/24").Prefixes...)
	began := time.Now()
	hub.apply(with(all), 1)
	t.Logf("a prefix of one of %d peers: one write in %v", peers, time.Since(began).Round(time.Millisecond))
	gone := all[42].Node
	hub.apply(with(append(append([]topology.Peer{}, all[:42]...), all[43:]...)), 1)
	now := hub.handshakes()
	if _, still := now[gone]; still || len(now) != peers-1 {
		t.Errorf("there are %d peers, %s among them: %t", len(now), gone, still)
	}
	for node, at := range old {
		if node != gone && !now[node].Equal(at) {
			t.Errorf("%s shook hands at %v and then at %v", node, at, now[node])
		}
	}
}

// awaitUp waits until so many peers are up.
func (h *host) awaitUp(count int) {
	h.t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for began := time.Now(); ; <-tick.C {
		up := 0
		for _, s := range h.status() {
			if s.State == tunnel.StateUp {
				up++
			}
		}
		if up == count {
			return
		}
		if time.Since(began) > waitLong {
			h.t.Fatalf("%d of %d peers are up", up, count)
		}
	}
}

// handshakes are the times of the last ones, by peer.
func (h *host) handshakes() map[string]time.Time {
	all := map[string]time.Time{}
	for node, s := range h.status() {
		all[node] = s.LastHandshake
	}
	return all
}

var residentSize = regexp.MustCompile(`VmRSS:\s*(\d+ kB)`)

// resident is the memory that the userspace device's process occupies.
func (h *host) resident() string {
	h.t.Helper()
	if kernelToo {
		return "no process"
	}
	p, err := recordedProcess(h.opts.StateDir)
	if err != nil || p == nil {
		h.t.Fatalf("the device's process: %v, %v", p, err)
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.PID))
	if err != nil {
		h.t.Fatal(err)
	}
	if m := residentSize.FindSubmatch(text); m != nil {
		return string(m[1])
	}
	return "no known size"
}

// dialAs runs one more device in this host, which dials the hub and keeps its mapping open, until the test ends.
func (h *host) dialAs(key wgtypes.Key, hub string) {
	h.t.Helper()
	hubKey, err := wgtypes.ParseKey(hub)
	if err != nil {
		h.t.Fatal(err)
	}
	nothing := make(noTUN)
	d := device.NewDevice(nothing, conn.NewStdNetBind(), device.NewLogger(device.LogLevelSilent, ""))
	h.t.Cleanup(d.Close)
	h.do(func() error { // its sockets belong to the thread's namespace
		return errors.Join(
			d.IpcSet(fmt.Sprintf("private_key=%s\npublic_key=%s\nendpoint=192.0.2.1:4500\npersistent_keepalive_interval=25\nallowed_ip=10.0.0.0/24\n",
				hex.EncodeToString(key[:]), hex.EncodeToString(hubKey[:]))),
			d.Up())
	})
}

// noTUN is a device without packets.
type noTUN chan tun.Event

func (noTUN) File() *os.File { return nil }
func (n noTUN) Read([][]byte, []int, int) (int, error) {
	for range n { // until it is closed
	}
	return 0, os.ErrClosed
}
func (noTUN) Write(all [][]byte, _ int) (int, error) { return len(all), nil }
func (noTUN) MTU() (int, error)                      { return device.DefaultMTU, nil }
func (noTUN) Name() (string, error)                  { return "none", nil }
func (n noTUN) Events() <-chan tun.Event             { return n }
func (n noTUN) Close() error                         { close(n); return nil }
func (noTUN) BatchSize() int                         { return 1 }

var _ tun.Device = noTUN(nil)
