package front

import (
	"cmp"
	"context"
	"net"
	"net/http"
	"sync"
	"time"
)

const (
	// lookAtPools is how often kept connections are compared with what became of their tunnels: an edge that is about to end
	// waits for them.
	lookAtPools = 250 * time.Millisecond
	// keptOfOne and keptOfAll bound the connections that wait for their next request, to one port of a node and altogether.
	keptOfOne, keptOfAll = 16, 1024
)

// pools keep HTTP connections to nodes. Once a tunnel takes no new streams, since its edge is about to end or has another
// certificate, what runs through it is cut off some time later, under whatever request is on its way then. So its connections
// are used no more.
//
// net/http's Transport is not used: it hands each request over between five goroutines (docs/design/proxy.md).
type pools struct {
	retreats func(gateway string) int
	dial     func(ctx context.Context, network, address string) (net.Conn, error)
	stop     chan struct{}
	group    sync.WaitGroup

	mu   sync.Mutex
	kept map[place][]*nodeConn // the one that was used last is the last
	all  int
	over bool
}

// place is what connections are kept for.
type place struct{ gateway, address string }

// newPools makes pools; close ends them.
func newPools(retreats func(string) int, dial func(context.Context, string, string) (net.Conn, error)) *pools {
	p := &pools{retreats: retreats, dial: dial, stop: make(chan struct{}), kept: map[place][]*nodeConn{}}
	p.group.Go(p.watch)
	return p
}

// RoundTrip implements http.RoundTripper. A request is sent again where a kept connection turns out to have ended, and the
// request may be repeated.
func (p *pools) RoundTrip(r *http.Request) (*http.Response, error) {
	at := place{destinationOf(r.Context()).gateway, r.URL.Host}
	for {
		c := p.take(at)
		reused := c != nil
		if !reused {
			var err error
			if c, err = p.connect(r.Context(), at); err != nil {
				closeBody(r)
				return nil, err
			}
		}
		response, heard, err := c.exchange(r)
		if err == nil || !reused || heard || !repeatable(r) || r.Context().Err() != nil {
			return response, err
		}
	}
}

func closeBody(r *http.Request) {
	if r.Body != nil {
		_ = r.Body.Close() // the error of what came before is what counts
	}
}

// repeatable: it changes nothing, or says itself that it may come twice, and there is no body that is gone.
func repeatable(r *http.Request) bool {
	if r.Body != nil && r.Body != http.NoBody {
		return false
	}
	switch cmp.Or(r.Method, http.MethodGet) {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace:
		return true
	}
	return r.Header.Get("Idempotency-Key") != "" || r.Header.Get("X-Idempotency-Key") != ""
}

func (p *pools) connect(ctx context.Context, at place) (*nodeConn, error) {
	n := p.retreats(at.gateway) // before: a tunnel that retreats meanwhile may be the one
	c, err := p.dial(ctx, "tcp", at.address)
	if err != nil {
		return nil, err
	}
	return &nodeConn{Conn: c, pools: p, at: at, retreats: n}, nil
}

// take returns a kept connection that still stands; nil: there is none.
func (p *pools) take(at place) *nodeConn {
	n := p.retreats(at.gateway)
	p.mu.Lock()
	defer p.mu.Unlock()
	for list := p.kept[at]; len(list) > 0; list = p.kept[at] {
		c := list[len(list)-1]
		p.forget(at, len(list)-1)
		if c.retreats == n && c.stands() {
			return c
		}
		_ = c.Close() // it is of no use
	}
	return nil
}

// forget: call it under the mutex.
func (p *pools) forget(at place, i int) {
	list := p.kept[at]
	list = append(list[:i], list[i+1:]...)
	list[:len(list)+1][len(list)] = nil
	p.all--
	if p.kept[at] = list; len(list) == 0 {
		delete(p.kept, at)
	}
}

// keep takes a connection back whose exchange is complete.
func (p *pools) keep(c *nodeConn) {
	n := p.retreats(c.at.gateway)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.over || c.retreats != n || len(p.kept[c.at]) >= keptOfOne || p.all >= keptOfAll {
		_ = c.Close() // it is of no use
		return
	}
	c.since = time.Now()
	p.kept[c.at] = append(p.kept[c.at], c)
	p.all++
}

// watch drops what is kept too long, was ended by its node, or whose tunnels have changed, also while nobody asks for it.
func (p *pools) watch() {
	ticker := time.NewTicker(lookAtPools)
	defer ticker.Stop()
	for {
		select {
		case <-p.stop:
			return
		case <-ticker.C:
			p.drop(func(c *nodeConn, retreats int) bool {
				return c.retreats != retreats || time.Since(c.since) > idleWeb || !c.stands()
			})
		}
	}
}

func (p *pools) drop(which func(c *nodeConn, retreats int) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for at, list := range p.kept {
		n := p.retreats(at.gateway)
		for i := len(list) - 1; i >= 0; i-- {
			if c := list[i]; which(c, n) {
				p.forget(at, i)
				_ = c.Close() // nobody uses it
			}
		}
	}
}

func (p *pools) close() {
	close(p.stop)
	p.group.Wait()
	p.mu.Lock()
	p.over = true
	p.mu.Unlock()
	p.drop(func(*nodeConn, int) bool { return true })
}
