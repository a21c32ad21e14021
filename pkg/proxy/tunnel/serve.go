package tunnel

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"github.com/ravencni/raven/pkg/proxy/metrics"
	"github.com/ravencni/raven/pkg/proxy/refusal"
	"github.com/ravencni/raven/pkg/proxy/relay"
	"github.com/ravencni/raven/pkg/proxy/target"
)

// DialFunc connects to an address; network is tcp.
type DialFunc func(ctx context.Context, network, address string) (net.Conn, error)

// Region knows what an edge may dial.
type Region interface {
	// Reach returns the addresses of a node of the edge's own region, in the order in which to try them, or a
	// *refusal.Error.
	Reach(node string, port uint16) ([]netip.AddrPort, error)
}

// nodeDialLimit is how long a node may take to accept a connection; nodes are a LAN away.
const nodeDialLimit = 5 * time.Second

// ConnectNode dials the first of a node's addresses that answers. The error is a *refusal.Error.
func ConnectNode(ctx context.Context, dial DialFunc, gateway, node string, addresses []netip.AddrPort) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, nodeDialLimit)
	defer cancel()
	var last error
	for _, a := range addresses {
		c, err := dial(ctx, "tcp", a.String())
		if err == nil {
			return c, nil
		}
		last = err
	}
	var timeout net.Error
	switch {
	case last == nil:
		return nil, refusal.New(refusal.NoAddress, gateway, node, "it has no usable InternalIP")
	case errors.Is(last, syscall.ECONNREFUSED):
		return nil, refusal.New(refusal.DialRefused, gateway, node, "nothing listens there: %v", last)
	case errors.As(last, &timeout) && timeout.Timeout():
		return nil, refusal.New(refusal.DialTimeout, gateway, node, "%v", last)
	}
	return nil, refusal.New(refusal.DialFailed, gateway, node, "%v", last)
}

// edgeHandler serves the streams of one tunnel.
type edgeHandler struct {
	gateway string // of this edge
	region  Region
	dial    DialFunc
	metrics *metrics.Metrics
	// welcome takes the first word of the other side: nil, or why it refuses this tunnel.
	welcome chan error
	// running is held for reading by each request, and for writing by whoever waits for all of them.
	running sync.RWMutex
	// left is called when the other side is about to end.
	left func()
}

// ServeHTTP implements http.Handler.
func (h *edgeHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !h.running.TryRLock() {
		panic(http.ErrAbortHandler) // the tunnel has ended
	}
	defer h.running.RUnlock()
	if r.Method == http.MethodConnect {
		h.connect(w, r)
		return
	}
	switch r.URL.Path {
	case pathPing:
	case pathWelcome:
		h.greet(nil)
	case pathRefused:
		body, err := io.ReadAll(io.LimitReader(r.Body, 1<<10))
		if err != nil {
			body = []byte(err.Error())
		}
		h.greet(refusal.New(refusal.Known(r.Header.Get(refusal.HeaderReason)), r.Header.Get(refusal.HeaderGateway), "", "%s", body))
	case pathLeaving:
		h.left()
	default:
		http.Error(w, "raven proxy: a reverse tunnel has no "+r.Method+" of this", http.StatusNotFound)
	}
}

func (h *edgeHandler) greet(err error) {
	select {
	case h.welcome <- err:
	default: // said before
	}
}

// connect carries one connection to a node.
func (h *edgeHandler) connect(w http.ResponseWriter, r *http.Request) {
	node, err := h.reach(r)
	if err != nil {
		e := refusal.Of(err)
		h.metrics.Refused(metrics.Edge, e.Reason)
		refusal.Write(w, e)
		return
	}
	h.metrics.Opened(metrics.Edge)
	defer h.metrics.Closed(metrics.Edge)
	w.WriteHeader(http.StatusOK)
	control := http.NewResponseController(w)
	if err := control.Flush(); err != nil {
		relay.Abort(node)
		return
	}
	countUp, countDown := h.metrics.Counters(metrics.Edge)

	up := make(chan error, 1)
	go func() {
		err := relay.FromStream(node, r.Body, func(n int) error { countUp.Add(float64(n)); return nil })
		if err == nil {
			err = relay.CloseWrite(node)
		} else {
			relay.Abort(node) // which ends the other direction, too
		}
		up <- err
	}()
	err = relay.FromSocket(w, node, func(n int) error {
		countDown.Add(float64(n))
		return control.Flush()
	})
	// The node has ended the stream, and HTTP/2 has no way to say that it would still listen.
	if err != nil {
		relay.Abort(node)
	} else {
		_ = node.Close() // it has ended already
	}
	_ = r.Body.Close() // wakes the other direction
	<-up
	if err != nil {
		panic(http.ErrAbortHandler) // resets the stream: the client must not take this for an end
	}
}

func (h *edgeHandler) reach(r *http.Request) (net.Conn, error) {
	t, err := target.Parse(r.Host, 0)
	if err != nil {
		return nil, refusal.New(refusal.BadTarget, h.gateway, "", "%v", err)
	}
	addresses, err := h.region.Reach(t.Host.String(), t.Port)
	if err != nil {
		return nil, fmt.Errorf("reach %s: %w", t, err)
	}
	return ConnectNode(r.Context(), h.dial, h.gateway, t.Host.String(), addresses)
}
