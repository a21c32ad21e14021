package tunnel

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ravencni/raven/pkg/proxy/identity"
	"github.com/ravencni/raven/pkg/proxy/metrics"
	"github.com/ravencni/raven/pkg/proxy/mux"
	"github.com/ravencni/raven/pkg/proxy/refusal"
)

// maxPending bounds the tunnels that have not proved yet who they are; a stranger can hold no more.
const maxPending = 256

// HubOptions are what a Hub needs.
type HubOptions struct {
	Identity identity.Source
	// Admit returns the gateway whose nodes are reached through the proxy on a node, or a *refusal.Error. What the peer says
	// of itself does not matter: a tunnel serves the region that the cluster's objects put its node in.
	Admit   func(node string) (gateway string, err error)
	Metrics *metrics.Metrics
	Log     *slog.Logger
	Limits  Limits
}

// Hub is the side that edges dial.
type Hub struct {
	HubOptions
	pending chan struct{}
	group   sync.WaitGroup

	mu       sync.Mutex
	tunnels  map[*accepted]bool
	draining bool
	// retreats counts, by gateway, the tunnels that came to take no new streams.
	retreats map[string]int
	// born is when the hub began, lost when the last tunnel of a gateway ended, arrived is closed when there is another one.
	born    time.Time
	lost    map[string]time.Time
	arrived chan struct{}
}

// accepted is one tunnel.
type accepted struct {
	gateway, node string
	link          *link
	mux           *mux.Conn
	// streams that are open, for nodes.
	streams atomic.Int64
	// retired takes no new streams; guarded by the hub's mutex, as is rtt.
	retired bool
	// counted among the hub's retreats; guarded by its mutex, too.
	counted bool
	rtt     time.Duration
	// doubted: it did not answer while others may; until it does it comes last.
	doubted atomic.Bool
	// ending: this side ends it, so that its end is no loss.
	ending atomic.Bool
}

// end closes a tunnel that is no longer wanted.
func (t *accepted) end() {
	t.ending.Store(true)
	_ = t.link.Close() // whatever it says, the link is closed
}

// NewHub makes a hub without tunnels.
func NewHub(opts HubOptions) *Hub {
	opts.Limits = opts.Limits.orDefault()
	return &Hub{HubOptions: opts, pending: make(chan struct{}, maxPending), tunnels: map[*accepted]bool{}, retreats: map[string]int{},
		born: time.Now(), lost: map[string]time.Time{}, arrived: make(chan struct{})}
}

// Serve takes tunnels until the listener is closed. Close ends the tunnels themselves.
func (h *Hub) Serve(listener net.Listener) error {
	config := identity.Server(h.Identity, identity.Protocol)
	for {
		c, err := listener.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return nil
			}
			return fmt.Errorf("accept reverse tunnels: %w", err)
		}
		select {
		case h.pending <- struct{}{}:
		default:
			h.Metrics.Refused(metrics.FrontTunnel, refusal.Busy)
			_ = c.Close() // nothing was said yet
			continue
		}
		if !h.begin() {
			<-h.pending
			_ = c.Close() // the hub has ended
			continue
		}
		go func() {
			defer h.group.Done()
			t, err := h.accept(c, config)
			<-h.pending
			if err != nil {
				e := refusal.Of(err)
				h.Metrics.Refused(metrics.FrontTunnel, e.Reason)
				h.Log.Warn("a reverse tunnel was refused", "source", c.RemoteAddr().String(), "error", err)
				_ = c.Close()
				return
			}
			h.keep(t)
		}()
	}
}

// begin counts one more goroutine for Close to wait for, unless it does so already.
func (h *Hub) begin() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.draining {
		return false
	}
	h.group.Add(1)
	return true
}

// accept proves who is there and makes the tunnel known.
func (h *Hub) accept(raw net.Conn, config *tls.Config) (*accepted, error) {
	ctx, cancel := context.WithTimeout(context.Background(), h.Limits.Handshake)
	defer cancel()
	if err := keepAlive(raw, h.Limits.vanished()); err != nil {
		return nil, err
	}
	conn := tls.Server(raw, config)
	if err := identity.Handshake(ctx, conn); err != nil {
		return nil, err
	}
	leaf := conn.ConnectionState().PeerCertificates[0]
	t := &accepted{link: newLink(conn)}
	node, refused := identity.NodeOf(leaf)
	if refused == nil {
		t.node = node
		t.gateway, refused = h.Admit(node)
	}
	t.mux = mux.Client(t.link, h.Limits.config(nil))
	t.link.take(t.mux)
	if refused != nil {
		err := errors.Join(refused, t.refuse(ctx, refusal.Of(refused)))
		t.mux.Close()
		return nil, err
	}
	if err := t.tell(ctx, pathWelcome, nil); err != nil {
		reason := refusal.BadRequest
		if ctx.Err() != nil {
			reason = refusal.Slow
		}
		t.mux.Close()
		return nil, refusal.New(reason, t.gateway, t.node, "it does not serve its end of the tunnel: %v", err)
	}
	h.mu.Lock()
	if h.draining {
		h.mu.Unlock()
		t.mux.Close()
		return nil, refusal.New(refusal.Off, "", "", "this proxy is about to end")
	}
	h.tunnels[t] = true
	close(h.arrived)
	h.arrived = make(chan struct{})
	h.mu.Unlock()
	h.Recheck() // whoever changed what Admit says has not seen this tunnel
	// What proved the identity has an end; the edge replaces the tunnel long before.
	time.AfterFunc(time.Until(leaf.NotAfter), t.end)
	return t, nil
}

