package tunnel

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync"
	"testing"

	"github.com/ravencni/raven/pkg/proxy/proxytest"
	"github.com/ravencni/raven/pkg/proxy/refusal"
	"github.com/ravencni/raven/pkg/proxy/target"
	"github.com/ravencni/raven/test/netns"
)

func TestAStreamReachesTheNodeAndNotItsNamesake(t *testing.T) {
	netns.Run(t, func(t *testing.T) {
		w := newWorld(t)
		echo(t, proxytest.Listen(t, w.node, "10.0.0.2:7"), "edge-2")
		echo(t, proxytest.Listen(t, w.namesake, "10.0.0.2:7"), "cloud-2")
		h, _ := w.hubAt(t, toCloud.Address, "cloud-1", admitAll)
		w.edgeOf(t, w.authority.Proxy(t, "edge-1"), region{"edge-2": "10.0.0.2"}).Set([]Endpoint{toCloud})
		connected(t, h, 1)
		c, who := call(t, h, toNode)
		if who != "edge-2" {
			t.Fatalf("%s answered", who)
		}
		data := make([]byte, 3<<20) // more than any window
		if _, err := rand.Read(data); err != nil {
			t.Fatal(err)
		}
		sent := make(chan error, 1)
		go func() {
			_, err := c.Write(data)
			sent <- errors.Join(err, c.(interface{ CloseWrite() error }).CloseWrite())
		}()
		back, err := io.ReadAll(c)
		if err != nil || !bytes.Equal(back, data) {
			t.Fatalf("%d of %d bytes came back, %v", len(back), len(data), err)
		}
		if err := <-sent; err != nil {
			t.Fatal(err)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		proxytest.Await(t, "end of the stream", func() bool { return h.streams() == 0 })
	})
}

func TestRefusalsNameGatewayAndReason(t *testing.T) {
	netns.Run(t, func(t *testing.T) {
		w := newWorld(t)
		h, _ := w.hubAt(t, toCloud.Address, "cloud-1", admitAll)
		_, err := h.Dial(context.Background(), "gw-edge", toNode)
		refused(t, err, refusal.NoTunnel)
		w.edgeOf(t, w.authority.Proxy(t, "edge-1"), region{"edge-2": "10.0.0.2"}).Set([]Endpoint{toCloud})
		connected(t, h, 1)
		for to, want := range map[target.HostPort]refusal.Reason{
			toNode: refusal.DialRefused,
			{Host: target.Host{Name: "edge-2"}, Port: 9000}: refusal.PortNotAllowed,
			{Host: target.Host{Name: "other"}, Port: 7}:     refusal.OtherRegion,
		} {
			_, err := h.Dial(context.Background(), "gw-edge", to)
			refused(t, err, want)
		}
	})
}

func refused(t *testing.T, err error, want refusal.Reason) {
	t.Helper()
	e, ok := errors.AsType[*refusal.Error](err)
	if !ok || e.Reason != want || e.Gateway != "gw-edge" {
		t.Errorf("got %v, want %s of gw-edge", err, want)
	}
}

func TestWhoIsNotAdmittedGetsNoTunnel(t *testing.T) {
	netns.Run(t, func(t *testing.T) {
		w := newWorld(t)
		stranger := proxytest.NewAuthority(t)
		h, _ := w.hubAt(t, toCloud.Address, "cloud-1", func(node string) (string, error) {
			if node != "edge-1" {
				return "", refusal.New(refusal.NotActive, "gw-edge", node, "edge-1 is")
			}
			return "gw-edge", nil
		})
		client := &proxytest.Identity{}
		client.Set(w.authority.Client(t, "apiserver"), proxytest.Pool(w.authority))
		otherSigner := &proxytest.Identity{}
		m, err := stranger.Proxy(t, "edge-1").Material()
		if err != nil {
			t.Fatal(err)
		}
		otherSigner.Set(m.Certificate, proxytest.Pool(w.authority))
		for name, c := range map[string]struct {
			id   *proxytest.Identity
			want refusal.Reason
		}{
			"another signer":      {otherSigner, refusal.NotAuthenticated},
			"a client of CONNECT": {client, refusal.WrongIdentity},
			"not the active node": {w.authority.Proxy(t, "edge-3"), refusal.NotActive},
		} {
			e := w.edgeOf(t, c.id, region{})
			_, err := e.connect(t.Context(), toCloud)
			if err == nil || reasonOf(err) != c.want {
				t.Errorf("%s: %v (%s), want %s", name, err, reasonOf(err), c.want)
			}
		}
		// Without any certificate, and with garbage.
		dial := proxytest.Dial(w.edge)
		raw, err := dial(t.Context(), "tcp", toCloud.Address)
		if err != nil {
			t.Fatal(err)
		}
		defer raw.Close()
		bare := tls.Client(raw, &tls.Config{RootCAs: proxytest.Pool(w.authority), ServerName: "cloud-1"})
		if _, err := bare.Read(make([]byte, 1)); err == nil {
			t.Error("a client without certificate is served")
		}
		garbage, err := dial(t.Context(), "tcp", toCloud.Address)
		if err != nil {
			t.Fatal(err)
		}
		defer garbage.Close()
		if _, err := io.WriteString(garbage, "GET / HTTP/1.1\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadAll(garbage); err != nil && !errors.Is(err, net.ErrClosed) {
			t.Logf("garbage ends with %v", err)
		}
		for reason, n := range map[refusal.Reason]int{
			refusal.NotAuthenticated: 2, refusal.WrongIdentity: 1, refusal.NotActive: 1, refusal.BadClientHello: 1,
		} {
			counts(t, h, reason, n)
		}
		if n := len(h.Tunnels()); n != 0 {
			t.Errorf("%d tunnels", n)
		}
		// And the right one is not disturbed by any of that.
		w.edgeOf(t, w.authority.Proxy(t, "edge-1"), region{}).Set([]Endpoint{toCloud})
		connected(t, h, 1)
	})
}

func TestAnEdgeDoesNotTakeAnotherNodeForTheProxyItDialled(t *testing.T) {
	netns.Run(t, func(t *testing.T) {
		w := newWorld(t)
		w.hubAt(t, toCloud.Address, "cloud-2", admitAll)
		_, err := w.edgeOf(t, w.authority.Proxy(t, "edge-1"), region{}).connect(t.Context(), toCloud)
		if err == nil || reasonOf(err) != refusal.NotAuthenticated {
			t.Fatalf("got %v", err)
		}
	})
}

func TestARotationKeepsTheStreams(t *testing.T) {
	netns.Run(t, func(t *testing.T) {
		w := newWorld(t)
		echo(t, proxytest.Listen(t, w.node, "10.0.0.2:7"), "edge-2")
		h, _ := w.hubAt(t, toCloud.Address, "cloud-1", admitAll)
		id := w.authority.Proxy(t, "edge-1")
		e := w.edgeOf(t, id, region{"edge-2": "10.0.0.2"})
		e.Set([]Endpoint{toCloud})
		connected(t, h, 1)
		old, _ := call(t, h, toNode)
		next := w.authority.Proxy(t, "edge-1")
		m, _ := next.Material()
		id.Set(m.Certificate, m.Roots)
		e.Renew()
		connected(t, h, 2)
		fresh, _ := call(t, h, toNode)
		for name, c := range map[string]net.Conn{"old": old, "new": fresh} {
			if err := echoes(c); err != nil {
				t.Errorf("the %s stream: %v", name, err)
			}
		}
		if err := old.Close(); err != nil {
			t.Error(err)
		}
		connected(t, h, 1) // the old tunnel ends with its last stream
		if err := echoes(fresh); err != nil {
			t.Error(err)
		}
	})
}

// A tunnel may part between its choice and the stream's opening; its successor is there by then.
func TestRotationsLoseNoStreamThatIsOpenedMeanwhile(t *testing.T) {
	netns.Run(t, func(t *testing.T) {
		w := newWorld(t)
		echo(t, proxytest.Listen(t, w.node, "10.0.0.2:7"), "edge-2")
		h, _ := w.impatientHubAt(t, toCloud.Address, "cloud-1", admitAll, Limits{}) // which has the patience that is usual
		e := w.edgeOf(t, w.authority.Proxy(t, "edge-1"), region{"edge-2": "10.0.0.2"})
		e.Set([]Endpoint{toCloud})
		connected(t, h, 1)
		stop := make(chan struct{})
		var group sync.WaitGroup
		for range 4 {
			group.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
					}
					c, err := h.Dial(context.Background(), "gw-edge", toNode)
					if err != nil {
						t.Error(err)
						return
					}
					if _, err = io.ReadFull(c, make([]byte, len("edge-2\n"))); err == nil {
						err = echoes(c)
					}
					if err = errors.Join(err, c.Close()); err != nil {
						t.Error(err)
					}
				}
			})
		}
		had := map[*accepted]bool{}
		for range 30 {
			e.Renew()
			proxytest.Await(t, "another tunnel", func() bool {
				h.mu.Lock()
				defer h.mu.Unlock()
				for tun := range h.tunnels {
					if !had[tun] {
						had[tun] = true
						return true
					}
				}
				return false
			})
		}
		close(stop)
		group.Wait()
	})
}

