package tunnel

import (
	"context"
	"errors"
	"io"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/ravencni/raven/pkg/proxy/metrics"
	"github.com/ravencni/raven/pkg/proxy/proxytest"
	"github.com/ravencni/raven/pkg/proxy/refusal"
	"github.com/ravencni/raven/test/netns"
)

// swallow drops all packets of a device of the cloud, both ways and without a word, as a path does whose middle has failed:
// each side sees the other one vanish. The returned function ends it.
func (w *world) swallow(t *testing.T, device string) (end func()) {
	t.Helper()
	nft := func(rules string) {
		w.cloud.Do(t, func() {
			cmd := exec.Command("nft", "-f", "-")
			cmd.Stdin = strings.NewReader(rules)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("nft: %v: %s", err, out)
			}
		})
	}
	nft("table inet swallow {\n" +
		"chain in { type filter hook prerouting priority -300; iifname " + device + " drop; }\n" +
		"chain out { type filter hook postrouting priority 300; oifname " + device + " drop; }\n}\n")
	return func() { nft("delete table inet swallow\n") }
}

// addRegion joins another edge to the cloud, over a wire of its own; the node that it serves is the edge's own host.
func (w *world) addRegion(t *testing.T, node, serves string, limits Limits) {
	edge := netns.New(t)
	netns.Veth(t, netns.End{In: w.cloud, Name: "wan2", Addresses: []string{"198.51.100.1/24"}},
		netns.End{In: edge, Name: "wan2", Addresses: []string{"198.51.100.2/24"}})
	echo(t, proxytest.Listen(t, edge, "127.0.0.1:7"), serves)
	e := NewEdge(EdgeOptions{
		Identity: w.authority.Proxy(t, node), Region: region{serves: "127.0.0.1"}, Gateway: "gw-other", Dial: proxytest.Dial(edge),
		Metrics: metrics.New(nil), Log: quiet(), Limits: limits, Drain: 1,
	})
	t.Cleanup(e.Close)
	e.Set([]Endpoint{{Gateway: toCloud.Gateway, Node: toCloud.Node, Address: "198.51.100.1:10262"}})
}

func byName(node string) (string, error) {
	if strings.HasPrefix(node, "other") {
		return "gw-other", nil
	}
	return "gw-edge", nil
}

func (w *world) impatientEdge(t *testing.T, node string, r Region, limits Limits) *Edge {
	e := NewEdge(EdgeOptions{
		Identity: w.authority.Proxy(t, node), Region: r, Gateway: "gw-edge", Dial: proxytest.Dial(w.edge), Metrics: metrics.New(nil),
		Log: quiet(), Limits: limits, Drain: 1,
	})
	t.Cleanup(e.Close)
	return e
}

// A peer that is gone without FIN: both sides end the tunnel, what hung on it ends with an error that says why, and no
// other tunnel notices.
func TestAHalfOpenTunnelEndsOnBothSidesAndDisturbsNobody(t *testing.T) {
	netns.Run(t, func(t *testing.T) {
		limits := Limits{Silence: 3 * time.Second, Hold: 1}
		w := newWorld(t)
		l := proxytest.Listen(t, w.node, "10.0.0.2:7")
		h, _ := w.impatientHubAt(t, ":10262", "cloud-1", byName, limits)
		e := w.impatientEdge(t, "edge-1", region{"edge-2": "10.0.0.2"}, limits)
		e.Set([]Endpoint{toCloud})
		w.addRegion(t, "other-1", "other-1", limits)
		connected(t, h, 2)
		ctx := context.Background()
		stream, err := dialAndAccept(ctx, h, l)
		if err != nil {
			t.Fatal(err)
		}
		defer stream.client.Close()
		defer stream.node.Close()
		to := toNode
		to.Host.Name = "other-1"
		other, err := h.Dial(ctx, "gw-other", to)
		if err != nil {
			t.Fatal(err)
		}
		defer other.Close()
		readLine(t, other)

		heal := w.swallow(t, "wan")
		at := map[string]chan error{"client": make(chan error, 1), "node": make(chan error, 1)}
		go func() { _, err := stream.client.Read(make([]byte, 1)); at["client"] <- err }()
		go func() { _, err := stream.node.Read(make([]byte, 1)); at["node"] <- err }()
		for _, who := range []string{"client", "node"} {
			select {
			case err := <-at[who]:
				if err == nil || errors.Is(err, io.EOF) {
					t.Errorf("the %s takes the loss for an end: %v", who, err)
				}
				if who == "client" && !strings.Contains(err.Error(), "node edge-1 of gateway gw-edge was lost") {
					t.Errorf("the client's side says %v", err)
				}
			case <-time.After(proxytest.Within):
				t.Fatalf("the stream hangs at the %s", who)
			}
		}
		connected(t, h, 1)
		proxytest.Await(t, "count of the loss", func() bool { return testutil.ToFloat64(h.Metrics.LostCounter(metrics.LostSilent)) == 1 })
		_, err = h.Dial(ctx, "gw-edge", toNode)
		refused(t, err, refusal.NoTunnel)
		if err := echoes(other); err != nil {
			t.Errorf("the other region's stream: %v", err)
		}
		if n := testutil.ToFloat64(h.Metrics.LostCounter(metrics.LostClosed)); n != 0 {
			t.Errorf("%v other tunnels were lost", n)
		}
		proxytest.Await(t, "word of the edge", func() bool { return e.Status()[toCloud] != "up" })
		heal()
		connected(t, h, 2)
	})
}

type ends struct{ client, node net.Conn }

// dialAndAccept opens a stream, and has both of its ends.
func dialAndAccept(ctx context.Context, h *Hub, l net.Listener) (ends, error) {
	node := make(chan net.Conn, 1)
	go func() {
		c, _ := l.Accept() // nil where the listener ended
		node <- c
	}()
	c, err := h.Dial(ctx, "gw-edge", toNode)
	if err != nil {
		return ends{}, err
	}
	return ends{c, <-node}, nil
}

// Of two proxies of a gateway one has vanished, and nobody knows yet.
func TestARequestDoesNotWaitForAProxyThatHasVanished(t *testing.T) {
	netns.Run(t, func(t *testing.T) {
		w := newWorld(t)
		h, _ := w.hubAt(t, ":10262", "cloud-1", admitAll)
		echo(t, proxytest.Listen(t, w.node, "10.0.0.2:7"), "edge-2")
		w.edgeOf(t, w.authority.Proxy(t, "edge-1"), region{"edge-2": "10.0.0.2"}).Set([]Endpoint{toCloud})
		w.addRegion(t, "other-1", "edge-2", noHold)
		connected(t, h, 2)
		h.mu.Lock()
		for tun := range h.tunnels {
			if tun.node == "other-1" {
				tun.streams.Add(10) // so that the one which vanishes is asked first
			}
		}
		h.mu.Unlock()
		w.swallow(t, "wan")
		for i := range 2 {
			begin := time.Now()
			c, err := h.Dial(t.Context(), "gw-edge", toNode)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if took := time.Since(begin); took >= answerLimit {
				t.Errorf("request %d took %v", i, took)
			} else {
				t.Logf("request %d took %v", i, took)
			}
		}
		if n := len(h.Tunnels()); n != 2 {
			t.Errorf("%d tunnels: the test is about one that nobody has given up yet", n)
		}
	})
}
