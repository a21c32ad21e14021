package tunnel

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ravencni/raven/pkg/proxy/mux"
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
	// frameSize is the largest DATA frame that a side takes: two TLS records.
	frameSize = 2 * record
	// record is the most that one record of TLS holds (RFC 8446, section 5.1).
	record = 16 << 10
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

// config of HTTP/2 for a tunnel. serve is the edge's; nil: this is the side that was dialled.
func (l Limits) config(serve func(*mux.Stream)) mux.Config {
	return mux.Config{
		Serve: serve, StreamWindow: streamWindow, ConnectionWindow: connectionWindow, MaxFrame: frameSize, MaxStreams: maxStreams,
		MaxHeader: maxHeader, Silence: l.Silence, Stuck: l.vanished(),
	}
}

// link is a TLS connection that HTTP/2 runs on; it tells when it was closed.
type link struct {
	net.Conn
	once   sync.Once
	closed chan struct{}
	begin  time.Time
	heard  atomic.Int64 // when bytes came last, in nanoseconds since begin

	mu sync.Mutex
	// failure is the first error of reading, such as the alert by which a peer refuses our certificate.
	failure error
	// client runs on this connection, at the side that was dialled; parted: its peer had said that it would end before it did.
	client *mux.Conn
	parted bool
}

// take makes the client known that runs on the link.
func (l *link) take(c *mux.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.client = c
}

// Read implements net.Conn.
func (l *link) Read(p []byte) (int, error) {
	n, err := l.Conn.Read(p)
	if n > 0 {
		l.heard.Store(int64(time.Since(l.begin)))
	}
	if err != nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.failure == nil {
			l.failure = err
			l.parted = l.client != nil && l.client.Err() == nil && l.client.Parting()
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
	return time.Since(l.begin) - time.Duration(l.heard.Load())
}

// goodbye says whether the peer announced the end of the link.
func (l *link) goodbye() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.parted
}

func newLink(c net.Conn) *link { return &link{Conn: c, closed: make(chan struct{}), begin: time.Now()} }

// Close implements net.Conn.
func (l *link) Close() error {
	err := l.Conn.Close()
	l.once.Do(func() { close(l.closed) })
	return err
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
