package ipsec

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	testns "github.com/ravencni/raven/test/netns"
)

func maskOf(p netip.Prefix) net.IPMask { return net.CIDRMask(p.Bits(), p.Addr().BitLen()) }

// pair makes two gateways on one wire, east 198.51.100.1 and west 198.51.100.2, with pods of both families, and says what
// each wants; west has the lower claim to dial.
func pair(t *testing.T) (east, west *gateway, wantEast, wantWest Desired) {
	t.Helper()
	east = newGateway(t, "east", "10.1.0.1/32 fd00:1::1/128")
	west = newGateway(t, "west", "10.2.0.1/32 fd00:2::1/128")
	testns.Veth(t, testns.End{In: east.ns, Name: "wire", Addresses: []string{"198.51.100.1/24", "2001:db8::1/64"}},
		testns.End{In: west.ns, Name: "wire", Addresses: []string{"198.51.100.2/24", "2001:db8::2/64"}})
	wantEast = Desired{
		Port: 4500, PSK: "the secret of this test", Addresses: addresses("10.1.0.1", "fd00:1::1"),
		Peers: []DesiredPeer{{Node: "west", Endpoint: endpoint("198.51.100.2:4501"), Dial: true, Prefixes: prefixes("10.2.0.0/16", "fd00:2::/64")}},
	}
	wantWest = Desired{
		Port: 4501, PSK: "the secret of this test", Addresses: addresses("10.2.0.1", "fd00:2::1"),
		Peers: []DesiredPeer{{Node: "east", Endpoint: endpoint("198.51.100.1:4500"), Prefixes: prefixes("10.1.0.0/16", "fd00:1::/64")}},
	}
	return east, west, wantEast, wantWest
}

func TestTwoGatewaysCarryBothFamiliesOverOnePort(t *testing.T) {
	needsCharon(t)
	testns.Run(t, func(t *testing.T) {
		east, west, wantEast, wantWest := pair(t)
		east.start()
		west.start()
		west.put(wantWest)
		east.put(wantEast)
		t.Logf("up after %v", east.awaitUp("west"))
		west.awaitUp("east")
		for _, args := range [][]string{
			{"-I", "10.1.0.1", "10.2.0.1"}, {"-I", "fd00:1::1", "fd00:2::1"}, {"-M", "do", "-s", "1372", "-I", "10.1.0.1", "10.2.0.1"},
		} {
			out := east.ping(20, args...)
			if !strings.Contains(out, " 0% packet loss") {
				t.Errorf("ping %v: %s", args, out)
			}
		}
		if n := east.put(wantEast); n != 0 {
			t.Errorf("the same wish again made %d writes", n)
		}
	})
}

func TestPrefixesComeAndGoWithoutCostToOthers(t *testing.T) {
	needsCharon(t)
	needsUserspace(t, "with an interface for each peer no tunnel depends on prefixes")
	testns.Run(t, func(t *testing.T) {
		east, west, wantEast, wantWest := pair(t)
		east.start()
		west.start()
		wantEast.Addresses = addresses("10.1.0.1", "fd00:1::1", "10.3.0.1")
		wantWest.Addresses = addresses("10.2.0.1", "fd00:2::1", "10.4.0.1")
		east.put(wantEast)
		west.put(wantWest)
		east.addAddress("10.3.0.1/32")
		east.awaitUp("west")
		west.awaitUp("east")
		east.awaitPing("-I", "10.1.0.1", "10.2.0.1")
		there := newStream(t, east, "10.1.0.1", west, "10.2.0.1", 500)
		back := newStream(t, west, "10.2.0.1", east, "10.1.0.1", 500)

		// West alone learns of another prefix of east's: west, which does not dial, renews what runs.
		more, less := prefixes("10.1.0.0/16", "fd00:1::/64", "10.3.0.0/16"), prefixes("10.1.0.0/16", "fd00:1::/64")
		for range 3 {
			wantWest.Peers[0].Prefixes = more
			west.put(wantWest)
			west.awaitPing("-I", "10.2.0.1", "10.3.0.1")
			wantWest.Peers[0].Prefixes = less
			west.put(wantWest) // at once: what was agreed on first would be right again, but is not what runs
			west.await("the prefix to go", func() error {
				out, err := west.tryPing("-I", "10.2.0.1", "10.3.0.1")
				if err == nil {
					return errors.New("it still answers: " + out)
				}
				return nil
			})
			// There and back within a moment at the end that dials: the older one of two is right, and nobody else ends it.
			first := east.associations()
			for i, set := range [][]netip.Prefix{prefixes("10.2.0.0/16", "fd00:2::/64", "10.4.0.0/16"), wantEast.Peers[0].Prefixes} {
				want := wantEast
				want.Peers = slices.Clone(wantEast.Peers)
				want.Peers[0].Prefixes = set
				east.put(want)
				east.await("a renewal", func() error {
					if now := east.associations(); now.child < first.child+i+1 {
						return fmt.Errorf("numbers were %+v and are %+v", first, now)
					}
					return nil
				})
			}
		}
		for _, s := range []*stream{there, back} {
			lost, of, slowest := s.end()
			t.Logf("of %d datagrams %d were lost, and the slowest took %v", of, lost, slowest.Round(time.Millisecond))
			if lost > 0 || of < 1000 {
				t.Errorf("the other prefix lost %d of %d datagrams", lost, of)
			}
		}
	})
}