// Streams through the proxy that dies are lost; those through the other one, and new ones, are not.
func TestOfTwoProxiesOneMayDieUnderLoad(t *testing.T) {
	netns.Run(t, func(t *testing.T) {
		w := newWorld(t)
		echo(t, proxytest.Listen(t, w.node, "10.0.0.2:7"), "edge-2")
		h, _ := w.hubAt(t, toCloud.Address, "cloud-1", admitAll)
		reach := region{"edge-2": "10.0.0.2"}
		first := w.edgeOf(t, w.authority.Proxy(t, "edge-1"), reach)
		second := w.edgeOf(t, w.authority.Proxy(t, "edge-3"), reach)
		first.Set([]Endpoint{toCloud})
		second.Set([]Endpoint{toCloud})
		connected(t, h, 2)
		const count = 200
		conns := make([]net.Conn, count)
		for i := range conns {
			conns[i], _ = call(t, h, toNode)
		}
		for _, tun := range h.Tunnels() {
			if tun.Streams != count/2 {
				t.Errorf("%s has %d of %d streams", tun.Node, tun.Streams, count)
			}
		}
		first.mu.Lock() // as if its host had lost power: no goodbye
		for _, d := range first.dialers {
			d.stop()
		}
		first.mu.Unlock()
		first.kill()
		lost := 0
		var mu sync.Mutex
		var group sync.WaitGroup
		connected(t, h, 1)
		for _, c := range conns {
			group.Go(func() {
				if err := echoes(c); err != nil {
					mu.Lock()
					lost++
					mu.Unlock()
				}
			})
		}
		group.Wait()
		if lost != count/2 {
			t.Errorf("%d of %d streams were lost, want half", lost, count)
		}
		if _, who := call(t, h, toNode); who != "edge-2" {
			t.Errorf("a new stream reached %s", who)
		}
	})
}

