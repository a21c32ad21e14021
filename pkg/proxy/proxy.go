// Package proxy runs the L7 proxy of one node: it makes of the cluster's objects what this node does, and switches front
// ends and tunnels while it runs. See docs/design/proxy.md.
package proxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ravencni/raven/pkg/controller/services"
	"github.com/ravencni/raven/pkg/proxy/certificates"
	"github.com/ravencni/raven/pkg/proxy/directory"
	"github.com/ravencni/raven/pkg/proxy/front"
	"github.com/ravencni/raven/pkg/proxy/identity"
	"github.com/ravencni/raven/pkg/proxy/metrics"
	"github.com/ravencni/raven/pkg/proxy/target"
	"github.com/ravencni/raven/pkg/proxy/tunnel"
	"github.com/ravencni/raven/pkg/topology"
)

const (
	// retry is how long after a listener could not be opened, or could not accept (no file descriptors, for one), it is
	// opened again.
	retry = 5 * time.Second
	// drainLimit is how long streams may go on when the proxy ends: less than the 30 s that a pod is given.
	drainLimit = 20 * time.Second
)

// Options of a proxy.
type Options struct {
	Node string
	// Identity has the node's certificate.
	Identity identity.Source
	// Wanted is told whether this node has a role, and so needs a certificate; nil: nobody wants to know.
	Wanted func(bool)
	// HTTPPort and ConnectPort are those of the front ends; 0: 10264 and 10267.
	HTTPPort, ConnectPort int
	// Targets are the listeners of the HTTPS ports, as the internal Service has them.
	Targets func() services.Targets
	// Listen and Dial are the host's where nil.
	Listen func(ctx context.Context, address string) (net.Listener, error)
	Dial   tunnel.DialFunc
	Log    *slog.Logger
	// Drain is how long streams may go on when the proxy ends; 0: 20 s.
	Drain time.Duration
	// Retry is how long after a listener failed it is opened again; 0: 5 s.
	Retry time.Duration
}

// Proxy of one node.
type Proxy struct {
	Options
	metrics *metrics.Metrics
	now     live
	state   atomic.Pointer[topology.State]
	changed chan struct{}
	renewed chan struct{}

	// Owned by Run.
	edge      *tunnel.Edge
	edgeOf    string // the region that the edge was made for
	hub       atomic.Pointer[tunnel.Hub]
	front     *front.Front
	listeners map[string]net.Listener // what it is and where -> the listener
	ended     chan endedListener
	group     sync.WaitGroup
}

// endedListener is one that serves no more although nobody closed it.
type endedListener struct {
	key      string
	listener net.Listener
}

// New makes a proxy that does nothing yet.
func New(opts Options) *Proxy {
	if opts.HTTPPort == 0 {
		opts.HTTPPort = 10264
	}
	if opts.ConnectPort == 0 {
		opts.ConnectPort = 10267
	}
	if opts.Listen == nil {
		opts.Listen = func(ctx context.Context, address string) (net.Listener, error) {
			return (&net.ListenConfig{}).Listen(ctx, "tcp", address)
		}
	}
	if opts.Drain == 0 {
		opts.Drain = drainLimit
	}
	if opts.Retry == 0 {
		opts.Retry = retry
	}
	p := &Proxy{Options: opts, changed: make(chan struct{}, 1), renewed: make(chan struct{}, 1), listeners: map[string]net.Listener{}, ended: make(chan endedListener)}
	p.metrics = metrics.New(p.tunnels)
	p.now.Store(directory.New(topology.State{}, opts.Node))
	return p
}

// Names of this node for its certificate.
func (p *Proxy) Names() certificates.Names { return p.now.Load().NamesOf(p.Node) }

// Gateway is the node's region, as far as the proxy has heard; empty: none.
func (p *Proxy) Gateway() string { return p.now.Load().Gateway }

// Metrics of this proxy, for a registry.
func (p *Proxy) Metrics() *metrics.Metrics { return p.metrics }

func (p *Proxy) tunnels() []metrics.Tunnel {
	if h := p.hub.Load(); h != nil {
		return h.Tunnels()
	}
	return nil
}

// Set takes the cluster's objects, which nobody may change from now on.
func (p *Proxy) Set(state topology.State) {
	p.state.Store(&state)
	notice(p.changed)
}

// Renewed says that there is another certificate.
func (p *Proxy) Renewed() { notice(p.renewed) }

func notice(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Run works until ctx is done, and then lets streams end.
func (p *Proxy) Run(ctx context.Context) {
	timer := time.NewTimer(time.Hour)
	timer.Stop()
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			p.stopEdge()
			p.stopFront()
			p.group.Wait()
			return
		case <-p.renewed:
			if p.edge != nil {
				p.edge.Renew()
			}
		case <-p.changed:
			p.apply(ctx, timer)
		case e := <-p.ended:
			if p.listeners[e.key] == e.listener {
				delete(p.listeners, e.key)
				timer.Reset(p.Retry)
			}
		case <-timer.C:
			p.apply(ctx, timer)
		}
	}
}

// apply brings the proxy to what the objects say; again in a while where something did not work.
func (p *Proxy) apply(ctx context.Context, timer *time.Timer) {
	state := p.state.Load()
	if state == nil {
		return
	}
	d := directory.New(*state, p.Node)
	if before := p.now.Swap(d); before.String() != d.String() {
		p.Log.Info("the proxy's role", "is", d.String())
	}
	if p.Wanted != nil {
		p.Wanted(d.Active)
	}
	p.applyEdge(d)
	if !d.Front {
		p.stopFront()
		return
	}
	if err := p.applyFront(ctx, d); err != nil {
		p.Log.Warn("a front end of the proxy does not listen; trying again", "error", err)
		timer.Reset(p.Retry)
	}
	if hub := p.hub.Load(); hub != nil { // there is none before the node has an address
		hub.Recheck()
	}
}

