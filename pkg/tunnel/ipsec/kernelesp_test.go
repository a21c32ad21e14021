package ipsec

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	testns "github.com/ravencni/raven/test/netns"
)

// stateCounts counts the kernel's states by if_id.
func (g *gateway) stateCounts() (counts map[uint32]int) {
	g.t.Helper()
	counts = map[uint32]int{}
	g.do(func() error {
		all, err := netlink.XfrmStateList(netlink.FAMILY_ALL)
		for _, s := range all {
			counts[uint32(s.Ifid)]++
		}
		return err
	})
	return counts
}

// awaitStates waits until there are so many states of each if_id, and of no other.
func (g *gateway) awaitStates(want map[uint32]int) {
	g.t.Helper()
	g.await(fmt.Sprintf("states %v by if_id", want), func() error {
		if counts := g.stateCounts(); !maps.Equal(counts, want) {
			return fmt.Errorf("there are %v", counts)
		}
		return nil
	})
}

// TestStatesGrowWithPeersAndOthersStay has a state and a policy of somebody else in the gateway's namespace all the time.
func TestStatesGrowWithPeersAndOthersStay(t *testing.T) {
	needsKernel(t)
	testns.Run(t, func(t *testing.T) {
		const foreign = 77
		east, west, wantEast, wantWest := pair(t)
		state := &netlink.XfrmState{
			Src: net.ParseIP("192.0.2.1"), Dst: net.ParseIP("192.0.2.2"), Proto: netlink.XFRM_PROTO_ESP, Mode: netlink.XFRM_MODE_TUNNEL,
			Spi: 0x4711, Ifid: foreign, Aead: &netlink.XfrmStateAlgo{Name: "rfc4106(gcm(aes))", Key: make([]byte, 20), ICVLen: 128},
		}
		policies := 0
		east.do(func() error {
			if err := netlink.XfrmStateAdd(state); err != nil {
				return err
			}
			_, all, err := net.ParseCIDR("192.0.2.0/24")
			if err != nil {
				return err
			}
			return netlink.XfrmPolicyAdd(&netlink.XfrmPolicy{Src: all, Dst: all, Dir: netlink.XFRM_DIR_OUT, Ifid: foreign})
		})
		east.start()
		west.start()
		west.put(wantWest)
		east.put(wantEast)
		east.awaitUp("west")
		east.awaitStates(map[uint32]int{firstIfID: 2, foreign: 1})

		for n := range 50 {
			wantEast.Peers[0].Prefixes = append(wantEast.Peers[0].Prefixes, prefixes(fmt.Sprintf("10.200.%d.0/24", 2*n))...)
		}
		losses := east.pinging("-I", "10.1.0.1", "10.2.0.1")
		if n := east.put(wantEast); n != 0 {
			t.Errorf("50 prefixes cost %d writes", n)
		}
		east.ping(20, "-I", "10.1.0.1", "10.2.0.1")
		east.awaitStates(map[uint32]int{firstIfID: 2, foreign: 1})
		if lost, of := losses(); lost > 0 {
			t.Errorf("50 prefixes lost packets: %d of %d", lost, of)
		}

		if _, err := east.quit(t.Context()); err != nil {
			t.Fatal(err)
		}
		east.awaitStates(map[uint32]int{foreign: 1})
		east.do(func() error {
			left, err := netlink.XfrmPolicyList(netlink.FAMILY_ALL)
			for _, p := range left {
				if p.Ifid != 0 { // sockets' own have none
					policies++
				}
			}
			return err
		})
		if policies != 1 {
			t.Errorf("%d policies are left; want the one of somebody else", policies)
		}
		if left, _, err := listInterfaces(DefaultDevice); err != nil || len(left) > 0 {
			t.Errorf("interfaces are left: %v, %v", left, err)
		}
	})
}

// TestWhatADeadCharonLeavesGoesWhenNewTunnelsStand kills charon: its states stay in the kernel, and go once there are new ones.
func TestWhatADeadCharonLeavesGoesWhenNewTunnelsStand(t *testing.T) {
	needsKernel(t)
	testns.Run(t, func(t *testing.T) {
		east, west, wantEast, wantWest := pair(t)
		east.start()
		west.start()
		west.put(wantWest)
		east.put(wantEast)
		east.awaitUp("west")
		east.awaitStates(map[uint32]int{firstIfID: 2})
		before := east.spis()
		losses := east.pinging("-I", "10.1.0.1", "10.2.0.1")
		east.killCharon()
		east.await("new states only", func() error {
			now := east.spis()
			if len(now) != 2 {
				return fmt.Errorf("states are %v, were %v", now, before)
			}
			for spi := range now {
				if before[spi] {
					return errors.New("the old ones are there")
				}
			}
			return nil
		})
		east.awaitPing("-I", "10.1.0.1", "10.2.0.1")
		lost, of := losses()
		t.Logf("charon's death lost %d of %d packets, 50 a second", lost, of)
	})
}

