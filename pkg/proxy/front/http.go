package front

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"sync"
	"time"

	"github.com/ravencni/raven/pkg/proxy/metrics"
	"github.com/ravencni/raven/pkg/proxy/refusal"
	"github.com/ravencni/raven/pkg/proxy/target"
	"github.com/ravencni/raven/pkg/proxy/tunnel"
)

// ServeHTTP carries HTTP requests to the node and port that their Host names, until the listener is closed.
func (f *Front) ServeHTTP(l net.Listener) error {
	kept := newPools(f.Hub.Retreats, f.dialNode)
	defer kept.close()
	proxy := &httputil.ReverseProxy{
		Transport: kept,
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host = "http", destinationOf(r.In.Context()).to.String()
			r.Out.Host = r.In.Host
			r.SetXForwarded()
		},
		FlushInterval: -1,     // streams and watches must not wait for more
		BufferPool:    sips{}, // answerBody has larger ones
		ErrorLog:      slog.NewLogLogger(f.serverLog().Handler(), slog.LevelDebug),
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			to := destinationOf(r.Context()).to
			if r.Context().Err() != nil {
				return // the client has gone
			}
			e := refusal.Of(err)
			if e.Reason == refusal.Other {
				e = refusal.New(refusal.TunnelLost, destinationOf(r.Context()).gateway, to.Host.String(), "%v", err)
			}
			refusal.Write(w, f.refuse(metrics.FrontHTTP, clientOf(r).source.String(), to, e))
		},
	}
	return f.serveWeb(l, metrics.FrontHTTP, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := clientOf(r)
		to, err := target.OfHostHeader(r.Host)
		if err == nil && r.Method == http.MethodConnect {
			err = refusal.New(refusal.BadRequest, "", to.Host.String(), "this end takes no CONNECT")
		}
		var route Route
		if err == nil {
			route, err = f.Directory.Find(to)
		}
		if err != nil {
			refusal.Write(w, f.refuse(metrics.FrontHTTP, c.source.String(), to, err))
			return
		}
		begin := time.Now()
		f.Metrics.Opened(metrics.FrontHTTP)
		defer f.Metrics.Closed(metrics.FrontHTTP)
		up, down := f.Metrics.Counters(metrics.FrontHTTP)
		counted := &countedWriter{ResponseWriter: w, add: func(n int) { down.Add(float64(n)) }}
		r = r.WithContext(context.WithValue(r.Context(), destinationKey{}, destination{to, route.Gateway, counted}))
		if r.Body != nil && r.Body != http.NoBody {
			r.Body = &countedBody{r.Body, func(n int) { up.Add(float64(n)) }}
		}
		proxy.ServeHTTP(counted, r)
		f.Access.Info("request", "front", metrics.FrontHTTP, "source", c.source.String(), "target", to.String(), "method", r.Method,
			"path", r.URL.EscapedPath(), "status", counted.status, "down", counted.total, "seconds", time.Since(begin).Seconds())
	}), nil)
}

// destination of a request, in its context.
type destination struct {
	to      target.HostPort
	gateway string
	// answer is where the answer goes.
	answer *countedWriter
}

type destinationKey struct{}

func destinationOf(ctx context.Context) destination {
	d, _ := ctx.Value(destinationKey{}).(destination)
	return d
}

// dialNode connects to host:port for the HTTP transport, which keeps connections by that name.
func (f *Front) dialNode(ctx context.Context, _, address string) (net.Conn, error) {
	to, err := target.Parse(address, 0)
	if err != nil {
		return nil, refusal.New(refusal.BadTarget, "", "", "%v", err)
	}
	route, err := f.Directory.Find(to)
	if err != nil {
		return nil, err
	}
	if len(route.Direct) > 0 {
		return tunnel.ConnectNode(ctx, f.Dial, route.Gateway, to.Host.String(), route.Direct)
	}
	c, err := f.Hub.Dial(ctx, route.Gateway, to)
	if err != nil {
		return nil, err
	}
	return c, nil
}

type countedBody struct {
	io.ReadCloser
	add func(int)
}

// Read implements io.Reader.
func (b *countedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.add(n)
	return n, err
}

// countedWriter counts what is written. Two may write and flush at a time: httputil.ReverseProxy has a timer flush what it
// wrote first, and knows nothing of what answerBody writes.
type countedWriter struct {
	http.ResponseWriter
	add    func(int)
	status int

	mu    sync.Mutex
	total int64
}

// FlushError is for http.ResponseController.
func (w *countedWriter) FlushError() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return http.NewResponseController(w.ResponseWriter).Flush()
}

// Unwrap is for http.ResponseController: upgrading.
func (w *countedWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// WriteHeader implements http.ResponseWriter.
func (w *countedWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (w *countedWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	n, err := w.ResponseWriter.Write(p)
	w.total += int64(n)
	w.add(n)
	return n, err
}