// renewing is a pair whose tunnel is up, and whose keys are renewed every few seconds.
func renewing(t *testing.T) (east, west *gateway) {
	t.Helper()
	east, west, wantEast, wantWest := pair(t)
	east.start()
	west.start()
	wantEast.Lifetimes = Lifetimes{Child: 3 * time.Second, IKE: 5 * time.Second}
	east.put(wantEast)
	west.put(wantWest)
	east.awaitUp("west")
	west.awaitUp("east")
	return east, west
}

// awaitRenewals waits for three renewals of the traffic's keys and one of the negotiation's.
func (g *gateway) awaitRenewals(since numbers) {
	g.t.Helper()
	g.await("three renewals of the traffic's keys and one of the negotiation's", func() error {
		now := g.associations()
		if now.child < since.child+3 || now.ike < since.ike+1 {
			return fmt.Errorf("numbers were %+v and are %+v", since, now)
		}
		return nil
	})
}

func TestRenewingAllKeysLosesNothing(t *testing.T) {
	needsCharon(t)
	testns.Run(t, func(t *testing.T) {
		east, _ := renewing(t)
		first := east.associations()
		losses := east.pinging("-I", "10.1.0.1", "10.2.0.1")
		east.awaitRenewals(first)
		if lost, of := losses(); lost > 0 {
			t.Errorf("the renewals lost packets: %d of %d", lost, of)
		}
	})
}

func TestCharonsDeathIsToldAndMended(t *testing.T) {
	needsCharon(t)
	testns.Run(t, func(t *testing.T) {
		east, west, wantEast, wantWest := pair(t)
		east.start()
		west.start()
		west.put(wantWest)
		east.put(wantEast)
		east.awaitUp("west")
		east.killCharon()
		east.await("charon to be missed", func() error {
			r, err := east.report(t.Context())
			if err == nil && r.Restarts == 0 {
				err = errors.New("it is not")
			}
			return err
		})
		east.put(wantEast) // routes went with the device
		east.awaitPing("-I", "10.1.0.1", "10.2.0.1")
		r, err := east.report(t.Context())
		if err != nil || r.Restarts != 1 {
			t.Errorf("the report is %+v, %v", r, err)
		}
	})
}

func TestTheSocketAwayIsToldAndTrafficGoesOn(t *testing.T) {
	needsCharon(t)
	testns.Run(t, func(t *testing.T) {
		east, west, wantEast, wantWest := pair(t)
		east.start()
		west.start()
		west.put(wantWest)
		east.put(wantEast)
		east.awaitUp("west")
		socket := filepath.Join(east.dir, viciSocket)
		if err := os.Rename(socket, socket+".away"); err != nil {
			t.Fatal(err)
		}
		east.await("the socket to be missed", func() error {
			r, err := east.report(t.Context())
			if err == nil && !strings.Contains(r.Problem, "VICI socket") {
				err = fmt.Errorf("the problem is %q", r.Problem)
			}
			return err
		})
		if out := east.ping(20, "-I", "10.1.0.1", "10.2.0.1"); !strings.Contains(out, " 0% packet loss") {
			t.Errorf("traffic suffers: %s", out)
		}
		if err := os.Rename(socket+".away", socket); err != nil {
			t.Fatal(err)
		}
		east.await("the problem to go", func() error {
			r, err := east.report(t.Context())
			if err == nil && (r.Problem != "" || r.Restarts != 0) {
				err = fmt.Errorf("the report is %+v", r)
			}
			return err
		})
	})
}

func TestWhyAPeerStaysAwayIsTold(t *testing.T) {
	needsCharon(t)
	testns.Run(t, func(t *testing.T) {
		east, west, wantEast, wantWest := pair(t)
		east.start()
		west.start()
		good := wantEast.PSK
		wantEast.PSK = "another one"
		west.put(wantWest)
		east.put(wantEast)
		east.awaitCause("west", "pre-shared key")
		west.awaitCause("east", "another pre-shared key")

		wantEast.PSK = good
		east.put(wantEast)
		east.awaitUp("west")

		// At west's address answers somebody who is not the one that is dialled.
		wantEast.Peers[0].Node = "north"
		east.put(wantEast)
		east.awaitCause("north", "the address which is dialled is the peer's")
		west.awaitCause("east", "looking for north")
		wantEast.Peers[0].Node = "west"
		east.put(wantEast)
		east.awaitUp("west")

		// Nobody answers at all.
		wantEast.Peers = append(wantEast.Peers, DesiredPeer{
			Node: "south", Endpoint: endpoint("198.51.100.77:4500"), Dial: true, Prefixes: prefixes("10.77.0.0/16")})
		losses := east.pinging("-I", "10.1.0.1", "10.2.0.1")
		east.put(wantEast)
		east.awaitCause("south", "does not answer")
		if lost, of := losses(); lost > 0 {
			t.Errorf("the peer that answers suffers from the one that does not: %d of %d", lost, of)
		}
	})
}
