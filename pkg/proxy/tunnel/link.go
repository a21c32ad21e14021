package tunnel

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Limits are how long one side of a tunnel waits for the other.
type Limits struct {
	// Handshake bounds the TLS handshake and the greeting; 0: 10 s.
	Handshake time.Duration
	// Silence is how long nothing may be heard before a ping is sent, and how long the answer to that may take: a peer that
	// has vanished is noticed within twice as long. 0: 10 s.
	Silence time.Duration
	// Hold is how long a request may wait for a tunnel of a gateway whose proxy was connected a moment ago, or that had no
	// time to connect yet: so that a restart refuses nothing. 0: 10 s.
	Hold time.Duration
}

func (l Limits) orDefault() Limits {
	const usual = 10 * time.Second
	if l.Handshake == 0 {
		l.Handshake = usual
	}
	if l.Silence == 0 {
		l.Silence = usual
	}
	if l.Hold == 0 {
		l.Hold = usual
	}
	return l
}

// vanished closes a connection whose sent bytes nobody acknowledges.
func (l Limits) vanished() time.Duration { return 2 * l.Silence }

const (
	// frameSize is the largest DATA frame that the dialled side takes: four TLS records.
	frameSize = 64 << 10
	// streamWindow is what one stream may have in flight in each direction, and with the round-trip time bounds its
	// throughput: 80 Mbit/s at 100 ms. It also bounds what a client that stops reading makes the proxy hold.
	streamWindow = 1 << 20
	// connectionWindow lets 256 streams stand still before they hold up the others.
	connectionWindow = 256 << 20
	// maxStreams of one tunnel.
	maxStreams = 10_000
	// maxHeader bounds the headers of the streams in bytes; ours have some hundred.
	maxHeader = 8 << 10
)

// Requests besides CONNECT; the side that was dialled makes them.
const (
	pathWelcome = "/welcome" // the tunnel is admitted
	pathRefused = "/refused" // it is not; the headers say why
	pathLeaving = "/leaving" // the sender is about to end: no new streams, look for another
	pathPing    = "/ping"
)

// link is a TLS connection that HTTP/2 runs on; it tells when it was closed. It hides the TLS from net/http, which would
// negotiate the protocol again.
type link struct {
	net.Conn
	once   sync.Once
	closed chan struct{}

	mu sync.Mutex
	// failure is the first error of reading, such as the alert by which a peer refuses our certificate.
	failure error
	// client runs on this connection, at the side that was dialled; parted: its peer had said that it would end before it did.
	client *http.ClientConn
	parted bool
	heard  time.Time // when bytes came last
}

// take makes the client known that runs on the link.
func (l *link) take(c *http.ClientConn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.client = c
}

// Read implements net.Conn.
func (l *link) Read(p []byte) (int, error) {
	n, err := l.Conn.Read(p)
	l.mu.Lock()
	defer l.mu.Unlock()
	if n > 0 {
		l.heard = time.Now()
	}
	if err != nil {
		if l.failure == nil {
			l.failure = err
			// A GOAWAY came before: nothing is available, though nothing is wrong yet.
			l.parted = l.client != nil && l.client.Err() == nil && l.client.Available() == 0
		}
	}
	return n, err
}

func (l *link) why() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.failure
}

// quiet is how long nothing was heard.
func (l *link) quiet() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return time.Since(l.heard)
}

// goodbye says whether the peer announced the end of the link.
func (l *link) goodbye() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.parted
}

func newLink(c net.Conn) *link { return &link{Conn: c, closed: make(chan struct{}), heard: time.Now()} }

// Close implements net.Conn.
func (l *link) Close() error {
	err := l.Conn.Close()
	l.once.Do(func() { close(l.closed) })
	return err
}

// single is a listener that hands out one connection.
type single struct {
	link  *link
	given bool
	mu    sync.Mutex
	stop  chan struct{}
	once  sync.Once
}

func newSingle(l *link) *single { return &single{link: l, stop: make(chan struct{})} }

// Accept implements net.Listener.
func (s *single) Accept() (net.Conn, error) {
	s.mu.Lock()
	first := !s.given
	s.given = true
	s.mu.Unlock()
	if first {
		return s.link, nil
	}
	<-s.stop
	return nil, net.ErrClosed
}

// Close implements net.Listener.
func (s *single) Close() error {
	s.once.Do(func() { close(s.stop) })
	return nil
}

// Addr implements net.Listener.
func (s *single) Addr() net.Addr { return s.link.LocalAddr() }

// onlyHTTP2 is HTTP/2 without TLS of its own.
func onlyHTTP2() *http.Protocols {
	p := new(http.Protocols)
	p.SetUnencryptedHTTP2(true)
	return p
}

// keepAlive has the kernel notice within a time that a peer has vanished while data is on its way.
func keepAlive(c net.Conn, within time.Duration) error {
	sc, ok := c.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return fmt.Errorf("set the timeout of a tunnel: %w", err)
	}
	var setErr error
	err = raw.Control(func(fd uintptr) {
		setErr = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(within.Milliseconds()))
	})
	if err := errors.Join(err, setErr); err != nil {
		return fmt.Errorf("set the timeout of a tunnel: %w", err)
	}
	return nil
}

// await waits for d or until ctx is done, which it reports.
func await(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
