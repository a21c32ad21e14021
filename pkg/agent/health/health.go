// Package health answers whether the agent is alive and ready, in words that say what is wrong.
package health

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/ravencni/raven/pkg/agent/view"
)

// stall is how long the loop may make no progress: three of its resyncs.
const stall = 90 * time.Second

// Heart is the loop's pulse. It counts by the monotonic clock: a step of the wall clock is no stall.
type Heart struct {
	born time.Time
	last atomic.Int64 // nanoseconds since born
}

// NewHeart makes a heart that beat just now.
func NewHeart() *Heart { return &Heart{born: time.Now()} }

// Beat says that the loop made progress.
func (h *Heart) Beat(now time.Time) { h.last.Store(int64(now.Sub(h.born))) }

// Since is the time since the last beat.
func (h *Heart) Since(now time.Time) time.Duration {
	return now.Sub(h.born) - time.Duration(h.last.Load())
}

// Handler serves /healthz (the loop makes progress) and /readyz (the source has delivered and the last pass did all it
// should). latest must not return nil.
func Handler(heart *Heart, latest func() *view.View) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		if idle := heart.Since(time.Now()); idle > stall {
			answer(w, []string{fmt.Sprintf("the agent's loop has made no progress for %s", idle.Round(time.Second))})
			return
		}
		answer(w, nil)
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) { answer(w, Unready(latest())) })
	return mux
}

// Unready lists what keeps the agent from being ready; empty: nothing.
func Unready(v *view.View) []string {
	var wrong []string
	if !v.Synced {
		text := "the source has not delivered yet: " + v.Waiting
		if v.FromSnapshot {
			text += " (running from the last run's snapshot)"
		}
		wrong = append(wrong, text)
	}
	if v.Held != "" {
		wrong = append(wrong, "the input is not applied: "+v.Held)
	}
	if v.Passed.IsZero() && v.Held == "" && !v.NoneYet {
		wrong = append(wrong, "no pass has been applied yet")
	}
	for _, part := range slices.Sorted(maps.Keys(v.Failed)) {
		wrong = append(wrong, part+": "+v.Failed[part])
	}
	return wrong
}

func answer(w http.ResponseWriter, wrong []string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	text := "ok\n"
	if len(wrong) > 0 {
		w.WriteHeader(http.StatusServiceUnavailable)
		text = strings.Join(wrong, "\n") + "\n"
	}
	_, _ = w.Write([]byte(text)) // the client may have gone
}