func (p *Proxy) applyEdge(d *directory.Directory) {
	if p.edge != nil && (!d.Active || p.edgeOf != d.Gateway) {
		p.stopEdge()
	}
	if !d.Active {
		return
	}
	if p.edge == nil {
		p.edgeOf = d.Gateway
		p.edge = tunnel.NewEdge(tunnel.EdgeOptions{
			Identity: p.Identity, Region: &p.now, Gateway: d.Gateway, Dial: p.Dial, Metrics: p.metrics, Log: p.Log, Drain: p.Drain,
		})
	}
	p.edge.Set(d.Endpoints)
}

func (p *Proxy) stopEdge() {
	if e := p.edge; e != nil {
		p.edge = nil
		p.group.Go(e.Close)
	}
}

// applyFront opens and closes listeners.
func (p *Proxy) applyFront(ctx context.Context, d *directory.Directory) error {
	if !d.Address.IsValid() {
		return fmt.Errorf("node %s has no usable InternalIP to listen on", p.Node)
	}
	if p.front == nil {
		hub := tunnel.NewHub(tunnel.HubOptions{Identity: p.Identity, Admit: p.now.Admit, Metrics: p.metrics, Log: p.Log})
		p.hub.Store(hub)
		p.front = front.New(front.Options{
			Hub: hub, Directory: &p.now, Identity: p.Identity, Dial: p.Dial, Metrics: p.metrics, Log: p.Log,
			Access: p.Log.With("log", "access"),
		})
	}
	hub, f := p.hub.Load(), p.front
	want := map[string]func(net.Listener) error{}
	want["tunnels :"+strconv.Itoa(d.TunnelPort)] = hub.Serve // whatever address the outside has for this node
	add := func(kind string, port int, serve func(net.Listener) error) {
		want[kind+" "+netip.AddrPortFrom(d.Address, uint16(port)).String()] = serve
	}
	add("http", p.HTTPPort, f.ServeHTTP)
	add("connect", p.ConnectPort, f.ServeConnect)
	targets := p.Targets()
	for _, port := range d.HTTPS {
		if at := targets[port]; at != 0 {
			add("tls-"+strconv.Itoa(port), at, func(l net.Listener) error { return f.ServeTLS(l, uint16(port)) })
		}
	}
	for key, l := range p.listeners {
		if want[key] == nil {
			_ = l.Close() // its connections live on
			delete(p.listeners, key)
		}
	}
	var errs []error
	for _, key := range slices.Sorted(maps.Keys(want)) {
		if p.listeners[key] == nil {
			errs = append(errs, p.open(ctx, key, want[key]))
		}
	}
	return errors.Join(errs...)
}

// open starts a listener whose key is its kind and address.
func (p *Proxy) open(ctx context.Context, key string, serve func(net.Listener) error) error {
	var kind, address string
	if _, err := fmt.Sscan(key, &kind, &address); err != nil {
		return fmt.Errorf("read %q: %w", key, err)
	}
	l, err := p.Listen(ctx, address)
	if err != nil {
		return fmt.Errorf("listen on %s for %s: %w", address, kind, err)
	}
	p.listeners[key] = l
	p.Log.Info("a front end of the proxy listens", "front", kind, "address", address)
	p.group.Go(func() {
		if err := serve(l); err != nil {
			p.Log.Warn("a front end of the proxy ended; opening it again", "front", kind, "address", address, "error", err, "after", p.Retry)
			_ = l.Close() // it accepts no more
			select {
			case p.ended <- endedListener{key, l}:
			case <-ctx.Done():
			}
		}
	})
	return nil
}

// stopFront closes the listeners, and ends the streams after a while; new ones may be opened meanwhile.
func (p *Proxy) stopFront() {
	closing := make([]net.Listener, 0, len(p.listeners))
	for key, l := range p.listeners {
		closing = append(closing, l)
		delete(p.listeners, key)
	}
	closeGently(closing, p.Log)
	if p.front == nil {
		return
	}
	f, hub := p.front, p.hub.Swap(nil)
	p.front = nil
	p.group.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), p.Drain)
		defer cancel()
		hub.Drain(ctx)
		f.Drain(ctx)
		f.Close()
		hub.Close()
	})
}

// live is the newest directory.
type live struct {
	atomic.Pointer[directory.Directory]
}

// Find implements front.Directory.
func (l *live) Find(to target.HostPort) (front.Route, error) { return l.Load().Find(to) }

// FindAny implements front.Directory.
func (l *live) FindAny(ctx context.Context, to target.HostPort) (front.Route, error) {
	return l.Load().FindAny(ctx, to)
}

// Allowed implements front.Directory.
func (l *live) Allowed(source netip.Addr) bool { return l.Load().Allowed(source) }

// Reach implements tunnel.Region.
func (l *live) Reach(node string, port uint16) ([]netip.AddrPort, error) {
	return l.Load().Reach(node, port)
}

// Admit says whose tunnels are taken.
func (l *live) Admit(node string) (string, error) { return l.Load().Admit(node) }

var (
	_ front.Directory = (*live)(nil)
	_ tunnel.Region   = (*live)(nil)
)
