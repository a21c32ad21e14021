package front

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/ravencni/raven/pkg/proxy/certificates"
	"github.com/ravencni/raven/pkg/proxy/metrics"
	"github.com/ravencni/raven/pkg/proxy/proxytest"
	"github.com/ravencni/raven/pkg/proxy/refusal"
	"github.com/ravencni/raven/test/netns"
)

// web is a server on each node that says its node's name; /upgrade echoes, /stream sends a line and waits.
func (w *world) web(t *testing.T, port string, wrap func(node string, l net.Listener) net.Listener) {
	for name, ns := range w.nodes {
		l := wrap(name, proxytest.Listen(t, ns, sameAddress+":"+port))
		server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			switch r.URL.Path {
			case "/upgrade":
				c, b, err := http.NewResponseController(rw).Hijack()
				if err != nil {
					return
				}
				defer c.Close()
				_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
				_, _ = io.Copy(c, b)
			case "/stream":
				_, _ = io.WriteString(rw, name+"\n")
				_ = http.NewResponseController(rw).Flush()
				<-r.Context().Done()
			default:
				_, _ = fmt.Fprintf(rw, "%s %s", name, r.Host)
			}
		})}
		done := make(chan struct{})
		go func() { defer close(done); _ = server.Serve(l) }()
		t.Cleanup(func() { _ = server.Close(); <-done })
	}
}

func plainly(_ string, l net.Listener) net.Listener { return l }

// get asks the HTTP front end.
func (w *world) get(t *testing.T, host, path string) (int, string, http.Header) {
	t.Helper()
	c := w.dial(t, atHTTP)
	defer c.Close()
	fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", path, host)
	r, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatalf("GET %s of %s: %v", path, host, err)
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatalf("GET %s of %s: %v", path, host, err)
	}
	return r.StatusCode, string(body), r.Header
}

func TestHTTPGoesByHost(t *testing.T) {
	netns.Run(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.web(t, "10255", plainly)
		for name := range w.nodes {
			for range 3 { // the later ones over connections that are kept
				if code, body, _ := w.get(t, name+":10255", "/"); code != 200 || body != name+" "+name+":10255" {
					t.Errorf("%s: %d %q", name, code, body)
				}
			}
		}
		for host, want := range map[string]refusal.Reason{
			"nobody:10255": refusal.UnknownNode, "lost-1:10255": refusal.NoTunnel, "hangzhou-2:9999": refusal.PortNotAllowed,
			"hangzhou-2:1": refusal.DialRefused, "hangzhou-2:x": refusal.BadTarget,
		} {
			code, body, header := w.get(t, host, "/")
			if code < 400 || header.Get(refusal.HeaderReason) != string(want) || !strings.Contains(body, string(want)) {
				t.Errorf("%s: %d %q %v, want %s", host, code, body, header, want)
			}
			if want == refusal.NoTunnel && (code != 503 || !strings.Contains(body, "gw-lost")) {
				t.Errorf("%s: %d %q does not name the gateway", host, code, body)
			}
			w.refusals(t, metrics.FrontHTTP, want, 1)
		}
	})
}

func TestHTTPStreamsAndUpgrades(t *testing.T) {
	netns.Run(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.web(t, "10255", plainly)
		c := w.dial(t, atHTTP)
		fmt.Fprint(c, "GET /stream HTTP/1.1\r\nHost: qingdao-2:10255\r\n\r\n")
		r, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatal(err)
		}
		if line, err := bufio.NewReader(r.Body).ReadString('\n'); err != nil || line != "qingdao-2\n" {
			t.Fatalf("%q, %v", line, err)
		}
		up := w.dial(t, atHTTP)
		fmt.Fprint(up, "GET /upgrade HTTP/1.1\r\nHost: hangzhou-2:10255\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		reader := bufio.NewReader(up)
		if r, err := http.ReadResponse(reader, nil); err != nil || r.StatusCode != 101 {
			t.Fatalf("%v, %v", r, err)
		}
		for range 3 {
			fmt.Fprint(up, "frame")
			got := make([]byte, 5)
			if _, err := io.ReadFull(reader, got); err != nil || string(got) != "frame" {
				t.Fatalf("%q, %v", got, err)
			}
		}
	})
}

