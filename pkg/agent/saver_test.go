package agent

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"golang.org/x/time/rate"

	"github.com/ravencni/raven/pkg/agent/snapshot"
)

func TestSnapshotsAreWrittenAtABoundedRateAndTheLatestAtTheEnd(t *testing.T) {
	dir := t.TempDir()
	s := newSaver(snapshot.Open(dir), slog.New(slog.DiscardHandler))
	s.limit = rate.NewLimiter(rate.Every(time.Hour), 1)
	s.limit.Allow() // the burst is used up
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { s.run(ctx) })
	offer := func(change int) {
		in := cluster()
		in.State.Nodes[0].Labels["change"] = fmt.Sprint(change)
		s.offer(in)
	}
	offer(1)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for s.age(time.Now()) < 0 {
		select {
		case <-tick.C:
		case <-t.Context().Done():
			t.Fatal("nothing was saved")
		}
	}
	offer(2)
	for range 25 { // far longer than a write takes
		<-tick.C
		if len(s.wake) == 0 {
			t.Fatal("a change was written at once after another one")
		}
	}
	offer(3)
	stop()
	running.Wait()
	in, err := snapshot.Open(dir).Load()
	if err != nil || in == nil || in.State.Nodes[0].Labels["change"] != "3" {
		t.Errorf("the snapshot holds %+v, %v; want the latest input", in, err)
	}
}

func TestAnUnchangedInputIsNotEncodedAgainUnlessItCouldNotBeWritten(t *testing.T) {
	s := newSaver(snapshot.Open(t.TempDir()), slog.New(slog.DiscardHandler))
	for i, step := range []struct {
		failing, wakes bool
	}{{false, true}, {false, false}, {true, true}, {false, false}} {
		s.failing = step.failing
		s.offer(cluster())
		if woken := len(s.wake) == 1; woken != step.wakes {
			t.Errorf("offer %d woke the writer: %t", i, woken)
		}
		if len(s.wake) == 1 {
			<-s.wake
		}
	}
}
