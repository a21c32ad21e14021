package tunnel

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"net/url"
	"os"
	"testing"
	"time"

	"github.com/ravencni/raven/pkg/proxy/identity"
	"github.com/ravencni/raven/pkg/proxy/proxytest"
	"github.com/ravencni/raven/pkg/proxy/refusal"
	"github.com/ravencni/raven/test/netns"
)

// onlyHTTP2 is HTTP/2 without TLS of its own.
func onlyHTTP2() *http.Protocols {
	p := new(http.Protocols)
	p.SetUnencryptedHTTP2(true)
	return p
}

// handshake is an edge's TLS connection to the hub, with the certificate of edge-1, before anybody has said anything.
func (w *world) handshake(t *testing.T) *tls.Conn {
	t.Helper()
	config, err := identity.Client(w.authority.Proxy(t, "edge-1"), toCloud.Node)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := proxytest.Dial(w.edge)(t.Context(), "tcp", toCloud.Address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = raw.Close() })
	conn := tls.Client(raw, config)
	if err := conn.HandshakeContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	return conn
}

// An edge whose certificate is good turns its tunnel round and asks for a node of the cloud.
func TestAnEdgeCannotUseItsTunnelToReachTheCloud(t *testing.T) {
	netns.Run(t, func(t *testing.T) {
		w := newWorld(t)
		secret := proxytest.Listen(t, w.namesake, "10.0.0.2:7")
		h, _ := w.hubAt(t, toCloud.Address, "cloud-1", admitAll)
		w.edgeOf(t, w.authority.Proxy(t, "edge-1"), region{}).Set([]Endpoint{toCloud})
		connected(t, h, 1)

		conn := w.handshake(t)
		transport := &http.Transport{Protocols: onlyHTTP2(), DialContext: func(context.Context, string, string) (net.Conn, error) {
			return newLink(conn), nil
		}}
		client, err := transport.NewClientConn(t.Context(), "http", "tunnel:80")
		if err == nil {
			_, err = client.RoundTrip((&http.Request{Method: http.MethodConnect, Header: http.Header{}, Host: "10.0.0.2:7",
				URL: &url.URL{Scheme: "http", Host: "10.0.0.2:7"}}).WithContext(t.Context()))
		}
		if err == nil {
			t.Error("the cloud's side answers a request of an edge")
		}
		counts(t, h, refusal.BadRequest, 1)
		if err := secret.(*net.TCPListener).SetDeadline(time.Now()); err != nil {
			t.Fatal(err)
		}
		if _, err := secret.Accept(); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("the cloud's node was dialled: %v", err)
		}
		if n := len(h.Tunnels()); n != 1 {
			t.Errorf("%d tunnels, want the honest one", n)
		}
	})
}

// One says nothing at all, the other proves who it is and then says nothing.
func TestWhoSaysNothingIsRefusedInTime(t *testing.T) {
	netns.Run(t, func(t *testing.T) {
		w := newWorld(t)
		h, _ := w.impatientHubAt(t, toCloud.Address, "cloud-1", admitAll, Limits{Handshake: 3 * time.Second, Hold: 1})
		raw, err := proxytest.Dial(w.edge)(t.Context(), "tcp", toCloud.Address)
		if err != nil {
			t.Fatal(err)
		}
		defer raw.Close()
		w.handshake(t)
		w.edgeOf(t, w.authority.Proxy(t, "edge-1"), region{}).Set([]Endpoint{toCloud})
		connected(t, h, 1)
		counts(t, h, refusal.Slow, 2)
		if n := len(h.Tunnels()); n != 1 {
			t.Errorf("%d tunnels, want the honest one", n)
		}
	})
}
