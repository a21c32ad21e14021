package front

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/http/httputil"
	"net/textproto"
	"strings"
	"sync/atomic"
	"testing"
)

// node serves HTTP, and counts the connections to it.
type node struct {
	*httptest.Server
	pools *pools
	dials atomic.Int32
	// tunnels that came to take no new streams.
	retreats atomic.Int32
}

func newNode(t *testing.T, handler http.HandlerFunc) *node {
	n := &node{Server: httptest.NewServer(handler)}
	t.Cleanup(n.Close)
	n.pools = newPools(func(string) int { return int(n.retreats.Load()) }, func(ctx context.Context, network, address string) (net.Conn, error) {
		n.dials.Add(1)
		return (&net.Dialer{}).DialContext(ctx, network, address)
	})
	t.Cleanup(n.pools.close)
	return n
}

func (n *node) request(t *testing.T, method string, body io.Reader) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, n.URL+"/", body)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func (n *node) ask(t *testing.T, r *http.Request) string {
	t.Helper()
	response, err := n.pools.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(response.Body)
	if err = errors.Join(err, response.Body.Close()); err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestAConnectionCarriesOneRequestAfterTheOther(t *testing.T) {
	n := newNode(t, func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		w.Header().Set("Trailer", "After")
		fmt.Fprintf(w, "%s %s %v", r.Method, body, err)
		w.Header().Set("After", "all")
	})
	for _, r := range []struct {
		method, body, want string
	}{{"GET", "", "GET  <nil>"}, {"POST", "some", "POST some <nil>"}, {"DELETE", "", "DELETE  <nil>"}, {"HEAD", "", ""}, {"GET", "", "GET  <nil>"}} {
		var body io.Reader
		if r.body != "" {
			body = struct{ io.Reader }{strings.NewReader(r.body)} // of a length that nobody knows
		}
		if got := n.ask(t, n.request(t, r.method, body)); got != r.want {
			t.Errorf("%s: %q, want %q", r.method, got, r.want)
		}
	}
	if dials := n.dials.Load(); dials != 1 {
		t.Errorf("%d connections", dials)
	}
	n.retreats.Add(1)
	n.ask(t, n.request(t, "GET", nil))
	if dials := n.dials.Load(); dials != 2 {
		t.Errorf("%d connections after their tunnel has retreated, want another one", dials)
	}
}

func TestAnAnswerThatIsNotReadToItsEndEndsTheConnection(t *testing.T) {
	n := newNode(t, func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write(make([]byte, 100_000)) })
	for range 2 {
		response, err := n.pools.RoundTrip(n.request(t, "GET", nil))
		if err != nil {
			t.Fatal(err)
		}
		if err := response.Body.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := response.Body.Read(make([]byte, 1)); err == nil {
			t.Error("a body that was closed can be read")
		}
	}
	if dials := n.dials.Load(); dials != 2 {
		t.Errorf("%d connections, want 2", dials)
	}
}

// What the node ends between two requests is noticed before the next one.
func TestAKeptConnectionThatHasEndedIsNotUsed(t *testing.T) {
	n := newNode(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "ok") })
	n.ask(t, n.request(t, "GET", nil))
	n.CloseClientConnections()
	if got := n.ask(t, n.request(t, "POST", strings.NewReader("once"))); got != "ok" {
		t.Errorf("%q", got)
	}
	if dials := n.dials.Load(); dials != 2 {
		t.Errorf("%d connections, want 2", dials)
	}
}

// script answers the first connection by what it is told, for what no server of Go's does.
func script(t *testing.T, answers func(c net.Conn, in *bufio.Reader)) *node {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n := newNode(t, nil)
	n.URL = "http://" + l.Addr().String()
	done := make(chan struct{})
	t.Cleanup(func() { _ = l.Close(); <-done })
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			answers(c, bufio.NewReader(c))
			_ = c.Close()
		}
	}()
	return n
}

