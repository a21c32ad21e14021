package wireguard

import (
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
	"pgregory.net/rapid"
)

var (
	testKey     = wgtypes.Key{31: 0x40}
	testScratch = wgtypes.Key{0: 99}
	testNow     = time.Unix(1_700_000_000, 0)
)

func testPeerKey(i int) wgtypes.Key { return wgtypes.Key{0: byte(i + 1)} }

// modelDevice does with a configuration what the kernel and the userspace device do, and checks after each peer that no
// prefix of keep has lost its owner.
type modelDevice struct {
	wgtypes.Device
	keep map[netip.Prefix]bool
}

func (m *modelDevice) configure(t *rapid.T, c wgtypes.Config) {
	if c.PrivateKey != nil {
		m.PrivateKey = *c.PrivateKey
	}
	if c.ListenPort != nil {
		m.ListenPort = *c.ListenPort
	}
	for _, pc := range c.Peers {
		if pc.ReplaceAllowedIPs {
			t.Fatalf("the step %+v leaves a peer without prefixes for a moment", pc)
		}
		m.configurePeer(pc)
		owners := m.owners()
		for p := range m.keep {
			if _, owned := owners[p]; !owned {
				t.Fatalf("prefix %s has no peer after the step %+v", p, pc)
			}
		}
	}
}

func (m *modelDevice) configurePeer(pc wgtypes.PeerConfig) {
	at := slices.IndexFunc(m.Peers, func(p wgtypes.Peer) bool { return p.PublicKey == pc.PublicKey })
	if pc.Remove {
		if at >= 0 {
			m.Peers = slices.Delete(m.Peers, at, at+1)
		}
		return
	}
	if at < 0 {
		if pc.UpdateOnly {
			return
		}
		at = len(m.Peers)
		m.Peers = append(m.Peers, wgtypes.Peer{PublicKey: pc.PublicKey})
	}
	if pc.Endpoint != nil {
		m.Peers[at].Endpoint = pc.Endpoint
	}
	if pc.PersistentKeepaliveInterval != nil {
		m.Peers[at].PersistentKeepaliveInterval = *pc.PersistentKeepaliveInterval
	}
	for _, ip := range pc.AllowedIPs {
		for i := range m.Peers {
			m.Peers[i].AllowedIPs = slices.DeleteFunc(m.Peers[i].AllowedIPs, func(n net.IPNet) bool { return n.String() == ip.String() })
		}
		m.Peers[at].AllowedIPs = append(m.Peers[at].AllowedIPs, ip)
	}
}

func (m *modelDevice) owners() map[netip.Prefix]wgtypes.Key {
	owners := map[netip.Prefix]wgtypes.Key{}
	for _, p := range m.Peers {
		for _, ip := range p.AllowedIPs {
			owners[prefixOf(ip)] = p.PublicKey
		}
	}
	return owners
}

// genPeers draws up to five peers that share out some of eight prefixes.
func genPeers(label string) *rapid.Generator[[]peer] {
	return rapid.Custom(func(t *rapid.T) []peer {
		var peers []peer
		for i := range 5 {
			if !rapid.Bool().Draw(t, label+" has peer") {
				continue
			}
			p := peer{region: fmt.Sprint(i), node: fmt.Sprint(i), key: testPeerKey(i)}
			if rapid.Bool().Draw(t, "dials") {
				p.endpoint = netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), uint16(rapid.IntRange(1, 2).Draw(t, "port")))
			}
			p.keepalive = time.Duration(rapid.IntRange(0, 1).Draw(t, "keepalive")) * 25 * time.Second
			peers = append(peers, p)
		}
		for i := range 8 {
			if at := rapid.IntRange(-1, len(peers)-1).Draw(t, "owner"); at >= 0 {
				prefix := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i), 0, 0}), 24)
				if i%2 == 1 {
					prefix = netip.PrefixFrom(netip.AddrFrom16([16]byte{0xfd, byte(i)}), 64)
				}
				peers[at].prefixes = append(peers[at].prefixes, prefix)
			}
		}
		return peers
	})
}