func (g *gateway) spis() (all map[int]bool) {
	g.t.Helper()
	all = map[int]bool{}
	g.do(func() error {
		list, err := netlink.XfrmStateList(netlink.FAMILY_ALL)
		for _, s := range list {
			all[s.Spi] = true
		}
		return err
	})
	return all
}

func TestEachPeerHasADeviceOfItsOwn(t *testing.T) {
	needsKernel(t)
	testns.Run(t, func(t *testing.T) {
		east, west, wantEast, wantWest := pair(t)
		wantEast.Peers = append(wantEast.Peers, DesiredPeer{Node: "north", Prefixes: prefixes("10.3.0.0/16")})
		east.start()
		west.start()
		west.put(wantWest)
		east.put(wantEast)
		east.awaitUp("west")
		east.ping(5, "-I", "10.1.0.1", "10.2.0.1")
		east.do(func() error {
			have, _, err := listInterfaces(DefaultDevice)
			if err != nil {
				return err
			}
			if got := names(have); got != "raven-ipsec0=west raven-ipsec1=north" {
				return fmt.Errorf("the interfaces are %s", got)
			}
			l, err := netlink.LinkByName("raven-ipsec0")
			if err != nil {
				return err
			}
			if s := l.Attrs().Statistics; s == nil || s.RxPackets < 5 || s.TxPackets < 5 {
				return fmt.Errorf("the device's packets are %+v", s)
			}
			return nil
		})

		// West goes and comes: north's device stays what it is.
		wantEast.Peers = wantEast.Peers[1:]
		east.put(wantEast)
		wantEast.Peers = append(wantEast.Peers, DesiredPeer{
			Node: "west", Endpoint: endpoint("198.51.100.2:4501"), Dial: true, Prefixes: prefixes("10.2.0.0/16")})
		east.put(wantEast)
		east.awaitPing("-I", "10.1.0.1", "10.2.0.1")
		east.do(func() error {
			have, _, err := listInterfaces(DefaultDevice)
			if got := names(have); err == nil && !strings.Contains(got, "raven-ipsec1=north") {
				err = fmt.Errorf("the interfaces are %s", got)
			}
			return err
		})
	})
}

// TestAKernelsEndAndAUserspaceEndAgree has one end whose kernel encrypts and one whose charon does, as in a cluster of several kernels. The
// latter's prefixes come and go meanwhile.
func TestAKernelsEndAndAUserspaceEndAgree(t *testing.T) {
	needsKernel(t)
	for _, inUserspace := range []string{"east", "west"} {
		t.Run(inUserspace+" in user space", func(t *testing.T) {
			testns.Run(t, func(t *testing.T) {
				east, west, wantEast, wantWest := pair(t)
				wantEast.Addresses = append(wantEast.Addresses, addresses("10.3.0.1")...)
				wantWest.Addresses = append(wantWest.Addresses, addresses("10.4.0.1")...)
				mixed, want := east, &wantEast
				if inUserspace == "west" {
					mixed, want = west, &wantWest
				}
				mixed.env = []string{"RAVEN_TEST_IPSEC_ESP=userspace"}
				east.start()
				west.start()
				west.put(wantWest)
				east.put(wantEast)
				east.awaitUp("west")
				west.awaitUp("east")
				for _, args := range [][]string{{"-I", "10.1.0.1", "10.2.0.1"}, {"-I", "fd00:1::1", "fd00:2::1"}, {"-M", "do", "-s", "1372", "-I", "10.1.0.1", "10.2.0.1"}} {
					east.awaitPing(args...)
				}
				there := newStream(t, east, "10.1.0.1", west, "10.2.0.1", 50)
				back := newStream(t, west, "10.2.0.1", east, "10.1.0.1", 50)
				less := want.Peers[0].Prefixes
				want.Peers[0].Prefixes = append(prefixes("10.3.0.0/16", "10.4.0.0/16"), less...)
				first := mixed.associations()
				mixed.put(*want)
				renewed := func(atLeast int) {
					mixed.await("a renewal", func() error {
						if now := mixed.associations(); now.child < atLeast {
							return fmt.Errorf("the newest is number %d", now.child)
						}
						return nil
					})
				}
				renewed(first.child + 1)
				want.Peers[0].Prefixes = less
				mixed.put(*want)
				renewed(first.child + 2)
				for _, s := range []*stream{there, back} {
					if lost, of, _ := s.end(); lost > 0 || of < 10 {
						t.Errorf("lost %d of %d datagrams", lost, of)
					}
				}
				// What both ends agree on suits both: neither renews without a change.
				settled, began := east.associations(), time.Now()
				east.await("twice the pause between two attempts to pass", func() error {
					if waited := time.Since(began); waited < 2*redialPause {
						return fmt.Errorf("%v have", waited)
					}
					return nil
				})
				if now := east.associations(); now.child > settled.child+1 || now.ike != settled.ike {
					t.Errorf("without any change the numbers went from %+v to %+v", settled, now)
				}
			})
		})
	}
}