func TestAnEndUnderARequestIsOvercomeWhereThatChangesNothing(t *testing.T) {
	asked := atomic.Int32{}
	n := script(t, func(c net.Conn, in *bufio.Reader) {
		for range 2 { // the second request of each connection is not answered
			if r, err := http.ReadRequest(in); err != nil || asked.Add(1)%2 == 0 {
				return
			} else {
				_, _ = io.Copy(io.Discard, r.Body)
			}
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		}
	})
	for range 3 {
		if got := n.ask(t, n.request(t, "GET", nil)); got != "ok" {
			t.Errorf("%q", got)
		}
	}
	if _, err := n.pools.RoundTrip(n.request(t, "POST", nil)); err == nil {
		t.Error("a request that may change something was sent again")
	}
}

func TestAnswersBeforeTheAnswerAndTooLongOnes(t *testing.T) {
	says := make(chan string, 1)
	n := script(t, func(c net.Conn, in *bufio.Reader) {
		if _, err := http.ReadRequest(in); err == nil {
			_, _ = io.WriteString(c, <-says)
		}
	})
	says <- "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
	hints := 0
	r := n.request(t, "GET", nil)
	r = r.WithContext(httptrace.WithClientTrace(r.Context(), &httptrace.ClientTrace{
		Got1xxResponse: func(code int, header textproto.MIMEHeader) error {
			if code == 103 && header.Get("Link") == "</a>" {
				hints++
			}
			return nil
		},
	}))
	if got := n.ask(t, r); got != "ok" || hints != 1 {
		t.Errorf("%q after %d hints", got, hints)
	}
	for what, answer := range map[string]string{
		"too long": "HTTP/1.1 200 OK\r\n" + strings.Repeat("A: "+strings.Repeat("a", 1000)+"\r\n", 1100),
		"for ever": strings.Repeat("HTTP/1.1 100 Continue\r\n\r\n", 10),
		"no HTTP":  "SSH-2.0\r\n",
	} {
		says <- answer
		if _, err := n.pools.RoundTrip(n.request(t, "GET", nil)); err == nil {
			t.Errorf("%s: no error", what)
		}
	}
}

func TestAClientThatGoesEndsTheRequest(t *testing.T) {
	arrived, ended := make(chan struct{}), make(chan struct{})
	n := newNode(t, func(w http.ResponseWriter, r *http.Request) {
		close(arrived)
		<-r.Context().Done()
		close(ended)
	})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-arrived
		cancel()
	}()
	if _, err := n.pools.RoundTrip(n.request(t, "GET", nil).WithContext(ctx)); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	<-ended
}

// An answer that flows goes by larger buffers, and what comes slowly is not held back.
func TestAnAnswerArrivesWholeWhetherItFlowsOrDrips(t *testing.T) {
	data := make([]byte, 3<<20)
	if _, err := rand.Read(data); err != nil {
		t.Fatal(err)
	}
	more := make(chan struct{})
	n := newNode(t, func(w http.ResponseWriter, r *http.Request) {
		control := http.NewResponseController(w)
		for rest := data; len(rest) > 0; {
			k := min(len(rest), 200_000)
			_, _ = w.Write(rest[:k])
			rest = rest[k:]
			for range 3 {
				<-more
				_, _ = io.WriteString(w, ".")
				_ = control.Flush()
			}
		}
	})
	proxy := &httputil.ReverseProxy{Transport: n.pools, FlushInterval: -1, BufferPool: sips{}, Rewrite: func(r *httputil.ProxyRequest) {
		r.Out.URL.Scheme, r.Out.URL.Host = "http", strings.TrimPrefix(n.URL, "http://")
	}}
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		to := &countedWriter{ResponseWriter: w, add: func(int) {}}
		proxy.ServeHTTP(to, r.WithContext(context.WithValue(r.Context(), destinationKey{}, destination{answer: to})))
	}))
	defer front.Close()
	response, err := http.Get(front.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	for rest := data; len(rest) > 0; {
		k := min(len(rest), 200_000)
		got := make([]byte, k)
		if _, err := io.ReadFull(response.Body, got); err != nil || !bytes.Equal(got, rest[:k]) {
			t.Fatalf("%d bytes before the end: %v", len(rest), err)
		}
		rest = rest[k:]
		for range 3 {
			more <- struct{}{}
			if _, err := io.ReadFull(response.Body, got[:1]); err != nil || got[0] != '.' {
				t.Fatalf("%q, %v", got[:1], err)
			}
		}
	}
	if tail, err := io.ReadAll(response.Body); err != nil || len(tail) > 0 {
		t.Errorf("%d bytes at the end, %v", len(tail), err)
	}
}