// keep measures a tunnel's round trip and waits for its end.
func (h *Hub) keep(t *accepted) {
	h.Log.Info("a reverse tunnel is up", "gateway", t.gateway, "node", t.node)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	ticker := time.NewTimer(0)
	defer ticker.Stop()
	wasIdle := false
	for {
		select {
		case <-t.link.closed:
			h.forget(t)
			t.mux.Close()
			how, lost := h.lossOf(t.link)
			if !lost || t.ending.Load() || t.link.goodbye() {
				h.Log.Info("a reverse tunnel has ended", "gateway", t.gateway, "node", t.node)
				return
			}
			h.Metrics.TunnelLost(how)
			h.Log.Warn("a reverse tunnel was lost", "gateway", t.gateway, "node", t.node, "how", how, "error", t.link.why())
			return
		case <-ticker.C:
			begin := time.Now()
			pinging, done := context.WithTimeout(ctx, h.Limits.Silence)
			err := t.tell(pinging, pathPing, nil)
			done()
			if err != nil && t.mux.Err() != nil {
				_ = t.link.Close() // HTTP/2 has given it up
				continue
			}
			h.mu.Lock()
			if err == nil {
				t.rtt = time.Since(begin)
				t.doubted.Store(false)
			}
			idle := t.retired && t.streams.Load() == 0
			h.mu.Unlock()
			if idle && wasIdle {
				t.end() // nobody needs it, nor did one silence ago: a region that comes right back finds it again
			}
			wasIdle = idle
			ticker.Reset(h.Limits.Silence)
		}
	}
}

// lossOf says whether the end of a tunnel was a loss, and how, by the error that reading from it ended with.
func (h *Hub) lossOf(l *link) (how metrics.Loss, lost bool) {
	var network net.Error
	err := l.why()
	switch {
	case errors.As(err, &network) && network.Timeout():
		return metrics.LostSilent, true
	// HTTP/2 has closed it: no ping was answered, or the peer wanted it to end. The reader may not have seen that yet.
	case err == nil, errors.Is(err, net.ErrClosed):
		return metrics.LostSilent, l.quiet() >= h.Limits.Silence
	}
	return metrics.LostClosed, true
}

func (h *Hub) forget(t *accepted) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.tunnels, t)
	h.lost[t.gateway] = time.Now()
	if !t.counted {
		h.retreats[t.gateway]++
	}
}

// open says whether a tunnel takes new streams: it is admitted, connected, and its edge has not said that it is about to
// end. Call it under the hub's mutex.
func (t *accepted) open() bool {
	return !t.retired && t.mux.Available()
}

// Retreats counts the tunnels of a gateway that came to take no new streams. Where the number has changed, a stream that is
// kept for later use may be one that is cut off soon.
func (h *Hub) Retreats(gateway string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	for t := range h.tunnels {
		if t.gateway == gateway && !t.counted && !t.open() {
			t.counted = true
			h.retreats[gateway]++
		}
	}
	return h.retreats[gateway]
}

// Recheck asks Admit again for each tunnel: one that serves another region now, or none, takes no new streams; one whose
// node has left the cluster ends at once.
func (h *Hub) Recheck() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for t := range h.tunnels {
		gateway, err := h.Admit(t.node)
		switch {
		case err != nil && refusal.Of(err).Reason == refusal.UnknownNode:
			t.end()
		case err != nil || gateway != t.gateway:
			t.retired = true
		default:
			t.retired = false
			t.counted = t.counted && !t.open()
		}
	}
}

// Tunnels lists what is connected, in no order.
func (h *Hub) Tunnels() []metrics.Tunnel {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := make([]metrics.Tunnel, 0, len(h.tunnels))
	for t := range h.tunnels {
		out = append(out, metrics.Tunnel{Gateway: t.gateway, Node: t.node, RTT: t.rtt.Seconds(), Streams: int(t.streams.Load())})
	}
	return out
}

// Drain tells the edges to look for another proxy, and returns once no stream is open or ctx is done. Close the listener
// before.
func (h *Hub) Drain(ctx context.Context) {
	h.mu.Lock()
	h.draining = true
	var all []*accepted
	for t := range h.tunnels {
		all = append(all, t)
	}
	h.mu.Unlock()
	var group sync.WaitGroup
	for _, t := range all {
		group.Go(func() {
			telling, cancel := context.WithTimeout(ctx, h.Limits.Silence)
			defer cancel()
			if err := t.tell(telling, pathLeaving, nil); err != nil {
				h.Log.Info("an edge was not told that this proxy ends", "node", t.node, "error", err)
			}
		})
	}
	group.Wait()
	const look = 100 * time.Millisecond
	for h.streams() > 0 && await(ctx, look) == nil {
	}
}

func (h *Hub) streams() (n int) {
	for _, t := range h.Tunnels() {
		n += t.Streams
	}
	return n
}

// Close ends every tunnel and waits for all that belongs to them.
func (h *Hub) Close() {
	h.mu.Lock()
	h.draining = true
	for t := range h.tunnels {
		t.end()
	}
	h.mu.Unlock()
	h.group.Wait()
}
