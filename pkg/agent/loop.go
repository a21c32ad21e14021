package agent

import (
	"context"
	"time"

	"github.com/ravencni/raven/pkg/tunnel"
)

// loop is the one goroutine that touches driver and appliers.
func (a *Agent) loop(ctx context.Context) error {
	ticker := time.NewTimer(resync)
	defer ticker.Stop()
	due := time.NewTimer(time.Hour)
	due.Stop()
	defer due.Stop()
	var reasons reasons

	want := func(n Notice) {
		if reasons.add(n) {
			due.Reset(max(coalesce, a.limiter.Reserve().Delay()))
		}
	}
	want(Notice{What: "start"})
	for {
		a.heart.Beat(time.Now())
		select {
		case <-ctx.Done():
			return nil
		case <-a.Source.Changed():
			want(Notice{What: "input"})
		case <-a.notices.wake:
			for _, n := range a.notices.take() {
				want(n)
			}
		case done := <-a.statusAsked:
			a.serveScrape(ctx)
			close(done)
		case <-ticker.C:
			if a.overdue() {
				want(Notice{What: "resync"})
			} else {
				a.readPeers(ctx)
			}
			ticker.Reset(a.period())
		case <-due.C:
			why, parts := reasons.take()
			if len(parts) > 0 && a.allWell() {
				if a.lookAt(ctx, parts, why); len(a.failed) > 0 {
					ticker.Reset(retry)
				}
				continue // the resync comes when it would have come
			}
			if err := a.pass(ctx, why); err != nil {
				return err
			}
			ticker.Reset(a.period())
		}
	}
}

// overdue says whether everything has to be looked at without another reason. Tunnels that are merely down are no failure
// of this node: their state alone is read.
func (a *Agent) overdue() bool {
	return len(a.failed) > 0 || a.other != nil || time.Since(a.View().Passed) >= resync
}

// allWell says whether the last pass did all it should, so that a part can be looked at alone.
func (a *Agent) allWell() bool {
	v := a.View()
	return !v.Passed.IsZero() && v.Held == "" && len(a.failed) == 0
}

// period until the next look, at everything or at the tunnels alone.
func (a *Agent) period() time.Duration {
	if a.other != nil {
		return switchPeriod
	}
	if len(a.failed) > 0 {
		return retry
	}
	for _, p := range a.View().Peers {
		if p.State != tunnel.StateUp {
			return retry
		}
	}
	return resync
}
