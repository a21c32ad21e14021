package front

import (
	"context"
	"net"
	"net/http"
	"sync"
	"time"
)

// lookAtPools is how often idle connections are compared with what became of their tunnels: an edge that is about to end
// waits for them.
const lookAtPools = 250 * time.Millisecond

// pools keep HTTP connections to nodes, those of each gateway apart. Once a tunnel takes no new streams, since its edge is
// about to end or has another certificate, what runs through it is cut off some time later, under whatever request is on
// its way then. So another pool begins, and the old one closes each connection as it becomes idle.
type pools struct {
	retreats func(gateway string) int
	dial     func(ctx context.Context, network, address string) (net.Conn, error)
	stop     chan struct{}
	group    sync.WaitGroup

	mu sync.Mutex
	of map[string]pool
}

type pool struct {
	transport *http.Transport
	retreats  int // of its gateway, when it began
}

// newPools makes pools; close ends them.
func newPools(retreats func(string) int, dial func(context.Context, string, string) (net.Conn, error)) *pools {
	p := &pools{retreats: retreats, dial: dial, stop: make(chan struct{}), of: map[string]pool{}}
	p.group.Go(p.watch)
	return p
}

// RoundTrip implements http.RoundTripper.
func (p *pools) RoundTrip(r *http.Request) (*http.Response, error) {
	return p.transport(destinationOf(r.Context()).gateway).RoundTrip(r)
}

func (p *pools) transport(gateway string) *http.Transport {
	n := p.retreats(gateway)
	p.mu.Lock()
	defer p.mu.Unlock()
	now, ok := p.of[gateway]
	if ok && now.retreats == n {
		return now.transport
	}
	if ok {
		now.transport.CloseIdleConnections()
	}
	next := &http.Transport{
		DialContext: p.dial, DisableCompression: true,
		MaxIdleConns: 1024, MaxIdleConnsPerHost: 16, IdleConnTimeout: idleWeb, MaxResponseHeaderBytes: 1 << 20,
	}
	p.of[gateway] = pool{next, n}
	return next
}

// watch drops pools whose tunnels have changed, also while nobody asks for their gateway.
func (p *pools) watch() {
	ticker := time.NewTicker(lookAtPools)
	defer ticker.Stop()
	for {
		select {
		case <-p.stop:
			return
		case <-ticker.C:
		}
		p.mu.Lock()
		for gateway, old := range p.of {
			if p.retreats(gateway) != old.retreats {
				old.transport.CloseIdleConnections()
				delete(p.of, gateway)
			}
		}
		p.mu.Unlock()
	}
}

func (p *pools) close() {
	close(p.stop)
	p.group.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, last := range p.of {
		last.transport.CloseIdleConnections()
	}
}
