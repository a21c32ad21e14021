package agent

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ravencni/raven/pkg/agent/snapshot"
	"github.com/ravencni/raven/pkg/tunnel"
)

func TestAChangeOfTheInputAndANoticeOfTheKernelEachLeadToAPass(t *testing.T) {
	notices := make(chan Notice)
	b := newBench(t, "b1", func(p *Parts) {
		p.Watchers = []Watcher{{Name: "test", Run: func(ctx context.Context, changed func(Notice)) error {
			for {
				select {
				case what := <-notices:
					changed(what)
				case <-ctx.Done():
					return nil
				}
			}
		}}}
	})
	b.source.set(cluster())
	b.start()
	b.await("the first pass", func() bool { return !b.view().Passed.IsZero() })
	b.take()
	b.log.take()

	begin := time.Now()
	b.route.answer(1, nil)
	notices <- Notice{What: "route deleted"}
	b.await("the repair", func() bool { return strings.Contains(b.log.take(), "part=route changes=1 because=\"route deleted\"") })
	if took := time.Since(begin); took > 100*time.Millisecond {
		t.Errorf("the repair came after %v", took)
	}
	b.route.answer(0, nil)

	b.await("rest", func() bool { return b.take() == "" })
	notices <- Notice{What: "device event", Part: "accel"}
	b.await("a look at the pods' devices", func() bool {
		calls := b.take()
		if calls != "" && calls != "accel" {
			t.Errorf("a pod's device that came or went led to %q", calls)
		}
		return calls != ""
	})
	notices <- Notice{What: "device event", Part: "accel"}
	notices <- Notice{What: "kernel event"}
	b.await("a whole pass", func() bool { return strings.Contains(b.take(), "host overlay sysctl filter route accel") })

	in := cluster()
	in.State.Config.EnableTunnel = false
	b.source.set(in)
	b.await("the teardown", func() bool { return strings.Contains(b.take(), "overlay tunnel sysctl") })
}

func TestAFightOverTheKernelIsDamped(t *testing.T) {
	b := newBench(t, "b1")
	b.source.set(cluster())
	b.route.answer(1, nil) // as if somebody deleted a route again and again
	b.start()
	b.await("the first pass", func() bool { return !b.view().Passed.IsZero() })
	deadline := time.NewTimer(time.Second)
	defer deadline.Stop()
	pace := time.NewTicker(time.Millisecond)
	defer pace.Stop()
	for done := false; !done; {
		select {
		case <-pace.C:
			b.agent.notices.give(Notice{What: "route deleted"})
		case <-deadline.C:
			done = true
		}
	}
	passes := strings.Count(b.take(), "route")
	if limit := burst + 2*passesPerSecond + 2; passes < 2 || passes > limit {
		t.Errorf("a second of notices led to %d passes, want 2 to %d", passes, limit)
	}
}

func TestTheEndOfTheAgentRemovesNothingAndDoesNotWaitForAPass(t *testing.T) {
	b := newBench(t, "b1")
	b.overlay.block = make(chan struct{}) // a pass that hangs
	b.source.set(cluster())
	stop := b.start()
	b.await("the hanging pass", func() bool {
		b.recorder.mu.Lock()
		defer b.recorder.mu.Unlock()
		return strings.HasSuffix(strings.Join(b.calls, " "), "overlay")
	})
	begin := time.Now()
	if err := stop(); err != nil {
		t.Errorf("the agent ended with %v", err)
	}
	if took := time.Since(begin); took > time.Second {
		t.Errorf("the end took %v", took)
	}
	if calls := b.take(); calls != "plain.Cleanup tunnel host overlay" {
		t.Errorf("on its end the agent called %q", calls)
	}
}

func TestAWatcherThatFailsIsStartedAgainAndLosesNothing(t *testing.T) {
	runs := make(chan struct{}, 8)
	b := newBench(t, "b1", func(p *Parts) {
		p.Watchers = []Watcher{{Name: "flaky", Run: func(ctx context.Context, _ func(Notice)) error {
			runs <- struct{}{}
			if len(runs) == 1 {
				return errors.New("the socket broke")
			}
			<-ctx.Done()
			return nil
		}}}
	})
	b.source.set(cluster())
	b.start()
	b.await("the second run", func() bool { return len(runs) == 2 })
	b.await("a pass for what happened in between", func() bool { return strings.Count(b.take(), "route") > 0 })
	if log := b.log.take(); !strings.Contains(log, "the socket broke") {
		t.Errorf("the log says\n%s", log)
	}
}