// Each node has a certificate of an authority that the proxy knows nothing of.
func TestTLSGoesByServerNameAndIsNotTerminated(t *testing.T) {
	netns.Run(t, func(t *testing.T) {
		w := newWorld(t, nil)
		kubelets := proxytest.NewAuthority(t)
		w.web(t, "7443", func(node string, l net.Listener) net.Listener {
			c := kubelets.Issue(t, certificates.Grant{CommonName: node, DNSNames: []string{node}, Server: true})
			return tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{*c}})
		})
		for name := range w.nodes {
			c := tls.Client(w.dial(t, atTLS), &tls.Config{RootCAs: proxytest.Pool(kubelets), ServerName: name})
			fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
			body, err := io.ReadAll(c)
			if err != nil || !bytes.HasSuffix(body, []byte(name+" x")) {
				t.Errorf("%s: %q, %v", name, body, err)
			}
		}
		for name, want := range map[string]refusal.Reason{"nobody": refusal.UnknownNode, "lost-1": refusal.NoTunnel, "192.0.2.7": refusal.NoServerName} {
			err := tls.Client(w.dial(t, atTLS), &tls.Config{ServerName: name, InsecureSkipVerify: true}).HandshakeContext(t.Context())
			if err == nil || !strings.Contains(err.Error(), "remote error: tls:") {
				t.Errorf("%s: %v, want an alert", name, err)
			}
			w.refusals(t, metrics.FrontTLS, want, 1)
		}
	})
}

// clientOf is the TLS configuration of a client of the CONNECT front end; nil: without a certificate.
func (w *world) clientOf(certificate *tls.Certificate) *tls.Config {
	config := &tls.Config{RootCAs: proxytest.Pool(w.authority), ServerName: "cloud-1"}
	if certificate != nil {
		config.Certificates = []tls.Certificate{*certificate}
	}
	return config
}

// connect asks the CONNECT front end as an API server does, with something else in Host.
func (w *world) connect(t *testing.T, certificate *tls.Certificate, to string) (net.Conn, *http.Response, error) {
	t.Helper()
	c := tls.Client(w.dial(t, atConnect), w.clientOf(certificate))
	if _, err := fmt.Fprintf(c, "CONNECT %s HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", to); err != nil {
		return nil, nil, err
	}
	r, err := http.ReadResponse(bufio.NewReaderSize(c, 16), &http.Request{Method: http.MethodConnect})
	return c, r, err
}

func TestConnectWantsAClientCertificate(t *testing.T) {
	netns.Run(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.web(t, "10250", plainly)
		apiserver := w.authority.Client(t, "apiserver")
		for _, to := range []string{"hangzhou-2:10250", "qingdao-2:10250", "cloud-2:10250", sameAddress + ":10250"} {
			c, r, err := w.connect(t, apiserver, to)
			if err != nil || r.StatusCode != 200 {
				t.Fatalf("%s: %v, %v", to, r, err)
			}
			want, _, _ := strings.Cut(to, ":")
			if want == sameAddress {
				want = "cloud-2" // an address is looked for where the proxy is
			}
			fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
			if body, err := io.ReadAll(c); err != nil || !bytes.HasSuffix(body, []byte(want+" x")) {
				t.Errorf("%s: %q, %v", to, body, err)
			}
		}
		for to, want := range map[string]refusal.Reason{
			"nobody:1": refusal.UnknownNode, "lost-1:1": refusal.NoTunnel, "hangzhou-2:1": refusal.DialRefused, "hangzhou-2": refusal.BadTarget,
		} {
			_, r, err := w.connect(t, apiserver, to)
			if err != nil || r.StatusCode < 400 || r.Header.Get(refusal.HeaderReason) != string(want) {
				t.Errorf("%s: %v, %v, want %s", to, r, err, want)
			}
			w.refusals(t, metrics.FrontConnect, want, 1)
		}
		m, err := w.authority.Proxy(t, "hangzhou-1").Material()
		if err != nil {
			t.Fatal(err)
		}
		for name, c := range map[string]*tls.Certificate{
			"none": nil, "an edge's own": m.Certificate, "another signer's": proxytest.NewAuthority(t).Client(t, "apiserver"),
		} {
			if _, r, err := w.connect(t, c, "cloud-2:10250"); err == nil {
				t.Errorf("certificate %s: %v", name, r.Status)
			}
		}
		w.refusals(t, metrics.FrontConnect, refusal.NotAuthenticated, 2)
		w.refusals(t, metrics.FrontConnect, refusal.WrongIdentity, 1)
	})
}

