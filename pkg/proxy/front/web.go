package front

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ravencni/raven/pkg/proxy/refusal"
	"github.com/ravencni/raven/pkg/proxy/target"
)

// idleWeb is how long an HTTP client may keep a connection without a request.
const idleWeb = 2 * time.Minute

// webState is what the front ends that speak HTTP know of a connection.
type webState struct {
	since    time.Time
	requests atomic.Int64 // that reached a handler
	replied  atomic.Bool  // by the server itself
	kind     string
}

// Write implements net.Conn. It counts the answers of http.Server itself, which no handler sees: they refuse what is no
// request.
func (c *client) Write(p []byte) (int, error) {
	if c.web.kind != "" && c.web.requests.Load() == 0 && !c.web.replied.Swap(true) {
		reason := refusal.BadRequest
		if time.Since(c.web.since) >= c.front.Hello {
			reason = refusal.Slow
		}
		c.front.refuse(c.web.kind, c.source.String(), target.HostPort{}, refusal.New(reason, "", "", "%.40q", p))
	}
	return c.Conn.Write(p)
}

type clientKey struct{}

func clientOf(r *http.Request) *client { return r.Context().Value(clientKey{}).(*client) }

// handed is a listener of connections that were let in elsewhere.
type handed struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
	addr  net.Addr
}

// Accept implements net.Listener.
func (h *handed) Accept() (net.Conn, error) {
	select {
	case c := <-h.conns:
		return c, nil
	case <-h.done:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (h *handed) Close() error {
	h.once.Do(func() { close(h.done) })
	return nil
}

// Addr implements net.Listener.
func (h *handed) Addr() net.Addr { return h.addr }

// serveWeb serves HTTP/1.1 until the listener is closed, and then until the last connection has ended, which Close brings
// about. prepare proves who the client is; nil: there is no need.
func (f *Front) serveWeb(l net.Listener, kind string, handler http.Handler, prepare func(*client) error) error {
	inner := &handed{conns: make(chan net.Conn), done: make(chan struct{}), addr: l.Addr()}
	var open sync.WaitGroup
	server := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			c := clientOf(r)
			c.web.requests.Add(1)
			c.decided()
			handler.ServeHTTP(w, r)
		}),
		ReadHeaderTimeout: f.Hello, IdleTimeout: idleWeb, MaxHeaderBytes: maxHeaders,
		ConnContext: func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, clientKey{}, c) },
		ConnState: func(conn net.Conn, state http.ConnState) {
			switch state {
			case http.StateNew:
				open.Add(1) // before Serve returns
			case http.StateClosed, http.StateHijacked:
				defer open.Done()
			}
			c := conn.(*client)
			if state == http.StateClosed && c.web.requests.Load() == 0 && !c.web.replied.Load() && time.Since(c.web.since) >= f.Hello {
				f.refuse(kind, c.source.String(), target.HostPort{}, refusal.New(refusal.Slow, "", "", "no request within %v", f.Hello))
			}
		},
		ErrorLog: slog.NewLogLogger(f.serverLog().Handler(), slog.LevelDebug),
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(inner) }()
	var handing sync.WaitGroup // whoever was let in is to be answered
	err := f.accept(l, kind, &handing, func(c *client) {
		c.web.kind, c.web.since = kind, time.Now()
		if prepare != nil {
			if err := prepare(c); err != nil {
				f.refuse(kind, c.source.String(), target.HostPort{}, err)
				_ = c.Close() // TLS has said what there is to say
				return
			}
		}
		select {
		case inner.conns <- c:
		case <-inner.done:
			_ = c.Close() // nobody serves any more
		}
	})
	// Requests that are being answered go on; Close ends their connections.
	handing.Wait()
	_ = inner.Close() // never fails
	if ended := <-served; !errors.Is(ended, net.ErrClosed) && !errors.Is(ended, http.ErrServerClosed) {
		err = errors.Join(err, ended)
	}
	// Not by Shutdown, which hangs up on whoever has just sent a request.
	server.SetKeepAlivesEnabled(false)
	open.Wait()
	return err
}

func statusLine(code int) string { return strconv.Itoa(code) + " " + http.StatusText(code) }
