package agent

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/ravencni/raven/pkg/agent/snapshot"
	"github.com/ravencni/raven/pkg/agent/source"
)

// Of a large cluster some object changes every few seconds, and flash memory, which many an edge machine has, bears only
// so many writes. A start with all its changes is kept at once; afterwards the file may be as old as savePause.
const (
	saveBurst = 20
	savePause = 30 * time.Second
)

// saver writes snapshots beside the loop: a slow disk must not delay a repair.
type saver struct {
	store *snapshot.Store
	log   *slog.Logger
	wake  chan struct{}
	limit *rate.Limiter

	mu      sync.Mutex
	latest  *source.Input
	saved   time.Time
	failing bool
}

func newSaver(store *snapshot.Store, log *slog.Logger) *saver {
	return &saver{store: store, log: log, wake: make(chan struct{}, 1), saved: store.Saved(),
		limit: rate.NewLimiter(rate.Every(savePause), saveBurst)}
}

// offer names the input to keep. One that is the last one costs no encoding, unless that could not be written.
func (s *saver) offer(in source.Input) {
	s.mu.Lock()
	defer s.mu.Unlock()
	same := s.latest != nil && slices.Equal(s.latest.Throws, in.Throws) && source.SameState(s.latest.State, in.State)
	s.latest = &in
	if same && !s.failing {
		return
	}
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// run saves until ctx is done; what was offered before that is saved still.
func (s *saver) run(ctx context.Context) {
	failing := false
	for {
		select {
		case <-ctx.Done():
			select {
			case <-s.wake:
			default:
				return
			}
		case <-s.wake:
		}
		s.mu.Lock()
		in := *s.latest
		s.mu.Unlock()
		written, err := s.store.Save(in, time.Now())
		switch {
		case err != nil && !failing:
			s.log.Warn("the last good input cannot be kept on disk; a restart without the source would not know it", "error", err)
		case err == nil && failing:
			s.log.Info("the last good input is kept on disk again")
		case written:
			s.log.Debug("kept the input on disk")
		}
		failing = err != nil
		s.mu.Lock()
		s.saved, s.failing = s.store.Saved(), failing
		s.mu.Unlock()
		if written {
			s.rest(ctx)
		}
	}
}

// rest waits until the next write may be made, or ctx is done.
func (s *saver) rest(ctx context.Context) {
	timer := time.NewTimer(s.limit.Reserve().Delay())
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// age is the time in seconds since the snapshot changed last; negative without one.
func (s *saver) age(now time.Time) float64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.saved.IsZero() {
		return -1
	}
	return now.Sub(s.saved).Seconds()
}
