// Package probe measures round trips and loss through the tunnels, by ICMP echo to the other gateways' node addresses.
package probe

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/ravencni/raven/pkg/ping"
)

const (
	// every is the least time between two rounds.
	every = 10 * time.Second
	// within is how long an answer is waited for; a later one is a loss.
	within = 2 * time.Second
	// remembered is how many rounds count for the loss.
	remembered = 20
)

// Quality of the way to one peer.
type Quality struct {
	// RTT in seconds of the last answer; negative: there was none yet.
	RTT float64
	// Loss is the share of the last rounds, at most 20, without an answer: 0 to 1.
	Loss float64
}

// Prober sends a round of probes when somebody looks, at most every ten seconds: who does not look pays nothing.
type Prober struct {
	targets func() map[string]netip.Addr
	ping    func(context.Context, netip.Addr) (time.Duration, error)
	asked   chan struct{}

	mu    sync.Mutex
	last  time.Time
	peers map[string]*history
}

type history struct {
	rtt      float64
	answered []bool
}

// New makes a Prober; targets are the peers' addresses by node, as they are at each round.
func New(targets func() map[string]netip.Addr) *Prober {
	return &Prober{targets: targets, ping: ping.Once, asked: make(chan struct{}, 1), peers: map[string]*history{}}
}

// Run sends rounds until ctx is done.
func (p *Prober) Run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.asked:
			p.round(ctx)
		}
	}
}

// Quality returns what is known by node, and asks for another round where the last one is old.
func (p *Prober) Quality() map[string]Quality {
	p.mu.Lock()
	defer p.mu.Unlock()
	if time.Since(p.last) >= every {
		p.last = time.Now()
		select {
		case p.asked <- struct{}{}:
		default:
		}
	}
	out := make(map[string]Quality, len(p.peers))
	for node, h := range p.peers {
		lost := 0
		for _, ok := range h.answered {
			if !ok {
				lost++
			}
		}
		out[node] = Quality{RTT: h.rtt, Loss: float64(lost) / float64(len(h.answered))}
	}
	return out
}

func (p *Prober) round(ctx context.Context) {
	targets := p.targets()
	var all sync.WaitGroup
	for node, addr := range targets {
		all.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, within)
			defer cancel()
			rtt, err := p.ping(ctx, addr)
			p.record(node, rtt, err)
		})
	}
	all.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	for node := range p.peers {
		if _, ok := targets[node]; !ok {
			delete(p.peers, node)
		}
	}
}

func (p *Prober) record(node string, rtt time.Duration, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	h := p.peers[node]
	if h == nil {
		h = &history{rtt: -1}
		p.peers[node] = h
	}
	if err == nil {
		h.rtt = rtt.Seconds()
	}
	h.answered = append(h.answered, err == nil)
	h.answered = slices.Delete(h.answered, 0, max(0, len(h.answered)-remembered))
}