func TestTheInputIsKeptOnDiskWhenItWasApplied(t *testing.T) {
	dir := t.TempDir()
	b := newBench(t, "b1", func(p *Parts) { p.Snapshot = snapshot.Open(dir) })
	if age := b.agent.SnapshotAge(); age >= 0 {
		t.Errorf("a snapshot that does not exist is %g s old", age)
	}
	b.source.set(cluster())
	stop := b.start()
	b.await("the snapshot", func() bool { return b.agent.SnapshotAge() >= 0 })
	in := cluster()
	in.State.Gateways = nil // held back: must not replace the good one
	b.source.set(in)
	b.await("the hold", func() bool { return b.view().Held != "" })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	got, err := snapshot.Open(dir).Load()
	if err != nil || got == nil || len(got.State.Gateways) != 3 {
		t.Errorf("the snapshot holds %+v, %v", got, err)
	}
}

func TestAScrapeGetsFreshTunnelFigures(t *testing.T) {
	b := newBench(t, "b1")
	b.wireguard.peers = []tunnel.PeerStatus{{Node: "a1", State: tunnel.StateUp, RxBytes: 1}}
	b.source.set(cluster())
	b.start()
	b.await("the first pass", func() bool { return !b.view().Passed.IsZero() })
	b.wireguard.peers = []tunnel.PeerStatus{{Node: "a1", State: tunnel.StateUp, RxBytes: 2}}
	if v := b.agent.FreshView(t.Context()); len(v.Peers) != 1 || v.Peers[0].RxBytes != 2 {
		t.Errorf("the scrape got %+v", v.Peers)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if v := b.agent.FreshView(gone); v == nil {
		t.Error("a scrape that does not wait got nothing")
	}
}

func TestScrapesDoNotKeepTheLoopBusy(t *testing.T) {
	b := newBench(t, "b1")
	b.source.set(cluster())
	b.start()
	b.await("the first pass", func() bool { return !b.view().Passed.IsZero() })
	// Each pass looks once, too, and another one may follow the first.
	byScrapes := func() int { return int(b.wireguard.looks.Load()) - b.count("tunnel") }
	began := time.Now()
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range 100 {
				b.agent.FreshView(t.Context())
			}
		})
	}
	all.Wait()
	most := 1 + int(time.Since(began)/scrapeAge)
	b.await("a look for the scrapes", func() bool { return byScrapes() >= 1 })
	if looks := byScrapes(); looks > most {
		t.Errorf("400 scrapes had the tunnels looked at %d times, want 1 to %d", looks, most)
	}
}

func TestWhileATunnelIsNotUpItIsLookedAtMoreOften(t *testing.T) {
	b := newBench(t, "b1")
	b.pass(cluster())
	if got := b.agent.period(); got != resync {
		t.Errorf("with all well the next look comes in %v", got)
	}
	b.wireguard.peers = []tunnel.PeerStatus{{Node: "a1", State: tunnel.StateConnecting}}
	b.pass(cluster())
	if got := b.agent.period(); got != retry {
		t.Errorf("with a tunnel that is not up the next look comes in %v", got)
	}
}

func TestPeersThatAreMerelyDownAreNoReasonForAPass(t *testing.T) {
	b := newBench(t, "b1")
	b.wireguard.peers = []tunnel.PeerStatus{{Node: "a1", State: tunnel.StateDown}}
	b.pass(cluster())
	if b.agent.overdue() {
		t.Error("a pass is due since a peer is down")
	}
	b.filter.answer(0, errors.New("no nft"))
	b.pass(cluster())
	if !b.agent.overdue() || b.agent.allWell() {
		t.Error("no pass is due although a part failed")
	}
}

func TestNoticesAreMergedAndNoneIsLost(t *testing.T) {
	n := newNotices()
	for range 1000 {
		n.give(Notice{What: "device event", Part: "accel"})
	}
	n.give(Notice{What: "kernel event"})
	var r reasons
	for _, notice := range n.take() {
		r.add(notice)
	}
	if why, parts := r.take(); why != "device event, kernel event" || len(parts) != 0 {
		t.Errorf("took %q for %q", why, parts)
	}
	r.add(Notice{What: "device event", Part: "accel"})
	if _, parts := r.take(); len(parts) != 1 || parts[0] != "accel" {
		t.Errorf("took parts %q", parts)
	}
}
