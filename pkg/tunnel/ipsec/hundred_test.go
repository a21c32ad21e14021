package ipsec

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"testing"
	"time"

	"github.com/ravencni/raven/pkg/tunnel/ipsec/vici"
	testns "github.com/ravencni/raven/test/netns"
)

// edgePrefix is the pods' range of the edge with a number.
func edgePrefix(n int) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 100, byte(n), 0}), 24)
}

// TestAHundredPeersThatDialOneGateway has a hub that knows no peer's address, as where NATs hide them, and one charon that
// plays all of them, each with an identity and a range of its own.
func TestAHundredPeersThatDialOneGateway(t *testing.T) {
	needsCharon(t)
	testns.Run(t, func(t *testing.T) {
		const peers = 100
		hub, edges, want, wantEdges := pair(t)
		hub.name = "hub"
		want.Peers, wantEdges.Peers, wantEdges.Addresses = nil, nil, nil
		for n := range peers {
			wantEdges.Addresses = append(wantEdges.Addresses, first(edgePrefix(n)))
			want.Peers = append(want.Peers, DesiredPeer{Node: fmt.Sprintf("edge-%03d", n), Prefixes: []netip.Prefix{edgePrefix(n)}})
		}
		hub.start()
		edges.start()
		edges.put(wantEdges)

		before := 0
		for _, count := range []int{peers / 2, peers} {
			some := want
			some.Peers = want.Peers[:count]
			began := time.Now()
			changes, err := hub.apply(t.Context(), withNode(some, "hub"))
			if err != nil {
				t.Fatal(err)
			}
			told := time.Since(began)
			for n := before; n < count; n++ {
				edges.dialAs(n, want.Peers[n], &wantEdges)
			}
			hub.await(fmt.Sprintf("%d tunnels", count), func() error {
				if up := hub.tunnels(); len(up) != count {
					return fmt.Errorf("there are %d", len(up))
				}
				return nil
			})
			t.Logf("%d peers: %d writes in %v, all up after %v, charon has %s", count, changes, told.Round(time.Millisecond),
				time.Since(began).Round(time.Millisecond), hub.resident())
			if byKernel() {
				hub.awaitStates(statesOf(count))
			}
			before = count
		}

		// One of them has another prefix, and one goes: the others' tunnels stay what they are.
		old := hub.tunnels()
		began := time.Now()
		changed := want
		changed.Peers = slices.Clone(want.Peers)
		changed.Peers[7].Prefixes = append(slices.Clone(changed.Peers[7].Prefixes), netip.MustParsePrefix("10.200.7.0/24"))
		changes, err := hub.apply(t.Context(), withNode(changed, "hub"))
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("a prefix of one of %d peers: %d writes in %v", peers, changes, time.Since(began).Round(time.Millisecond))
		if changes > 1 {
			t.Errorf("one peer's change cost %d writes", changes)
		}
		changed.Peers = slices.Delete(changed.Peers, 42, 43)
		most := 2 // what charon is told
		if byKernel() {
			most += 1 + 2 + 6 // its device, its states, its policies of both families
		}
		if changes, err = hub.apply(t.Context(), withNode(changed, "hub")); err != nil || changes > most {
			t.Errorf("one peer less cost %d writes, %v", changes, err)
		}
		hub.await("one tunnel to go", func() error {
			if up := hub.tunnels(); len(up) >= peers {
				return fmt.Errorf("there are %d", len(up))
			}
			return nil
		})
		if byKernel() {
			left := statesOf(peers)
			delete(left, firstIfID+42)
			hub.awaitStates(left)
		}
		now := hub.tunnels()
		for node, id := range old {
			renewed := node == "edge-007" && !byKernel() // whose prefixes a tunnel of charon's own depends on
			if !renewed && node != "edge-042" && now[node] != id {
				t.Errorf("the tunnel to %s was number %q and is %q", node, id, now[node])
			}
		}
	})
}

func withNode(want Desired, node string) Desired {
	want.Node = node
	return want
}

// byKernel says whether it is the kernel that encrypts in these tests.
func byKernel() bool {
	chosen, _, err := ESP(os.Getenv("RAVEN_TEST_IPSEC_ESP")).resolve()
	return err == nil && chosen == ESPKernel
}

// statesOf are two states for each of the first peers, by if_id.
func statesOf(peers int) map[uint32]int {
	counts := map[uint32]int{}
	for n := range peers {
		counts[firstIfID+uint32(n)] = 2
	}
	return counts
}

// dialAs makes this gateway's charon one more peer of the hub's, with a number of its own.
func (g *gateway) dialAs(number int, p DesiredPeer, want *Desired) {
	g.t.Helper()
	ctx := context.Background()
	v, err := vici.Dial(ctx, filepath.Join(g.dir, viciSocket))
	if err != nil {
		g.t.Fatal(err)
	}
	defer v.Close()
	at := terms{local: insideAddresses, port: natPort}
	if byKernel() {
		// Without a device: what these peers send themselves is nobody's question.
		at = terms{port: want.Port, number: func(string) uint32 { return firstIfID + uint32(number) }}
	}
	hub := DesiredPeer{Node: "hub", Endpoint: endpoint("198.51.100.1:4500"), Dial: true, Prefixes: prefixes("10.1.0.0/16")}
	as := withNode(*want, p.Node)
	m := connection(at, &as, hub).Section("hub")
	for _, call := range []struct {
		command string
		request *vici.Message
	}{
		{"load-conn", new(vici.Message).SetSection(p.Node, m)},
		{"initiate", new(vici.Message).Set("child", at.childName(hub)).Set("ike", p.Node).Set("timeout", "30000")},
	} {
		if _, err := v.Call(ctx, call.command, call.request); err != nil {
			g.t.Fatalf("%s as %s: %v", call.command, p.Node, err)
		}
	}
}

// tunnels are the numbers of the installed tunnels, by peer.
func (g *gateway) tunnels() map[string]string {
	g.t.Helper()
	ctx := context.Background()
	v, err := vici.Dial(ctx, filepath.Join(g.dir, viciSocket))
	if err != nil {
		g.t.Fatal(err)
	}
	defer v.Close()
	all, err := list(ctx, v)
	if err != nil {
		g.t.Fatal(err)
	}
	up := map[string]string{}
	for node, runs := range all {
		for _, ike := range runs {
			for _, ch := range ike.children {
				if ch.state == "INSTALLED" {
					up[node] += fmt.Sprint(" ", ch.number)
				}
			}
		}
	}
	return up
}

var residentSize = regexp.MustCompile(`VmRSS:\s*(\d+ kB)`)

// resident is the memory that charon occupies.
func (g *gateway) resident() string {
	g.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", g.charonPID()))
	if err != nil {
		g.t.Fatal(err)
	}
	if m := residentSize.FindSubmatch(text); m != nil {
		return string(m[1])
	}
	return "no known size"
}
