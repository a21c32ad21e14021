package tunnel

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"syscall"
	"time"

	"github.com/ravencni/raven/pkg/proxy/metrics"
	"github.com/ravencni/raven/pkg/proxy/mux"
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
	// left is called when the other side is about to end.
	left func()
}

func (h *edgeHandler) serve(s *mux.Stream) {
	r := s.Request()
	if r.Method == http.MethodConnect {
		h.connect(s, r.Authority)
		return
	}
	answer := mux.Response{Status: http.StatusOK}
	switch r.Path {
	case pathPing:
	case pathWelcome:
		h.greet(nil)
	case pathRefused:
		body, err := io.ReadAll(io.LimitReader(s, 1<<10))
		if err != nil {
			body = []byte(err.Error())
		}
		h.greet(refusal.New(refusal.Known(r.Header[headerReason]), r.Header[headerGateway], "", "%s", body))
	case pathLeaving:
		h.left()
	default:
		answer.Status = http.StatusNotFound
	}
	_ = s.Respond(answer, true) // whoever has asked and is gone misses nothing
}

func (h *edgeHandler) greet(err error) {
	select {
	case h.welcome <- err:
	default: // said before
	}
}

// connect carries one connection to a node.
func (h *edgeHandler) connect(s *mux.Stream, authority string) {
	node, err := h.reach(s, authority)
	if err != nil {
		e := refusal.Of(err)
		h.metrics.Refused(metrics.Edge, e.Reason)
		answer := &answer{stream: s, header: http.Header{}}
		refusal.Write(answer, e)
		_ = s.CloseWrite() // whoever has asked and is gone misses nothing
		return
	}
	h.metrics.Opened(metrics.Edge)
	defer h.metrics.Closed(metrics.Edge)
	if err := s.Respond(mux.Response{Status: http.StatusOK}, false); err != nil {
		relay.Abort(node)
		return
	}
	countUp, countDown := h.metrics.Counters(metrics.Edge)
	delivered := make(chan struct{})
	s.Deliver(node, func(n int) { countUp.Add(float64(n)) }, func(err error) {
		if err == nil {
			err = relay.CloseWrite(node)
		}
		if err != nil {
			relay.Abort(node) // which ends the other direction, too
		}
		close(delivered)
	})
	err = s.Send(node, func(n int) { countDown.Add(float64(n)) })
	// The node has ended the stream, and HTTP/2 has no way to say that it would still listen.
	if err == nil {
		err = s.CloseWrite()
	}
	if err != nil {
		s.Reset() // the client must not take this for an end
		relay.Abort(node)
	} else {
		s.Close()
		_ = node.Close() // it has ended already
	}
	<-delivered
}

func (h *edgeHandler) reach(s *mux.Stream, authority string) (net.Conn, error) {
	t, err := target.Parse(authority, 0)
	if err != nil {
		return nil, refusal.New(refusal.BadTarget, h.gateway, "", "%v", err)
	}
	addresses, err := h.region.Reach(t.Host.String(), t.Port)
	if err != nil {
		return nil, fmt.Errorf("reach %s: %w", t, err)
	}
	ctx, cancel := s.Context(context.Background())
	defer cancel()
	return ConnectNode(ctx, h.dial, h.gateway, t.Host.String(), addresses)
}

// answer writes a response to a stream.
type answer struct {
	stream *mux.Stream
	header http.Header
}

// Header implements http.ResponseWriter.
func (a *answer) Header() http.Header { return a.header }

// WriteHeader implements http.ResponseWriter.
func (a *answer) WriteHeader(status int) {
	r := mux.Response{Status: status, Header: map[string]string{}}
	for name := range a.header {
		r.Header[strings.ToLower(name)] = a.header.Get(name)
	}
	_ = a.stream.Respond(r, false) // the writes that follow tell
}

// Write implements http.ResponseWriter.
func (a *answer) Write(p []byte) (int, error) { return a.stream.Write(p) }
