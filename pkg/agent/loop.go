package agent

import (
	"context"
	"strings"
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

	want := func(why string) {
		if reasons.add(why) {
			due.Reset(max(coalesce, a.limiter.Reserve().Delay()))
		}
	}
	want("start")
	for {
		a.heart.Beat(time.Now())
		select {
		case <-ctx.Done():
			return nil
		case <-a.Source.Changed():
			want("input")
		case what := <-a.notices:
			want(what)
		case done := <-a.statusAsked:
			a.serveScrape(ctx)
			close(done)
		case <-ticker.C:
			if len(a.failed) > 0 || time.Since(a.View().Passed) >= resync {
				want("resync")
			} else {
				a.readPeers(ctx)
			}
			ticker.Reset(a.period())
		case <-due.C:
			why := reasons.take()
			if err := a.pass(ctx, why); err != nil {
				return err
			}
			ticker.Reset(a.period())
		}
	}
}

// period until the next look, at everything or at the tunnels alone.
func (a *Agent) period() time.Duration {
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

// reasons are why the next pass runs.
type reasons []string

// add reports whether it is the first one.
func (r *reasons) add(why string) bool {
	for _, known := range *r {
		if known == why {
			return false
		}
	}
	*r = append(*r, why)
	return len(*r) == 1
}

func (r *reasons) take() string {
	const shown = 4
	all := *r
	*r = nil
	if len(all) > shown {
		all = append(all[:shown:shown], "and more")
	}
	return strings.Join(all, ", ")
}
