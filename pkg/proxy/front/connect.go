package front

import (
	"bufio"
	"context"
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/ravencni/raven/pkg/proxy/identity"
	"github.com/ravencni/raven/pkg/proxy/metrics"
	"github.com/ravencni/raven/pkg/proxy/refusal"
	"github.com/ravencni/raven/pkg/proxy/target"
)

// ServeConnect serves HTTP CONNECT over mutual TLS, for API servers, until the listener is closed.
func (f *Front) ServeConnect(l net.Listener) error {
	config := identity.Server(f.Identity, "http/1.1")
	return f.serveWeb(l, metrics.FrontConnect, http.HandlerFunc(f.connect), func(c *client) error {
		ctx, cancel := context.WithTimeout(context.Background(), f.Hello)
		defer cancel()
		conn := tls.Server(c.Conn, config)
		if err := identity.Handshake(ctx, conn); err != nil {
			return err
		}
		c.Conn = conn
		var err error
		c.name, err = identity.ClientOf(conn.ConnectionState().PeerCertificates[0])
		return err
	})
}

func (f *Front) connect(w http.ResponseWriter, r *http.Request) {
	c := clientOf(r)
	to, route, err := f.connectTarget(r)
	if err != nil {
		refusal.Write(w, f.refuse(metrics.FrontConnect, c.source.String(), to, err))
		return
	}
	raw, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		refusal.Write(w, f.refuse(metrics.FrontConnect, c.source.String(), to, err))
		return
	}
	defer raw.Close()
	if err := raw.SetDeadline(time.Time{}); err != nil {
		return // the client has gone
	}
	s := &stream{front: f, kind: metrics.FrontConnect, client: c, to: to, route: route, begun: func() error {
		_, err := io.WriteString(raw, "HTTP/1.1 200 Connection established\r\n\r\n")
		return err
	}}
	if n := buffered.Reader.Buffered(); n > 0 {
		s.first, _ = buffered.Peek(n) // that many are there
	}
	err = s.carry(context.Background())
	if err == nil {
		return
	}
	if refusal.Of(err).Reason != refusal.Other {
		answer(raw, f.refuse(metrics.FrontConnect, c.source.String(), to, err))
	}
}

// connectTarget reads the request line: API servers put the node there, and something else into Host.
func (f *Front) connectTarget(r *http.Request) (to target.HostPort, route Route, err error) {
	if r.Method != http.MethodConnect {
		return to, route, refusal.New(refusal.BadRequest, "", "", "this end takes CONNECT, and not %s", r.Method)
	}
	if to, err = target.OfConnect(r.RequestURI); err != nil {
		return to, route, err
	}
	route, err = f.Directory.FindAny(r.Context(), to)
	return to, route, err
}

// answer writes a refusal to a connection that the server has handed over.
func answer(c net.Conn, e *refusal.Error) {
	_ = c.SetWriteDeadline(time.Now().Add(time.Second)) // for one small packet
	w := &plainResponse{header: http.Header{}, out: bufio.NewWriter(c)}
	refusal.Write(w, e)
	_ = w.out.Flush() // a client that has gone needs no answer
}

// plainResponse writes an HTTP/1.1 response that ends with its connection.
type plainResponse struct {
	header http.Header
	out    *bufio.Writer
}

func (p *plainResponse) Header() http.Header { return p.header }

func (p *plainResponse) WriteHeader(status int) {
	p.header.Set("Connection", "close")
	_, _ = io.WriteString(p.out, "HTTP/1.1 "+statusLine(status)+"\r\n") // Flush tells
	_ = p.header.Write(p.out)
	_, _ = io.WriteString(p.out, "\r\n")
}

func (p *plainResponse) Write(b []byte) (int, error) { return p.out.Write(b) }

func (f *Front) serverLog() *slog.Logger { return f.Log.With("part", "proxy") }
