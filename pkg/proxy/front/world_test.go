package front

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/ravencni/raven/pkg/proxy/metrics"
	"github.com/ravencni/raven/pkg/proxy/proxytest"
	"github.com/ravencni/raven/pkg/proxy/refusal"
	"github.com/ravencni/raven/pkg/proxy/target"
	"github.com/ravencni/raven/pkg/proxy/tunnel"
	"github.com/ravencni/raven/test/netns"
)

// world is a client in a cloud, the cloud's proxy, and two edge regions whose nodes have the same address as one another
// and as a node of the cloud:
//
//	client ── cloud ══ hangzhou ── hangzhou-2
//	            │ ╚═══ qingdao ── qingdao-2
//	         cloud-2
type world struct {
	client, cloud, cloud2 *netns.Namespace
	nodes                 map[string]*netns.Namespace
	authority             proxytest.Authority
	front                 *Front
	hub                   *tunnel.Hub
	metrics               *metrics.Metrics
}

const (
	sameAddress = "10.0.0.2"
	atTLS       = "192.0.2.1:10263"
	atHTTP      = "192.0.2.1:10264"
	atConnect   = "192.0.2.1:10267"
)

// book is the Directory of the tests: nodes by gateway; a node without gateway is the cloud's own.
type book map[string]string

func (b book) Find(to target.HostPort) (Route, error) {
	gw, ok := b[to.Host.Name]
	switch {
	case !ok:
		return Route{}, refusal.New(refusal.UnknownNode, "", to.Host.String(), "no node has that name")
	case to.Port == 9999:
		return Route{}, refusal.New(refusal.PortNotAllowed, gw, to.Host.Name, "port %d", to.Port)
	case gw == "":
		return Route{Gateway: "gw-cloud", Node: to.Host.Name, Direct: []netip.AddrPort{netip.AddrPortFrom(netip.MustParseAddr(sameAddress), to.Port)}}, nil
	}
	return Route{Gateway: gw, Node: to.Host.Name}, nil
}

func (b book) FindAny(_ context.Context, to target.HostPort) (Route, error) {
	if to.Host.Address.IsValid() {
		return Route{Direct: []netip.AddrPort{netip.AddrPortFrom(to.Host.Address, to.Port)}}, nil
	}
	return b.Find(to)
}

func (b book) Allowed(a netip.Addr) bool { return netip.MustParsePrefix("192.0.2.0/28").Contains(a) }

// Reach implements tunnel.Region for both edges.
func (b book) Reach(_ string, port uint16) ([]netip.AddrPort, error) {
	return []netip.AddrPort{netip.AddrPortFrom(netip.MustParseAddr(sameAddress), port)}, nil
}

func newWorld(t *testing.T, change func(*Options)) *world {
	t.Helper()
	w := &world{client: netns.New(t), cloud: netns.New(t), cloud2: netns.New(t), nodes: map[string]*netns.Namespace{},
		authority: proxytest.NewAuthority(t)}
	netns.Veth(t, netns.End{In: w.cloud, Name: "front", Addresses: []string{"192.0.2.1/24"}},
		netns.End{In: w.client, Name: "front", Addresses: []string{"192.0.2.2/24", "192.0.2.3/24", "192.0.2.99/24"}})
	netns.Veth(t, netns.End{In: w.cloud, Name: "lan", Addresses: []string{"10.0.0.1/24"}},
		netns.End{In: w.cloud2, Name: "lan", Addresses: []string{sameAddress + "/24"}})
	w.nodes["cloud-2"] = w.cloud2
	names := book{"cloud-2": "", "hangzhou-2": "gw-hangzhou", "qingdao-2": "gw-qingdao", "lost-1": "gw-lost"}

	w.hub = tunnel.NewHub(tunnel.HubOptions{
		Identity: w.authority.Proxy(t, "cloud-1"), Log: slog.New(slog.DiscardHandler), Metrics: metrics.New(nil),
		Limits: tunnel.Limits{Hold: 1}, // what no tunnel leads to is refused at once
		Admit: func(node string) (string, error) {
			return map[string]string{"hangzhou-1": "gw-hangzhou", "qingdao-1": "gw-qingdao"}[node], nil
		},
	})
	w.serve(t, "192.0.2.1:10262", w.hub.Serve, w.hub.Close)
	w.addEdge(t, names, "hangzhou", "198.51.100.0/31")
	w.addEdge(t, names, "qingdao", "198.51.100.2/31")
	proxytest.Await(t, "two tunnels", func() bool { return len(w.hub.Tunnels()) == 2 })

	w.metrics = metrics.New(w.hub.Tunnels)
	opts := Options{Hub: w.hub, Directory: names, Identity: w.authority.Proxy(t, "cloud-1"), Dial: proxytest.Dial(w.cloud),
		Metrics: w.metrics, Log: slog.New(slog.DiscardHandler)}
	if change != nil {
		change(&opts)
	}
	w.front = New(opts)
	w.serve(t, atTLS, func(l net.Listener) error { return w.front.ServeTLS(l, 7443) }, w.front.Close)
	w.serve(t, atHTTP, w.front.ServeHTTP, w.front.Close)
	w.serve(t, atConnect, w.front.ServeConnect, w.front.Close)
	return w
}

