// Package front holds the front ends of the L7 proxy, where clients of an exposed gateway's region ask for nodes by name:
// TLS by server name, HTTP by Host, and HTTP CONNECT for API servers. See docs/design/proxy.md.
package front

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ravencni/raven/pkg/proxy/identity"
	"github.com/ravencni/raven/pkg/proxy/metrics"
	"github.com/ravencni/raven/pkg/proxy/refusal"
	"github.com/ravencni/raven/pkg/proxy/target"
	"github.com/ravencni/raven/pkg/proxy/tunnel"
)

const (
	// helloLimit is how long a client may take to say what it wants: a ClientHello, or HTTP headers.
	helloLimit = 10 * time.Second
	// DefaultIdle is how long a stream may carry nothing; the kubelet's own limit for streams.
	DefaultIdle = 4 * time.Hour
	// maxHeaders bounds an HTTP request's headers in bytes.
	maxHeaders = 16 << 10
	// maxConnections of all front ends, and maxPerSource of one address: one client cannot take all.
	maxConnections, maxPerSource = 16_384, 8_192
	// maxPending of one address: connections of which nobody knows yet what they want.
	maxPending = 256
)

// Route is how a target is reached: through a tunnel of Gateway, or where Direct is not empty, by one of these
// addresses.
type Route struct {
	Gateway, Node string
	Direct        []netip.AddrPort
}

// Directory knows the cluster. Its methods may be called from any goroutine.
type Directory interface {
	// Find returns the way to a node for the front ends TLS and HTTP, or a *refusal.Error.
	Find(to target.HostPort) (Route, error)
	// FindAny does it for clients that have a certificate, and also for what is no node.
	FindAny(ctx context.Context, to target.HostPort) (Route, error)
	// Allowed says whether clients may connect from there.
	Allowed(source netip.Addr) bool
}

// Options are what a Front needs.
type Options struct {
	Hub       *tunnel.Hub
	Directory Directory
	Identity  identity.Source
	// Dial reaches what is in the own region; nil: as the host does.
	Dial    tunnel.DialFunc
	Metrics *metrics.Metrics
	Log     *slog.Logger
	// Access takes a line for each stream or request; nil: nobody does.
	Access *slog.Logger
	// Idle is how long a stream may carry nothing; 0: DefaultIdle.
	Idle time.Duration
	// Hello is how long a client may take to say what it wants; 0: 10 s.
	Hello time.Duration
}

// Front is all front ends of one proxy.
type Front struct {
	Options
	group sync.WaitGroup

	mu        sync.Mutex
	clients   map[*client]bool
	perSource map[netip.Addr]int
	pending   map[netip.Addr]int
	closed    bool
	// accepting counts the listeners that may still hand over a connection.
	accepting int
}

// New makes a Front that listens nowhere yet.
func New(opts Options) *Front {
	if opts.Dial == nil {
		opts.Dial = (&net.Dialer{}).DialContext
	}
	if opts.Idle == 0 {
		opts.Idle = DefaultIdle
	}
	if opts.Hello == 0 {
		opts.Hello = helloLimit
	}
	if opts.Access == nil {
		opts.Access = slog.New(slog.DiscardHandler)
	}
	return &Front{Options: opts, clients: map[*client]bool{}, perSource: map[netip.Addr]int{}, pending: map[netip.Addr]int{}}
}

// client is a connection that was let in.
type client struct {
	net.Conn
	front  *Front
	source netip.Addr
	once   sync.Once
	// undecided is true until it is known what the client wants; guarded by the front's mutex.
	undecided bool
	// name is the client's in its certificate.
	name string
	web  webState
	// stream to the node, while there is one: it ends with the connection, also where nobody reads that any more.
	stream atomic.Pointer[tunnel.Stream]
}

// cut ends the stream to the node.
func (c *client) cut() {
	if s := c.stream.Load(); s != nil {
		s.Reset()
	}
}

// NetConn is the connection below, for relay.Abort.
func (c *client) NetConn() net.Conn { return c.Conn }

