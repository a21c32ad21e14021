// Package publish writes the node's own TunnelEndpoint to where the other nodes read it, and only when it changes.
package publish

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
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
	// spread is the time within which the agents of a cluster write what no other agent acts on, such as a tunnel that
	// came up: one event may concern thousands of them, and each write goes to all that watch.
	spread = 5 * time.Second
	// retryMin and retryMax bound the time between attempts that fail.
	retryMin, retryMax = 2 * time.Second, time.Minute
)

// Publisher brings the latest status to its target, beside the agent's loop: a slow target delays nothing else.
type Publisher struct {
	target Target
	log    *slog.Logger
	wake   chan struct{}

	// delay is how long a status may wait that differs in nothing that other agents act on.
	delay func(v1beta1.TunnelEndpointStatus) time.Duration

	mu      sync.Mutex
	want    *v1beta1.TunnelEndpointStatus
	missing bool                          // readers do not see what was published
	told    *v1beta1.TunnelEndpointStatus // what the target was given last
	err     error
}

// New makes a Publisher that writes changes at once.
func New(target Target, log *slog.Logger) *Publisher {
	none := func(v1beta1.TunnelEndpointStatus) time.Duration { return 0 }
	return &Publisher{target: target, log: log, wake: make(chan struct{}, 1), delay: none}
}

// NewSpread makes a Publisher for a target that many share: mere news of peers and problems wait up to 5 s, each node
// and each news for its own time.
func NewSpread(target Target, node string, log *slog.Logger) *Publisher {
	p := New(target, log)
	p.delay = func(status v1beta1.TunnelEndpointStatus) time.Duration { return delayOf(node, status) }
	return p
}

// delayOf is a time from 0 to spread that looks random and is not, so that tests and people can rely on it.
func delayOf(node string, status v1beta1.TunnelEndpointStatus) time.Duration {
	content, err := json.Marshal(status)
	if err != nil {
		return 0 // then it cannot be written either
	}
	h := sha256.New()
	h.Write(append([]byte(node+"\n"), content...))
	return time.Duration(binary.BigEndian.Uint64(h.Sum(nil)) % uint64(spread))
}

// Set names the status to publish. An equal one costs nothing, unless missing says that readers do not see it.
func (p *Publisher) Set(status v1beta1.TunnelEndpointStatus, missing bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.want != nil && !missing && equality.Semantic.DeepEqual(*p.want, status) {
		return
	}
	p.want, p.missing = &status, p.missing || missing
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
		if !p.hold(ctx) {
			return
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

// hold waits until the latest status may be written. It reports false when ctx is done.
func (p *Publisher) hold(ctx context.Context) bool {
	wait, urgent := p.due()
	if urgent || wait == 0 {
		return true
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-timer.C:
			return true
		case <-p.wake:
			if _, urgent := p.due(); urgent {
				return true
			}
		}
	}
}

// due says how long the latest status may wait, and whether it must not: others act on a first one, and on key, port,
// addresses, MTU and datapath.
func (p *Publisher) due() (wait time.Duration, urgent bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.told == nil || p.missing {
		return 0, true
	}
	want, told := *p.want, *p.told
	for _, s := range []*v1beta1.TunnelEndpointStatus{&want, &told} {
		s.Peers, s.PeersUp, s.Problems = nil, "", nil
	}
	return p.delay(*p.want), !equality.Semantic.DeepEqual(want, told)
}

// once makes one attempt with the latest status.
func (p *Publisher) once(ctx context.Context) bool {
	p.mu.Lock()
	want := *p.want
	p.missing = false
	p.mu.Unlock()
	attempt, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	written, err := p.target.Put(attempt, want)
	p.mu.Lock()
	if p.err = err; err == nil {
		p.told = &want
	}
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
