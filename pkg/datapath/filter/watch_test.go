package filter

import (
	"context"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	vnetns "github.com/vishvananda/netns"

	"github.com/ravencni/raven/pkg/topology"
	"github.com/ravencni/raven/test/netns"
)

// watched runs f while the filter is watched from a thread in the same namespace, and gives it the number of wakes.
func watched(t *testing.T, a *Applier, f func(wakes *atomic.Int64)) {
	t.Helper()
	ns, err := vnetns.Get()
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	ctx, cancel := context.WithCancel(t.Context())
	var wakes atomic.Int64
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // ends with the thread
		if err := vnetns.Set(ns); err != nil {
			done <- err
			return
		}
		done <- a.Watch(ctx, func() { wakes.Add(1) })
	}()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("watch: %v", err)
		}
	}()
	// The watch is on once it has seen a stranger's change.
	eventually(t, "the watch sees a change", func() (bool, string) {
		run(t, "nft", "add table inet raven; delete table inet raven")
		return wakes.Load() > 0, "no wake"
	})
	f(&wakes)
}

func TestTheWatchWakesForEveryKindOfDamage(t *testing.T) {
	netns.Run(t, func(t *testing.T) {
		run(t, "iptables-nft", "-P", "FORWARD", "ACCEPT")
		run(t, "ip6tables-nft", "-P", "INPUT", "ACCEPT")
		a := New(Options{})
		plan, host := gatewayPlan()
		watched(t, a, func(wakes *atomic.Int64) {
			for _, c := range []struct {
				damage string
				write  int
			}{
				{"delete table inet raven", 1},
				{"flush chain inet raven nat", 1},
				{"delete element inet raven members4 { 192.168.1.2 }", 1},
				{"add set inet raven x { type ipv4_addr; }", 1},
				{"add counter inet raven x", 1},
				{"flush chain ip filter FORWARD", 1},
				{"insert rule ip filter FORWARD accept", 1},
				{"add rule ip6 filter INPUT accept", 0},
			} {
				mustApply(t, a, plan, host)
				before := wakes.Load()
				run(t, "nft", c.damage)
				eventually(t, c.damage+" wakes", func() (bool, string) { return wakes.Load() > before, "no wake" })
				if n := mustApply(t, a, plan, host); n != c.write {
					t.Errorf("%s: %d transactions", c.damage, n)
				}
			}
			// How fast: from the deletion of the whole table to its return. The machine may be busy with other things, so
			// the best of a few tries counts.
			best := time.Hour
			for try := 0; try < 20 && best > 100*time.Millisecond; try++ {
				before := wakes.Load()
				run(t, "nft", "delete table inet raven")
				start := time.Now()
				eventually(t, "the deletion wakes", func() (bool, string) { return wakes.Load() > before, "no wake" })
				mustApply(t, a, plan, host)
				best = min(best, time.Since(start))
			}
			if best > 100*time.Millisecond {
				t.Errorf("the table came back after %v", best)
			}
		})
	})
}

func TestNeitherOurOwnWritesNorOthersTablesConcernUs(t *testing.T) {
	netns.Run(t, func(t *testing.T) {
		run(t, "iptables-nft", "-P", "FORWARD", "ACCEPT")
		a := New(Options{})
		plan, host := gatewayPlan()
		m := startMonitor(t)
		concerned := func() (yes, all int) {
			for _, msg := range m.messages(t) {
				all++
				if a.concerns(msg) {
					yes++
				}
			}
			return yes, all
		}
		mustApply(t, a, plan, host)
		mustApply(t, a, &topology.Plan{Role: topology.RoleNone}, host)
		mustApply(t, a, plan, host)
		run(t, "nft", "add table inet other; add chain inet other raven; add rule inet other raven accept; delete table inet other")
		run(t, "nft", "add table ip raven; add chain ip raven FORWARD; add rule ip raven FORWARD accept")
		run(t, "iptables-nft", "-t", "nat", "-A", "POSTROUTING", "-j", "ACCEPT")
		run(t, "iptables-nft", "-N", "KUBE-FORWARD")
		run(t, "iptables-nft", "-A", "KUBE-FORWARD", "-j", "ACCEPT")
		if yes, all := concerned(); yes != 0 || all < 50 {
			t.Errorf("%d of %d messages concern us", yes, all)
		}
		run(t, "iptables-nft", "-A", "FORWARD", "-j", "KUBE-FORWARD")
		if yes, _ := concerned(); yes != 1 {
			t.Errorf("a rule in FORWARD: %d messages concern us", yes)
		}
		mustApply(t, New(Options{}), &topology.Plan{Role: topology.RoleNone}, host)
		if yes, _ := concerned(); yes < 20 {
			t.Errorf("another process removed our table: %d messages concern us", yes)
		}
	})
}
