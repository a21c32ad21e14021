package tunnel

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/ravencni/raven/pkg/proxy/identity"
	"github.com/ravencni/raven/pkg/proxy/metrics"
	"github.com/ravencni/raven/pkg/proxy/mux"
	"github.com/ravencni/raven/pkg/proxy/refusal"
)

// Endpoint is an active proxy of an exposed gateway.
type Endpoint struct {
	Gateway, Node string
	// Address is ip:port.
	Address string
}

// EdgeOptions are what an Edge needs.
type EdgeOptions struct {
	Identity identity.Source
	Region   Region
	// Gateway names this edge's own region.
	Gateway string
	// Dial connects to gateways and nodes; nil: as the host does.
	Dial    DialFunc
	Metrics *metrics.Metrics
	Log     *slog.Logger
	// Linger is how long the streams of a tunnel that was replaced may live on; 0: an hour.
	Linger time.Duration
	// Drain is how long Run lets streams end when its context is done; 0: 20 seconds, which is less than the 30 that a
	// pod is given.
	Drain  time.Duration
	Limits Limits
}

// Edge keeps a tunnel to each endpoint.
type Edge struct {
	EdgeOptions
	// life ends when everything must end; drain ends the last streams.
	life    context.Context
	kill    context.CancelFunc
	group   sync.WaitGroup
	mu      sync.Mutex
	dialers map[Endpoint]*dialer
	ended   bool
}

// NewEdge makes an Edge without endpoints. Close ends it.
func NewEdge(opts EdgeOptions) *Edge {
	opts.Limits = opts.Limits.orDefault()
	if opts.Dial == nil {
		opts.Dial = (&net.Dialer{KeepAlive: opts.Limits.Silence}).DialContext
	}
	if opts.Linger == 0 {
		opts.Linger = time.Hour
	}
	if opts.Drain == 0 {
		opts.Drain = 20 * time.Second
	}
	e := &Edge{EdgeOptions: opts, dialers: map[Endpoint]*dialer{}}
	e.life, e.kill = context.WithCancel(context.Background())
	return e
}

// Set says which endpoints there are. A tunnel to one that is no more takes no new streams, and ends with its last one.
func (e *Edge) Set(endpoints []Endpoint) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.ended {
		return
	}
	for old, d := range e.dialers {
		if !slices.Contains(endpoints, old) {
			d.stop()
			delete(e.dialers, old)
		}
	}
	for _, to := range endpoints {
		if e.dialers[to] == nil {
			ctx, cancel := context.WithCancel(e.life)
			d := &dialer{edge: e, to: to, stop: cancel, renew: make(chan struct{}, 1), state: "connecting"}
			e.dialers[to] = d
			e.group.Go(func() { d.run(ctx) })
		}
	}
}

// Renew replaces each tunnel by one with the newest certificate; the streams of the old ones live on.
func (e *Edge) Renew() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, d := range e.dialers {
		select {
		case d.renew <- struct{}{}:
		default:
		}
	}
}

// Status is the state of each tunnel, sorted by endpoint: up, or why not.
func (e *Edge) Status() map[Endpoint]string {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := map[Endpoint]string{}
	for to, d := range maps.All(e.dialers) {
		out[to] = d.said()
	}
	return out
}

// Close lets the streams end, for as long as Drain says, and waits for everything.
func (e *Edge) Close() {
	e.mu.Lock()
	e.ended = true
	for _, d := range e.dialers {
		d.stop()
	}
	e.mu.Unlock()
	cut := time.AfterFunc(e.Drain, e.kill)
	e.group.Wait()
	cut.Stop()
	e.kill()
}

// served is one tunnel as the edge has it.
type served struct {
	mux     *mux.Conn
	handler *edgeHandler
	link    *link
	leaving chan struct{}
	done    chan struct{} // closed when all of it has ended
}

// connect dials, and returns once the other side has said that it takes the tunnel.
func (e *Edge) connect(ctx context.Context, to Endpoint) (*served, error) {
	ctx, cancel := context.WithTimeout(ctx, e.Limits.Handshake)
	defer cancel()
	config, err := identity.Client(e.Identity, to.Node)
	if err != nil {
		return nil, err
	}
	raw, err := e.Dial(ctx, "tcp", to.Address)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", to.Address, err)
	}
	if err := keepAlive(raw, e.Limits.vanished()); err != nil {
		return nil, errors.Join(err, raw.Close())
	}
	conn := tls.Client(raw, config)
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("TLS with %s: %w", to.Address, err), raw.Close())
	}
	s := e.serve(conn)
	select {
	case err = <-s.handler.welcome:
	case <-s.done:
		select {
		case err = <-s.handler.welcome: // a refusal, after which the other side closes
			if err != nil {
				return nil, fmt.Errorf("greet %s: %w", to.Address, err)
			}
		default:
		}
		err = fmt.Errorf("the other side closed the connection without a welcome: %w", cmp.Or(s.link.why(), net.ErrClosed))
	case <-ctx.Done():
		err = fmt.Errorf("no welcome within %v: %w", e.Limits.Handshake, ctx.Err())
	}
	if err != nil {
		s.close()
		return nil, fmt.Errorf("greet %s: %w", to.Address, err)
	}
	return s, nil
}

// serve starts the server of a tunnel; its goroutine ends when the link is closed.
func (e *Edge) serve(conn net.Conn) *served {
	s := &served{link: newLink(conn), leaving: make(chan struct{}), done: make(chan struct{})}
	s.handler = &edgeHandler{
		gateway: e.Gateway, region: e.Region, dial: e.Dial, metrics: e.Metrics,
		welcome: make(chan error, 1), left: sync.OnceFunc(func() { close(s.leaving) }),
	}
	s.mux = mux.Server(s.link, e.Limits.config(s.handler.serve))
	e.group.Go(func() {
		defer close(s.done)
		<-s.mux.Done()
		s.mux.Close()
	})
	return s
}

func (s *served) close() {
	_ = s.link.Close() // whatever it says, the link is closed
	<-s.done
}

// retire lets the streams of a tunnel end, and takes no new ones.
func (e *Edge) retire(s *served) {
	e.group.Go(func() {
		ctx, cancel := context.WithTimeout(e.life, e.Linger)
		defer cancel()
		if err := s.mux.Shutdown(ctx); err != nil {
			e.Log.Info("cutting off the streams of a tunnel that was replaced", "error", err)
		}
		s.close()
	})
}

// reasonOf a failed attempt, for the metrics.
func reasonOf(err error) refusal.Reason {
	var r *refusal.Error
	var unknown x509.UnknownAuthorityError
	var invalid x509.CertificateInvalidError
	var name x509.HostnameError
	var alert tls.AlertError
	var network net.Error
	switch {
	case errors.As(err, &r):
		return r.Reason
	case errors.As(err, &unknown), errors.As(err, &invalid), errors.As(err, &name), errors.As(err, &alert),
		strings.Contains(err.Error(), "remote error: tls:"):
		return refusal.NotAuthenticated
	case errors.Is(err, syscall.ECONNREFUSED):
		return refusal.DialRefused
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &network) && network.Timeout():
		return refusal.DialTimeout
	}
	return refusal.DialFailed
}
