package accel

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/ravencni/raven/pkg/topology"
	"github.com/ravencni/raven/test/netns"
)

func TestTwentyThousandPrefixesAreWrittenOnceAndAFailoverWritesOne(t *testing.T) {
	netns.Run(t, func(t *testing.T) {
		n := newNode(t)
		const regions, perRegion = 1000, 20
		n.plan.NextHops, n.plan.Prefixes, n.plan.Throws = nil, nil, nil
		for r := range regions {
			id := fmt.Sprint("region/r", r)
			n.plan.NextHops = append(n.plan.NextHops, topology.NextHop{ID: id, Kind: topology.KindTunnel, MTU: 1420})
			for p := range perRegion {
				var four [4]byte
				binary.BigEndian.PutUint32(four[:], 11<<24|uint32(r*perRegion+p)<<8)
				n.plan.Prefixes = append(n.plan.Prefixes, topology.Prefix{
					Prefix: netip.PrefixFrom(netip.AddrFrom4(four), 24), Scope: topology.ScopeRemote, NextHop: id,
				})
			}
		}
		a := n.applier(t, Options{})
		pass := func(what string, want uint64) {
			t.Helper()
			before, start := a.Stats(), time.Now()
			n.apply(t, a)
			took, after := time.Since(start), a.Stats()
			if got := after.MapUpdates + after.MapDeletions - before.MapUpdates - before.MapDeletions; got != want {
				t.Errorf("%s: %d map writes, want %d", what, got, want)
			}
			t.Logf("%s: %v", what, took)
		}
		// Also: two local prefixes, the node's address, the member, the configuration.
		pass("first pass", regions*(perRegion+1)+5)
		pass("second pass", 0)
		n.plan.NextHops[7].MTU = 1400
		pass("failover", 1)
		n.plan.NextHops = n.plan.NextHops[:regions/2]
		n.plan.Prefixes = n.plan.Prefixes[:regions*perRegion/2]
		pass("half of them gone", regions/2*(perRegion+1))
		a = n.applier(t, Options{})
		pass("restart", 0)
	})
}
