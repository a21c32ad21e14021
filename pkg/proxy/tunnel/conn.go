package tunnel

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/ravencni/raven/pkg/proxy/target"
)

// Dial is Open for those who need a net.Conn. ctx bounds the dialling alone.
func (h *Hub) Dial(ctx context.Context, gateway string, to target.HostPort) (net.Conn, error) {
	life, cancel := context.WithCancel(context.Background())
	stop := context.AfterFunc(ctx, cancel)
	r, w := io.Pipe()
	s, err := h.Open(life, gateway, to, nil, pipeUpstream{r})
	if !stop() && err == nil { // too late: the stream is being cancelled
		err = errors.Join(ctx.Err(), s.Close())
	}
	if err != nil {
		cancel()
		return nil, err
	}
	return &conn{Stream: s, up: w, cut: cancel, name: name(to.String())}, nil
}

type pipeUpstream struct{ *io.PipeReader }

// Interrupt implements Upstream.
func (p pipeUpstream) Interrupt() { _ = p.Close() } // never fails

// conn is a stream as a connection. A deadline that passes cuts the stream off for good, which is all that HTTP needs.
type conn struct {
	*Stream
	up   *io.PipeWriter
	cut  context.CancelFunc
	name name

	mu      sync.Mutex
	timer   *time.Timer
	expired bool
}

// Read implements net.Conn.
func (c *conn) Read(p []byte) (int, error) {
	n, err := c.Stream.Read(p)
	return n, c.explain(err)
}

// Write implements net.Conn.
func (c *conn) Write(p []byte) (int, error) {
	n, err := c.up.Write(p)
	return n, c.explain(err)
}

func (c *conn) explain(err error) error {
	if err == nil || errors.Is(err, io.EOF) {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.expired {
		return os.ErrDeadlineExceeded
	}
	return err
}

// CloseWrite ends the direction to the node.
func (c *conn) CloseWrite() error { return c.up.Close() }

// Close implements net.Conn.
func (c *conn) Close() error {
	c.mu.Lock()
	if c.timer != nil {
		c.timer.Stop()
	}
	c.mu.Unlock()
	return errors.Join(c.up.CloseWithError(net.ErrClosed), c.Stream.Close())
}

// SetDeadline implements net.Conn.
func (c *conn) SetDeadline(at time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.timer != nil {
		c.timer.Stop()
		c.timer = nil
	}
	if !at.IsZero() {
		c.timer = time.AfterFunc(time.Until(at), func() {
			c.mu.Lock()
			c.expired = true
			c.mu.Unlock()
			c.cut()
		})
	}
	return nil
}

// SetReadDeadline implements net.Conn.
func (c *conn) SetReadDeadline(at time.Time) error { return c.SetDeadline(at) }

// SetWriteDeadline implements net.Conn.
func (c *conn) SetWriteDeadline(at time.Time) error { return c.SetDeadline(at) }

// LocalAddr implements net.Conn.
func (c *conn) LocalAddr() net.Addr { return name("tunnel") }

// RemoteAddr implements net.Conn.
func (c *conn) RemoteAddr() net.Addr { return c.name }

// name is host:port of a node.
type name string

// Network implements net.Addr.
func (name) Network() string { return "raven" }

// String implements net.Addr.
func (n name) String() string { return string(n) }

var _ net.Conn = (*conn)(nil)