func TestBadClientsAreRefusedAndDisturbNobody(t *testing.T) {
	netns.Run(t, func(t *testing.T) {
		const hello = 4 * time.Second
		w := newWorld(t, func(o *Options) { o.Hello = hello })
		w.web(t, "10255", plainly)
		held := w.dial(t, atHTTP)
		fmt.Fprint(held, "GET /stream HTTP/1.1\r\nHost: hangzhou-2:10255\r\n\r\n")
		r, err := http.ReadResponse(bufio.NewReader(held), nil)
		if err != nil || r.StatusCode != 200 {
			t.Fatalf("%v, %v", r, err)
		}
		for _, at := range []string{atTLS, atHTTP, atConnect} {
			c := w.dial(t, at)
			_, _ = c.Write([]byte("\x16")) // and then nothing: slow-loris
		}
		for _, at := range []string{atTLS, atConnect} {
			garbage := w.dial(t, at)
			_, _ = garbage.Write(bytes.Repeat([]byte("garbage "), 1000)) // may be cut off
		}
		big := w.dial(t, atHTTP)
		fmt.Fprintf(big, "GET / HTTP/1.1\r\nHost: hangzhou-2:10255\r\nX: %s\r\n\r\n", strings.Repeat("x", 4*maxHeaders))
		if r, err := http.ReadResponse(bufio.NewReader(big), nil); err != nil || r.StatusCode != 431 {
			t.Errorf("an oversized header: %v, %v", r, err)
		}
		w.refusals(t, metrics.FrontHTTP, refusal.BadRequest, 1)
		trusted := tls.Client(w.dial(t, atConnect), w.clientOf(w.authority.Client(t, "apiserver")))
		fmt.Fprintf(trusted, "CONNECT hangzhou-2:10255 HTTP/1.1\r\nHost: x\r\nX: %s\r\n\r\n", strings.Repeat("x", 4*maxHeaders))
		if r, err := http.ReadResponse(bufio.NewReader(trusted), nil); err != nil || r.StatusCode != 431 {
			t.Errorf("an oversized header of a client with a certificate: %v, %v", r, err)
		}
		w.refusals(t, metrics.FrontConnect, refusal.BadRequest, 1)
		slow := tls.Client(w.dial(t, atConnect), w.clientOf(w.authority.Client(t, "apiserver")))
		fmt.Fprint(slow, "CONNECT ")
		if _, err := w.dialFrom(t, "192.0.2.99", atHTTP).Read(make([]byte, 1)); err == nil {
			t.Error("a source that is not allowed is answered")
		}
		w.refusals(t, metrics.FrontHTTP, refusal.SourceNotAllowed, 1)
		w.refusals(t, metrics.FrontTLS, refusal.BadClientHello, 1)
		w.refusals(t, metrics.FrontConnect, refusal.BadClientHello, 1)
		for front, n := range map[string]int{metrics.FrontTLS: 1, metrics.FrontHTTP: 1, metrics.FrontConnect: 2} {
			w.refusals(t, front, refusal.Slow, n)
		}
		if code, body, _ := w.get(t, "qingdao-2:10255", "/"); code != 200 {
			t.Errorf("%d %s", code, body)
		}
		if line, err := bufio.NewReader(r.Body).ReadString('\n'); err != nil || line != "hangzhou-2\n" {
			t.Errorf("the stream that was open says %q, %v", line, err)
		}
	})
}

// One address may hold so many connections that say nothing; whoever comes from elsewhere does not notice.
func TestSilentConnectionsCostTheirOwnSourceOnly(t *testing.T) {
	netns.Run(t, func(t *testing.T) {
		w := newWorld(t, func(o *Options) { o.Hello = proxytest.Within })
		w.web(t, "10255", plainly)
		held := make([]net.Conn, maxPending)
		for i := range held {
			held[i] = w.dialFrom(t, "192.0.2.3", []string{atTLS, atHTTP, atConnect}[i%3])
		}
		proxytest.Await(t, "the silent connections", func() bool {
			w.front.mu.Lock()
			defer w.front.mu.Unlock()
			return w.front.pending[netip.MustParseAddr("192.0.2.3")] == maxPending
		})
		if _, err := w.dialFrom(t, "192.0.2.3", atHTTP).Read(make([]byte, 1)); err == nil {
			t.Error("one more is answered")
		}
		w.refusals(t, metrics.FrontHTTP, refusal.Busy, 1)
		if code, body, _ := w.get(t, "qingdao-2:10255", "/"); code != 200 {
			t.Errorf("a request from another address: %d %s", code, body)
		}
		for _, c := range held[:3] {
			_ = c.Close()
		}
		proxytest.Await(t, "place for another connection", func() bool {
			c := w.dialFrom(t, "192.0.2.3", atHTTP)
			defer c.Close()
			fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: hangzhou-2:10255\r\nConnection: close\r\n\r\n")
			r, err := http.ReadResponse(bufio.NewReader(c), nil)
			return err == nil && r.StatusCode == 200
		})
	})
}

func TestAnIdleStreamEnds(t *testing.T) {
	netns.Run(t, func(t *testing.T) {
		w := newWorld(t, func(o *Options) { o.Idle = 3 * time.Second })
		w.web(t, "10250", plainly)
		c, r, err := w.connect(t, w.authority.Client(t, "apiserver"), "hangzhou-2:10250")
		if err != nil || r.StatusCode != 200 {
			t.Fatalf("%v, %v", r, err)
		}
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Error("an idle stream says something")
		}
	})
}