// serve runs a server in the cloud until the test ends.
func (w *world) serve(t *testing.T, address string, run func(net.Listener) error, end func()) {
	l := proxytest.Listen(t, w.cloud, address)
	var group sync.WaitGroup
	group.Go(func() {
		if err := run(l); err != nil {
			t.Errorf("serve at %s: %v", address, err)
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		end()
		group.Wait()
	})
}

// addEdge joins a region of two nodes to the cloud; wan is a /31, whose first address is the cloud's.
func (w *world) addEdge(t *testing.T, names book, region, wan string) {
	edge, node := netns.New(t), netns.New(t)
	p := netip.MustParsePrefix(wan)
	at := p.Addr()
	netns.Veth(t, netns.End{In: w.cloud, Name: region, Addresses: []string{p.String()}},
		netns.End{In: edge, Name: "wan", Addresses: []string{at.Next().String() + "/31"}})
	netns.Veth(t, netns.End{In: edge, Name: "lan", Addresses: []string{"10.0.0.1/24"}},
		netns.End{In: node, Name: "lan", Addresses: []string{sameAddress + "/24"}})
	w.nodes[region+"-2"] = node
	l := proxytest.Listen(t, w.cloud, netip.AddrPortFrom(at, 10262).String())
	served := make(chan error, 1)
	go func() { served <- w.hub.Serve(l) }()
	e := tunnel.NewEdge(tunnel.EdgeOptions{
		Identity: w.authority.Proxy(t, region+"-1"), Region: names, Gateway: "gw-" + region, Dial: proxytest.Dial(edge),
		Metrics: metrics.New(nil), Log: slog.New(slog.DiscardHandler), Drain: 1,
	})
	e.Set([]tunnel.Endpoint{{Gateway: "gw-cloud", Node: "cloud-1", Address: netip.AddrPortFrom(at, 10262).String()}})
	t.Cleanup(func() {
		_ = l.Close()
		e.Close()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
}

// dial connects from the client's namespace.
func (w *world) dial(t *testing.T, address string) net.Conn {
	t.Helper()
	c, err := proxytest.Dial(w.client)(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// dialFrom is dial with an address of the client.
func (w *world) dialFrom(t *testing.T, source, address string) net.Conn {
	t.Helper()
	var c net.Conn
	w.client.Do(t, func() {
		var err error
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(source)}}
		if c, err = d.DialContext(t.Context(), "tcp", address); err != nil {
			t.Fatal(err)
		}
	})
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// refusals says how many were counted.
func (w *world) refusals(t *testing.T, front string, reason refusal.Reason, want int) {
	t.Helper()
	proxytest.Await(t, "refusal by "+front+" for "+string(reason), func() bool {
		return int(testutil.ToFloat64(w.metrics.RefusedCounter(front, reason))) == want
	})
}