// socket is the connection whose bytes the stream's are: the system's own where nothing is in between, so that it can be
// read and written without waiting.
func (c *client) socket() net.Conn {
	if c.web.kind == "" || c.web.requests.Load() > 0 { // else Write has something to note
		return c.Conn
	}
	return c
}

// CloseWrite ends the sending direction.
func (c *client) CloseWrite() error {
	if w, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return nil
}

// Close implements net.Conn.
func (c *client) Close() error {
	err := c.Conn.Close()
	c.once.Do(func() {
		c.cut()
		c.front.leave(c)
	})
	return err
}

// decided ends the time in which a connection counts as undecided.
func (c *client) decided() {
	f := c.front
	f.mu.Lock()
	defer f.mu.Unlock()
	if c.undecided {
		c.undecided = false
		if f.pending[c.source]--; f.pending[c.source] == 0 {
			delete(f.pending, c.source)
		}
	}
}

func (f *Front) leave(c *client) {
	c.decided()
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.clients, c)
	if f.perSource[c.source]--; f.perSource[c.source] == 0 {
		delete(f.perSource, c.source)
	}
}

// enter lets a connection in, or says why not. Whoever serves it calls group.Done.
func (f *Front) enter(c net.Conn) (*client, error) {
	address, err := netip.ParseAddrPort(c.RemoteAddr().String())
	if err != nil {
		return nil, refusal.New(refusal.SourceNotAllowed, "", "", "%v", err)
	}
	source := address.Addr().Unmap()
	if !f.Directory.Allowed(source) {
		return nil, refusal.New(refusal.SourceNotAllowed, "", "", "%s is not among the allowed sources", source)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.closed:
		return nil, refusal.New(refusal.Off, "", "", "the proxy ends")
	case len(f.clients) >= maxConnections, f.perSource[source] >= maxPerSource, f.pending[source] >= maxPending:
		return nil, refusal.New(refusal.Busy, "", "", "too many connections from %s", source)
	}
	out := &client{Conn: c, front: f, source: source, undecided: true}
	f.clients[out] = true
	f.perSource[source]++
	f.pending[source]++
	f.group.Add(1) // under the lock, so that Close waits for it
	return out, nil
}

// accept lets connections in until the listener is closed, and runs serve for each. begun has the calls of serve
// that have not returned yet.
func (f *Front) accept(l net.Listener, front string, begun *sync.WaitGroup, serve func(*client)) error {
	f.count(1)
	defer f.count(-1)
	for {
		raw, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		c, err := f.enter(raw)
		if err != nil {
			f.refuse(front, raw.RemoteAddr().String(), target.HostPort{}, err)
			_ = raw.Close() // a stranger gets no word
			continue
		}
		begun.Add(1)
		go func() {
			defer f.group.Done()
			defer begun.Done()
			serve(c)
		}()
	}
}

// refuse counts and logs a refusal.
func (f *Front) refuse(front, source string, to target.HostPort, err error) *refusal.Error {
	e := refusal.Of(err)
	f.Metrics.Refused(front, e.Reason)
	asked := ""
	if to.Port != 0 {
		asked = to.String()
	}
	f.Access.Info("refused", "front", front, "source", source, "target", asked, "gateway", e.Gateway, "reason", string(e.Reason), "detail", e.Detail)
	return e
}

func (f *Front) count(accepting int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.accepting += accepting
}

// Drain waits until no client is connected, nor one on its way in, or ctx is done. Close the listeners before.
func (f *Front) Drain(ctx context.Context) {
	const look = 100 * time.Millisecond
	ticker := time.NewTicker(look)
	defer ticker.Stop()
	for {
		f.mu.Lock()
		n := len(f.clients) + f.accepting
		f.mu.Unlock()
		if n == 0 {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// Close cuts off every client and waits for what belongs to them.
func (f *Front) Close() {
	f.mu.Lock()
	f.closed = true
	all := make([]*client, 0, len(f.clients))
	for c := range f.clients {
		all = append(all, c)
	}
	f.mu.Unlock()
	for _, c := range all {
		_ = c.Close() // nothing is left to say
	}
	f.group.Wait()
}
