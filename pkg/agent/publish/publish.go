// Package publish writes the node's own TunnelEndpoint to where the other nodes read it, and only when it changes.
package publish

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"

	"github.com/ravencni/raven/pkg/apis/raven/v1beta1"
)

// Target is where a TunnelEndpoint goes.
type Target interface {
	// Put makes the node's TunnelEndpoint say status and reports whether that took a write.
	Put(ctx context.Context, status v1beta1.TunnelEndpointStatus) (written bool, err error)
}

const (
	// pause between two writes: a node whose tunnels come up one after the other writes once or twice, not ten times.
	pause = time.Second
	// patience is how long one attempt may take.
	patience = 15 * time.Second
	// retryMin and retryMax bound the time between attempts that fail.
	retryMin, retryMax = 2 * time.Second, time.Minute
)

// Publisher brings the latest status to its target, beside the agent's loop: a slow target delays nothing else.
type Publisher struct {
	target Target
	log    *slog.Logger
	wake   chan struct{}

	mu   sync.Mutex
	want *v1beta1.TunnelEndpointStatus
	err  error
}

// New makes a Publisher.
func New(target Target, log *slog.Logger) *Publisher {
	return &Publisher{target: target, log: log, wake: make(chan struct{}, 1)}
}

// Set names the status to publish. An equal one costs nothing, unless missing says that readers do not see it.
func (p *Publisher) Set(status v1beta1.TunnelEndpointStatus, missing bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.want != nil && !missing && equality.Semantic.DeepEqual(*p.want, status) {
		return
	}
	p.want = &status
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// Err is what keeps the status from being published; nil: nothing.
func (p *Publisher) Err() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

// Run publishes until ctx is done.
func (p *Publisher) Run(ctx context.Context) {
	retry := retryMin
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.wake:
		}
		for !p.once(ctx) {
			if !sleep(ctx, retry) {
				return
			}
			retry = min(2*retry, retryMax)
		}
		retry = retryMin
		if !sleep(ctx, pause) {
			return
		}
	}
}

// once makes one attempt with the latest status.
func (p *Publisher) once(ctx context.Context) bool {
	p.mu.Lock()
	want := *p.want
	p.mu.Unlock()
	attempt, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	written, err := p.target.Put(attempt, want)
	p.mu.Lock()
	p.err = err
	p.mu.Unlock()
	if err == nil && written {
		p.log.Info("published the node's TunnelEndpoint", "datapath", want.Datapath, "peers", len(want.Peers),
			"problems", len(want.Problems))
	}
	return err == nil
}

// sleep waits for d or until ctx is done, and reports whether it waited to the end.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
