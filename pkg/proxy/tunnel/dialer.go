package tunnel

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"
)

const (
	// firstPause and lastPause bound the time between attempts to connect; each doubles, and half of each is random, so that a
	// thousand edges do not come back at once.
	firstPause, lastPause = 200 * time.Millisecond, 30 * time.Second
	// settled is how long a tunnel must have stood for the next loss to begin with firstPause again.
	settled = 10 * time.Second
)

// dialer keeps the tunnel to one endpoint.
type dialer struct {
	edge  *Edge
	to    Endpoint
	stop  context.CancelFunc
	renew chan struct{}

	mu    sync.Mutex
	state string
}

func (d *dialer) say(state string) (changed bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	changed = d.state != state
	d.state = state
	return changed
}

func (d *dialer) said() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.state
}

// run connects, and connects again, until ctx is done. What it leaves behind ends with its last stream.
func (d *dialer) run(ctx context.Context) {
	log := d.edge.Log.With("gateway", d.to.Gateway, "node", d.to.Node, "address", d.to.Address)
	var current *served // what carries streams now; nil: nothing
	defer func() {
		if current != nil {
			d.edge.retire(current)
		}
	}()
	for pause := firstPause; ; {
		next, err := d.edge.connect(ctx, d.to)
		if ctx.Err() != nil {
			if next != nil {
				d.edge.retire(next)
			}
			return
		}
		if err != nil {
			d.edge.Metrics.DialFailed(reasonOf(err))
			if current == nil && d.say(err.Error()) {
				log.Warn("no tunnel to an exposed gateway; trying again", "error", err)
			}
			if await(ctx, jitter(pause)) != nil {
				return
			}
			pause = min(2*pause, lastPause)
			continue
		}
		if current != nil {
			d.edge.retire(current)
		}
		current = next
		d.say("up")
		log.Info("a tunnel to an exposed gateway is up")
		since := time.Now()
		select {
		case <-ctx.Done():
			return
		case <-current.done:
			current = nil
			log.Warn("a tunnel to an exposed gateway was lost")
			d.say("lost")
		case <-current.leaving:
			log.Info("an exposed gateway's proxy is about to end")
		case <-d.renew:
			continue // at once: nothing is wrong with the other side
		}
		if time.Since(since) >= settled {
			pause = firstPause
		}
		if await(ctx, jitter(pause)) != nil {
			return
		}
		pause = min(2*pause, lastPause)
	}
}

// jitter is between half of d and d.
func jitter(d time.Duration) time.Duration { return d/2 + rand.N(d/2) }
