package tunnel

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/ravencni/raven/pkg/proxy/metrics"
	"github.com/ravencni/raven/pkg/proxy/proxytest"
	"github.com/ravencni/raven/pkg/proxy/refusal"
	"github.com/ravencni/raven/pkg/proxy/target"
	"github.com/ravencni/raven/test/netns"
)

// world is a cloud and an edge region, in namespaces:
//
//	node ── edge ══ cloud ── namesake
//
// node and namesake have the same address, 10.0.0.2, and say their names.
type world struct {
	cloud, edge, node, namesake *netns.Namespace
	authority                   proxytest.Authority
}

func newWorld(t *testing.T) *world {
	w := &world{
		cloud: netns.New(t), edge: netns.New(t), node: netns.New(t), namesake: netns.New(t),
		authority: proxytest.NewAuthority(t),
	}
	netns.Veth(t, netns.End{In: w.cloud, Name: "wan", Addresses: []string{"192.0.2.1/24"}},
		netns.End{In: w.edge, Name: "wan", Addresses: []string{"192.0.2.2/24"}})
	netns.Veth(t, netns.End{In: w.edge, Name: "lan", Addresses: []string{"10.0.0.1/24"}},
		netns.End{In: w.node, Name: "lan", Addresses: []string{"10.0.0.2/24"}})
	netns.Veth(t, netns.End{In: w.cloud, Name: "lan", Addresses: []string{"10.0.0.1/24"}},
		netns.End{In: w.namesake, Name: "lan", Addresses: []string{"10.0.0.2/24"}})
	return w
}

// echo answers with who it is and then with what it is told.
func echo(t *testing.T, l net.Listener, who string) {
	var group sync.WaitGroup
	t.Cleanup(func() { _ = l.Close(); group.Wait() })
	group.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { _ = c.Close() })
			group.Go(func() {
				defer c.Close()
				if _, err := io.WriteString(c, who+"\n"); err == nil {
					_, _ = io.Copy(c, c)
				}
			})
		}
	})
}

// region is an edge's, with one node.
type region map[string]string

func (r region) Reach(node string, port uint16) ([]netip.AddrPort, error) {
	a, ok := r[node]
	if !ok {
		return nil, refusal.New(refusal.OtherRegion, "gw-edge", node, "it is not one of this region")
	}
	if port >= 9000 {
		return nil, refusal.New(refusal.PortNotAllowed, "gw-edge", node, "port %d", port)
	}
	return []netip.AddrPort{netip.AddrPortFrom(netip.MustParseAddr(a), port)}, nil
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// hubAt runs a hub in the cloud; admitted maps a node to its gateway.
func (w *world) hubAt(t *testing.T, address, node string, admitted func(string) (string, error)) (*Hub, net.Listener) {
	return w.impatientHubAt(t, address, node, admitted, noHold)
}

// noHold refuses at once what no tunnel leads to.
var noHold = Limits{Hold: 1}

func (w *world) impatientHubAt(t *testing.T, address, node string, admitted func(string) (string, error), limits Limits) (*Hub, net.Listener) {
	h := NewHub(HubOptions{Identity: w.authority.Proxy(t, node), Admit: admitted, Metrics: metrics.New(nil), Log: quiet(), Limits: limits})
	l := proxytest.Listen(t, w.cloud, address)
	done := make(chan error, 1)
	go func() { done <- h.Serve(l) }()
	t.Cleanup(func() {
		_ = l.Close()
		h.Close()
		if err := <-done; err != nil {
			t.Errorf("serve tunnels: %v", err)
		}
	})
	return h, l
}

func admitAll(node string) (string, error) { return "gw-edge", nil }

func (w *world) edgeOf(t *testing.T, id *proxytest.Identity, r Region) *Edge {
	e := NewEdge(EdgeOptions{
		Identity: id, Region: r, Gateway: "gw-edge", Dial: proxytest.Dial(w.edge), Metrics: metrics.New(nil), Log: quiet(),
	})
	t.Cleanup(func() {
		e.kill() // without the time that streams are given
		e.Close()
	})
	return e
}

var (
	toCloud = Endpoint{Gateway: "gw-cloud", Node: "cloud-1", Address: "192.0.2.1:10262"}
	toNode  = target.HostPort{Host: target.Host{Name: "edge-2"}, Port: 7}
)

// counts waits until so many tunnels were refused for a reason.
func counts(t *testing.T, h *Hub, reason refusal.Reason, want int) {
	t.Helper()
	proxytest.Await(t, fmt.Sprintf("%d refusals for %s", want, reason), func() bool {
		return int(testutil.ToFloat64(h.Metrics.RefusedCounter(metrics.FrontTunnel, reason))) == want
	})
}

func connected(t *testing.T, h *Hub, n int) {
	t.Helper()
	proxytest.Await(t, "tunnel", func() bool { return len(h.Tunnels()) == n })
}

// call opens a stream and returns it after it said who is there.
func call(t *testing.T, h *Hub, to target.HostPort) (net.Conn, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), proxytest.Within)
	defer cancel()
	c, err := h.Dial(ctx, "gw-edge", to)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c, readLine(t, c)
}

func readLine(t *testing.T, c io.Reader) string {
	t.Helper()
	var out []byte
	for b := make([]byte, 1); ; {
		if _, err := io.ReadFull(c, b); err != nil {
			t.Fatalf("after %q: %v", out, err)
		}
		if b[0] == '\n' {
			return string(out)
		}
		out = append(out, b[0])
	}
}

// echoes says whether the stream still carries both ways.
func echoes(c net.Conn) error {
	if _, err := io.WriteString(c, "still there?"); err != nil {
		return err
	}
	b := make([]byte, len("still there?"))
	if _, err := io.ReadFull(c, b); err != nil {
		return err
	}
	if string(b) != "still there?" {
		return errors.New("other bytes came back: " + string(b))
	}
	return nil
}

// counting is a Region that counts.
type counting struct {
	Region
	asked atomic.Int32
}

func (c *counting) Reach(node string, port uint16) ([]netip.AddrPort, error) {
	c.asked.Add(1)
	return c.Region.Reach(node, port)
}