func TestADrainingHubLetsStreamsEndAndEdgesComeBack(t *testing.T) {
	netns.Run(t, func(t *testing.T) {
		w := newWorld(t)
		echo(t, proxytest.Listen(t, w.node, "10.0.0.2:7"), "edge-2")
		h, l := w.hubAt(t, toCloud.Address, "cloud-1", admitAll)
		e := w.edgeOf(t, w.authority.Proxy(t, "edge-1"), region{"edge-2": "10.0.0.2"})
		e.Set([]Endpoint{toCloud})
		connected(t, h, 1)
		c, _ := call(t, h, toNode)
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		drained := make(chan struct{})
		go func() {
			h.Drain(context.Background())
			close(drained)
		}()
		next, _ := w.hubAt(t, toCloud.Address, "cloud-1", admitAll)
		connected(t, next, 1)
		if err := echoes(c); err != nil {
			t.Errorf("a stream of the draining proxy: %v", err)
		}
		select {
		case <-drained:
			t.Error("the drain ended under an open stream")
		default:
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		<-drained
		if err := func() error { c, _ := call(t, next, toNode); return echoes(c) }(); err != nil {
			t.Error(err)
		}
	})
}

func TestATunnelFollowsTheRegionOfItsNode(t *testing.T) {
	netns.Run(t, func(t *testing.T) {
		w := newWorld(t)
		var mu sync.Mutex
		answer := func() (string, error) { return "gw-edge", nil }
		h, _ := w.hubAt(t, toCloud.Address, "cloud-1", func(string) (string, error) {
			mu.Lock()
			defer mu.Unlock()
			return answer()
		})
		change := func(to func() (string, error)) {
			mu.Lock()
			answer = to
			mu.Unlock()
			h.Recheck()
		}
		asked := &counting{Region: region{"edge-2": "10.0.0.2"}}
		e := w.edgeOf(t, w.authority.Proxy(t, "edge-1"), asked)
		e.Set([]Endpoint{toCloud})
		connected(t, h, 1)
		change(func() (string, error) { return "", refusal.New(refusal.NotActive, "gw-edge", "edge-1", "") })
		_, err := h.Dial(context.Background(), "gw-edge", toNode)
		refused(t, err, refusal.NoTunnel)
		if n := asked.asked.Load(); n != 0 {
			t.Errorf("a proxy that is not active was asked %d times", n)
		}
		change(func() (string, error) { return "gw-edge", nil })
		_, err = h.Dial(context.Background(), "gw-edge", toNode)
		refused(t, err, refusal.DialRefused)
		change(func() (string, error) { return "", refusal.New(refusal.UnknownNode, "", "edge-1", "") })
		connected(t, h, 0)
	})
}
