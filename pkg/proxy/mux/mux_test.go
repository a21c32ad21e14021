package mux

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

func config(serve func(*Stream)) Config {
	return Config{Serve: serve, StreamWindow: 1 << 20, ConnectionWindow: 8 << 20, MaxFrame: chunk, MaxStreams: 1000, MaxHeader: 8 << 10,
		Silence: 10 * time.Second, Stuck: 10 * time.Second}
}

// sockets are the two ends of a TCP connection.
func sockets(t *testing.T) (a, b *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	must(t, err)
	d, err := l.Accept()
	must(t, err)
	t.Cleanup(func() { _ = c.Close(); _ = d.Close() })
	return c.(*net.TCPConn), d.(*net.TCPConn)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func pair(t *testing.T, serve func(*Stream)) (client, server *Conn) {
	t.Helper()
	a, b := sockets(t)
	client, server = Client(a, config(nil)), Server(b, config(serve))
	t.Cleanup(func() { client.Close(); server.Close() })
	return client, server
}

// carry joins a stream with a socket as a proxy does.
func carry(s *Stream, c *net.TCPConn) error {
	done := make(chan error, 1)
	s.Deliver(c, func(int) {}, func(err error) {
		if err == nil {
			err = c.CloseWrite()
		} else {
			_ = c.Close()
		}
		done <- err
	})
	err := s.Send(c, func(int) {})
	if err == nil {
		err = s.CloseWrite()
	} else {
		s.Reset()
	}
	return errors.Join(err, <-done)
}

func open(t *testing.T, c *Conn, first string) *Stream {
	t.Helper()
	s, err := c.Open(Request{Method: http.MethodConnect, Authority: "node:7"}, []byte(first))
	must(t, err)
	r, err := s.Response(t.Context())
	must(t, err)
	if r.Status != http.StatusOK {
		t.Fatalf("status %d", r.Status)
	}
	return s
}

func random(t *testing.T, n int) []byte {
	b := make([]byte, n)
	_, err := rand.Read(b)
	must(t, err)
	return b
}

// echoServer answers streams through a socket to an echo, as an edge does.
func echoServer(t *testing.T) func(*Stream) {
	return func(s *Stream) {
		near, far := sockets(t)
		go func() {
			_, _ = io.Copy(far, far)
			_ = far.CloseWrite()
		}()
		if s.Respond(Response{Status: http.StatusOK}, false) == nil {
			_ = carry(s, near)
		}
	}
}

func TestBytesArriveWholeAndInOrderBothWays(t *testing.T) {
	client, _ := pair(t, echoServer(t))
	var group sync.WaitGroup
	for i := range 8 {
		data := random(t, 5<<20+i) // more than any window
		group.Go(func() {
			s, err := client.Open(Request{Method: http.MethodConnect, Authority: "node:7"}, data[:100])
			if err != nil {
				t.Error(err)
				return
			}
			here, there := net.Pipe() // no socket
			if i%2 == 0 {
				here, there = sockets(t)
			}
			var sides sync.WaitGroup
			sides.Go(func() {
				done := make(chan error, 1)
				s.Deliver(there, func(int) {}, func(err error) { done <- errors.Join(err, there.Close()) })
				err := s.Send(there, func(int) {})
				if err == nil {
					err = s.CloseWrite()
				} else {
					s.Reset()
				}
				t.Logf("stream %d: sending ends with %v, delivering with %v", i, err, <-done)
			})
			sides.Go(func() { _, _ = here.Write(data[100:]) })
			back := make([]byte, len(data))
			if _, err := io.ReadFull(here, back); err != nil || !bytes.Equal(back, data) {
				t.Errorf("stream %d: %v, equal: %v", i, err, bytes.Equal(back, data))
			}
			_ = here.Close()
			sides.Wait()
			s.Close()
		})
	}
	group.Wait()
}

func TestAnEndIsNoReset(t *testing.T) {
	client, _ := pair(t, echoServer(t))
	s := open(t, client, "over")
	must(t, s.CloseWrite())
	if b, err := io.ReadAll(s); err != nil || string(b) != "over" {
		t.Errorf("%q, %v", b, err)
	}
	s = open(t, client, "out")
	_, err := io.ReadFull(s, make([]byte, 3))
	must(t, err)
	s.Reset()
	if _, err := s.Read(make([]byte, 1)); !errors.Is(err, ErrReset) {
		t.Errorf("after a reset: %v", err)
	}
	if _, err := s.Write([]byte("x")); !errors.Is(err, ErrReset) {
		t.Errorf("after a reset: %v", err)
	}
}

// A stream whose socket takes nothing holds up its own sender, and nobody else.
func TestAStreamThatStandsStillHoldsUpNobody(t *testing.T) {
	stalled, far := sockets(t)
	client, _ := pair(t, func(s *Stream) {
		if s.Request().Authority != "stalled:7" {
			echoServer(t)(s)
			return
		}
		must(t, s.Respond(Response{Status: http.StatusOK}, false))
		_ = carry(s, stalled)
	})
	s, err := client.Open(Request{Method: http.MethodConnect, Authority: "stalled:7"}, nil)
	must(t, err)
	data := random(t, 32<<20)
	sent := make(chan error, 1)
	go func() {
		_, err := s.Write(data)
		sent <- errors.Join(err, s.CloseWrite())
	}()
	other := open(t, client, "")
	for i := range 100 {
		say := fmt.Sprintf("%04d", i)
		_, err := io.WriteString(other, say)
		must(t, err)
		b := make([]byte, 4)
		if _, err := io.ReadFull(other, b); err != nil || string(b) != say {
			t.Fatalf("%q, %v", b, err)
		}
	}
	select {
	case err := <-sent:
		t.Fatalf("%d bytes went into a stream that nobody reads: %v", len(data), err)
	default:
	}
	got := make([]byte, len(data))
	if _, err := io.ReadFull(far, got); err != nil || !bytes.Equal(got, data) {
		t.Errorf("it does not go on: %v", err)
	}
	must(t, <-sent)
}

func TestShutdownLetsStreamsEndAndTakesNone(t *testing.T) {
	client, server := pair(t, echoServer(t))
	s := open(t, client, "a")
	ended := make(chan error, 1)
	go func() { ended <- server.Shutdown(t.Context()) }()
	for !client.Parting() {
		_, err := client.Open(Request{Method: http.MethodConnect, Authority: "node:7"}, nil)
		if err != nil && !errors.Is(err, ErrNotTaken) {
			t.Fatal(err)
		}
	}
	if client.Available() {
		t.Error("streams are to be had")
	}
	b := make([]byte, 1)
	_, err := io.ReadFull(s, b)
	must(t, err)
	_, err = io.WriteString(s, "b")
	must(t, err)
	_, err = io.ReadFull(s, b)
	must(t, err)
	select {
	case err := <-ended:
		t.Fatalf("ended under a stream: %v", err)
	default:
	}
	s.Close()
	client.mu.Lock()
	all := client.streams
	var open []*Stream
	for _, s := range all {
		open = append(open, s)
	}
	client.mu.Unlock()
	for _, s := range open { // those that were opened before the word came
		_, err := s.Response(t.Context())
		if err != nil && !errors.Is(err, ErrNotTaken) {
			t.Error(err)
		}
		s.Close()
	}
	must(t, <-ended)
}

// A connection may end between its choice and the opening of a stream: whoever opens may then do so elsewhere.
func TestAStreamOnAnEndedConnectionIsNotTaken(t *testing.T) {
	client, server := pair(t, echoServer(t))
	must(t, server.Shutdown(t.Context()))
	<-client.Done()
	if _, err := client.Open(Request{Method: http.MethodConnect, Authority: "node:7"}, nil); !errors.Is(err, ErrNotTaken) {
		t.Errorf("it is %v", err)
	}
}

func TestASilentPeerIsGivenUp(t *testing.T) {
	a, _ := sockets(t)
	quick := config(nil)
	quick.Silence = 50 * time.Millisecond
	c := Client(a, quick)
	s, err := c.Open(Request{Method: http.MethodConnect, Authority: "node:7"}, nil)
	must(t, err)
	_, err = s.Response(t.Context())
	if !errors.Is(err, ErrSilent) || !errors.Is(c.Err(), ErrSilent) {
		t.Errorf("the stream ends with %v, the connection with %v", err, c.Err())
	}
	c.Close()
	// Who answers pings is not.
	d, e := sockets(t)
	alive, peer := Client(d, quick), Server(e, config(func(*Stream) {}))
	select {
	case <-alive.Done():
		t.Errorf("given up though it answers: %v", alive.Err())
	case <-time.After(5 * quick.Silence):
	}
	alive.Close()
	peer.Close()
}

func TestGarbageEndsTheConnection(t *testing.T) {
	for name, says := range map[string]string{
		"no HTTP/2":    "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
		"no settings":  "\x00\x00\x08\x06\x00\x00\x00\x00\x0012345678",
		"huge frame":   "\x00\x00\x00\x04\x00\x00\x00\x00\x00" + "\xff\xff\xff\x00\x00\x00\x00\x00\x01",
		"no stream":    "\x00\x00\x00\x04\x00\x00\x00\x00\x00" + "\x00\x00\x01\x00\x00\x00\x00\x00\x09a",
		"bad padding":  "\x00\x00\x00\x04\x00\x00\x00\x00\x00" + "\x00\x00\x01\x00\x08\x00\x00\x00\x01a",
		"bad settings": "\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x05\x00\x00\x00\x01",
	} {
		a, b := sockets(t)
		c := Client(a, config(nil))
		_, err := io.WriteString(b, says)
		must(t, err)
		select {
		case <-c.Done():
		case <-time.After(5 * time.Second):
			t.Errorf("%s: nothing happens", name)
		}
		if c.Err() == nil {
			t.Errorf("%s: no error", name)
		}
		c.Close()
	}
}

// It pings and reads no answer; those are kept for it up to a limit.
func TestAPeerThatFloodsIsCutOff(t *testing.T) {
	a, b := sockets(t)
	c := Client(a, config(nil))
	_, err := io.WriteString(b, "\x00\x00\x00\x04\x00\x00\x00\x00\x00")
	must(t, err)
	pings := bytes.Repeat([]byte("\x00\x00\x08\x06\x00\x00\x00\x00\x0012345678"), 1000)
	for err == nil {
		select {
		case <-c.Done():
			err = c.Err()
		default:
			if _, err = b.Write(pings); err != nil {
				<-c.Done()
			}
		}
	}
	if c.Err() == nil || !strings.Contains(c.Err().Error(), "does not read") {
		t.Errorf("it ends with %v", c.Err())
	}
	c.Close()
}

func TestAStreamTooManyIsRefusedAndNoOther(t *testing.T) {
	a, b := sockets(t)
	few := config(echoServer(t))
	few.MaxStreams = 2
	client, server := Client(a, config(nil)), Server(b, few)
	t.Cleanup(func() { client.Close(); server.Close() })
	first, second := open(t, client, "1"), open(t, client, "2") // by now its settings are here
	if _, err := client.Open(Request{Method: http.MethodConnect, Authority: "node:7"}, nil); !errors.Is(err, ErrNotTaken) || client.Available() {
		t.Errorf("a third stream: %v", err)
	}
	client.mu.Lock()
	client.peerStreams = 3 // as if it did not care
	client.mu.Unlock()
	third, err := client.Open(Request{Method: http.MethodConnect, Authority: "node:7"}, nil)
	must(t, err)
	if _, err := third.Response(t.Context()); !errors.Is(err, ErrNotTaken) {
		t.Errorf("a third stream: %v", err)
	}
	for _, s := range []*Stream{first, second} {
		if _, err := io.ReadFull(s, make([]byte, 1)); err != nil {
			t.Error(err)
		}
		s.Close()
	}
}

func protocols() *http.Protocols {
	p := new(http.Protocols)
	p.SetUnencryptedHTTP2(true)
	return p
}

// one is a listener with one connection.
type one struct {
	c    net.Conn
	done chan struct{}
	once sync.Once
}

func (o *one) Accept() (net.Conn, error) {
	if c := o.c; c != nil {
		o.c = nil
		return c, nil
	}
	<-o.done
	return nil, net.ErrClosed
}
func (o *one) Close() error   { o.once.Do(func() { close(o.done) }); return nil }
func (o *one) Addr() net.Addr { return &net.TCPAddr{} }

// During an update one side may still be net/http's.
func TestItSpeaksWithTheServerOfNetHTTP(t *testing.T) {
	a, b := sockets(t)
	server := &http.Server{Protocols: protocols(), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Raven-Reason", "none")
		w.WriteHeader(http.StatusOK)
		_ = http.NewResponseController(w).Flush()
		buf := make([]byte, 100_000)
		for {
			n, err := r.Body.Read(buf)
			_, _ = w.Write(buf[:n])
			_ = http.NewResponseController(w).Flush()
			if err != nil {
				return
			}
		}
	})}
	l := &one{c: b, done: make(chan struct{})}
	go func() { _ = server.Serve(l) }()
	defer server.Close()
	c := Client(a, config(nil))
	defer c.Close()
	data := random(t, 3<<20)
	s := open(t, c, "")
	if got := s.response.Header["raven-reason"]; got != "none" {
		t.Errorf("header %q", got)
	}
	go func() {
		_, err := s.Write(data)
		if err = errors.Join(err, s.CloseWrite()); err != nil {
			t.Error(err)
		}
	}()
	back, err := io.ReadAll(s)
	if err != nil || !bytes.Equal(back, data) {
		t.Errorf("%d bytes, %v", len(back), err)
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Shutdown(t.Context()) }()
	<-c.Done()
	if !c.Parting() {
		t.Error("the server's goodbye was not heard")
	}
}

func TestItSpeaksWithTheClientOfNetHTTP(t *testing.T) {
	a, b := sockets(t)
	server := Server(b, config(echoServer(t)))
	defer server.Close()
	transport := &http.Transport{Protocols: protocols(), DialContext: func(context.Context, string, string) (net.Conn, error) { return a, nil }}
	client, err := transport.NewClientConn(t.Context(), "http", "tunnel:80")
	must(t, err)
	data := random(t, 3<<20)
	r := (&http.Request{Method: http.MethodConnect, URL: &url.URL{Scheme: "http", Host: "node:7"}, Host: "node:7", Header: http.Header{},
		Body: io.NopCloser(bytes.NewReader(data)), ContentLength: -1}).WithContext(t.Context())
	response, err := client.RoundTrip(r)
	must(t, err)
	back, err := io.ReadAll(response.Body)
	if err != nil || !bytes.Equal(back, data) {
		t.Errorf("%d bytes, %v", len(back), err)
	}
	must(t, response.Body.Close())
	must(t, server.Shutdown(t.Context()))
	for enough := time.Now().Add(5 * time.Second); client.Available() != 0; runtime.Gosched() {
		if time.Now().After(enough) {
			t.Fatal("the goodbye was not heard")
		}
	}
}
