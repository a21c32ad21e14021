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

const (
	// handshakeLimit bounds the TLS handshake and the greeting.
	handshakeLimit = 10 * time.Second
	// silence is how long nothing may be heard before a ping is sent, and pingLimit how long its answer may take: a peer
	// that has vanished is noticed within their sum.
	silence   = 10 * time.Second
	pingLimit = 10 * time.Second
	// userTimeout closes a connection whose sent bytes nobody acknowledges.
	userTimeout = silence + pingLimit

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
}

// Read implements net.Conn.
func (l *link) Read(p []byte) (int, error) {
	n, err := l.Conn.Read(p)
	if err != nil {
		l.mu.Lock()
		if l.failure == nil {
			l.failure = err
		}
		l.mu.Unlock()
	}
	return n, err
}

func (l *link) why() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.failure
}

func newLink(c net.Conn) *link { return &link{Conn: c, closed: make(chan struct{})} }

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

// keepAlive has the kernel notice a peer that has vanished while data is on its way.
func keepAlive(c net.Conn) error {
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
		setErr = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(userTimeout.Milliseconds()))
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