func TestFromAnyPlanToAnyOtherNoPrefixIsEverWithoutAPeerAndTheSecondDiffIsEmpty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &modelDevice{}
		key := testKey
		reach := func(want []peer, memory endpoints) endpoints {
			before := m.owners()
			m.keep = map[netip.Prefix]bool{}
			for _, p := range want {
				for _, prefix := range p.prefixes {
					if _, had := before[prefix]; had {
						m.keep[prefix] = true
					}
				}
			}
			d := compare(&m.Device, key, 4500, want, memory, testScratch, testNow)
			m.configure(t, d.config)
			m.configure(t, d.nudge)
			m.configure(t, d.quiet)
			next := memory.next(&m.Device, want)
			if again := compare(&m.Device, key, 4500, want, next, testScratch, testNow); !again.empty() || len(again.config.Peers)+len(again.nudge.Peers)+len(again.quiet.Peers) > 0 {
				t.Fatalf("the second diff is not empty: %+v", again.config)
			}
			expected := map[netip.Prefix]wgtypes.Key{}
			for _, p := range want {
				for _, prefix := range p.prefixes {
					expected[prefix] = p.key
				}
			}
			if got := m.owners(); !maps.Equal(got, expected) {
				t.Fatalf("owners are %v, want %v", got, expected)
			}
			if len(m.Peers) != len(want) {
				t.Fatalf("%d peers, want %d", len(m.Peers), len(want))
			}
			for _, p := range want {
				at := slices.IndexFunc(m.Peers, func(h wgtypes.Peer) bool { return h.PublicKey == p.key })
				if h := m.Peers[at]; h.PersistentKeepaliveInterval != p.keepalive || p.endpoint.IsValid() && h.Endpoint.AddrPort() != p.endpoint {
					t.Fatalf("peer %v is %+v", p, h)
				}
			}
			return next
		}
		first := reach(genPeers("first").Draw(t, "first"), endpoints{})
		if rapid.Bool().Draw(t, "the key changes") {
			key = wgtypes.Key{31: 0x41}
		}
		reach(genPeers("second").Draw(t, "second"), first)
	})
}

func TestAChangeOfOnePeerIsWrittenToThatPeerOnly(t *testing.T) {
	have := wgtypes.Device{PrivateKey: testKey, ListenPort: 4500}
	var want []peer
	for i := range 3 {
		p := peer{key: testPeerKey(i), endpoint: netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), 4500)}
		p.prefixes = []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i), 0, 0}), 24)}
		want = append(want, p)
		have.Peers = append(have.Peers, wgtypes.Peer{
			PublicKey: p.key, Endpoint: net.UDPAddrFromAddrPort(p.endpoint), AllowedIPs: []net.IPNet{ipNetOf(p.prefixes[0])},
		})
	}
	want[1].keepalive = 25 * time.Second
	d := compare(&have, testKey, 4500, want, nil, testScratch, testNow)
	if d.changes != 1 || len(d.config.Peers) != 1 || d.config.Peers[0].PublicKey != want[1].key || d.config.ReplacePeers ||
		d.config.Peers[0].ReplaceAllowedIPs || d.config.Peers[0].Endpoint != nil || d.config.Peers[0].AllowedIPs != nil ||
		d.config.PrivateKey != nil || d.config.ListenPort != nil {
		t.Errorf("the diff is %+v with %d changes", d.config, d.changes)
	}
}

func TestALearnedEndpointIsOverruledOnlyForAReason(t *testing.T) {
	planned, moved, learned := netip.MustParseAddrPort("192.0.2.1:4500"), netip.MustParseAddrPort("192.0.2.2:4500"), netip.MustParseAddrPort("198.51.100.1:999")
	var none netip.AddrPort
	fresh, stale := testNow.Add(-170*time.Second), testNow.Add(-190*time.Second)
	for name, c := range map[string]struct {
		have      netip.AddrPort
		handshake time.Time
		plan      netip.AddrPort
		last      *memory
		want      netip.AddrPort
	}{
		"a new peer is dialled where the plan says":             {none, time.Time{}, planned, nil, planned},
		"a peer that dials us keeps what was learned":           {learned, stale, none, &memory{Planned: planned}, none},
		"a peer that dials us is not dialled at first":          {none, time.Time{}, none, nil, none},
		"a peer that dialled us before is dialled after a loss": {none, time.Time{}, none, &memory{Learned: learned}, learned},
		"an endpoint as planned is left":                        {planned, stale, planned, &memory{Planned: planned}, none},
		"a learned endpoint with a session is left":             {learned, fresh, planned, &memory{Planned: planned}, none},
		"a learned endpoint without memory is left":             {learned, fresh, planned, nil, none},
		"a learned endpoint that died is overruled":             {learned, stale, planned, &memory{Planned: planned}, planned},
		"a plan that changed overrules":                         {learned, fresh, moved, &memory{Planned: planned}, moved},
		"a plan that names an endpoint at last overrules":       {learned, fresh, planned, &memory{}, planned},
		"a mapped IPv4 address is the same":                     {netip.MustParseAddrPort("[::ffff:192.0.2.1]:4500"), stale, planned, nil, none},
	} {
		t.Run(name, func(t *testing.T) {
			have := &wgtypes.Peer{LastHandshakeTime: c.handshake}
			if c.have.IsValid() {
				have.Endpoint = net.UDPAddrFromAddrPort(c.have)
			}
			if got := endpointToWrite(have, peer{endpoint: c.plan}, c.last, testNow); got != c.want {
				t.Errorf("writes %v, want %v", got, c.want)
			}
		})
	}
}
