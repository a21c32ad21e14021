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
func (h *Hub) Dial(ctx context.Context, gateway string, to target.HostPort) (*Dialled, error) {
	s, err := h.Open(ctx, gateway, to, nil)
	if err != nil {
		return nil, err
	}
	return &Dialled{Stream: s, name: name(to.String())}, nil
}

// Dialled is a stream as a connection. A deadline that passes cuts the stream off for good, which is all that HTTP needs.
type Dialled struct {
	*Stream
	name name

	mu      sync.Mutex
	timer   *time.Timer
	expired bool
}

// Read implements net.Conn.
func (c *Dialled) Read(p []byte) (int, error) {
	n, err := c.Stream.Read(p)
	return n, c.explain(err)
}

// Write implements net.Conn.
func (c *Dialled) Write(p []byte) (int, error) {
	n, err := c.Stream.Write(p)
	return n, c.explain(err)
}

func (c *Dialled) explain(err error) error {
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

// Close implements net.Conn.
func (c *Dialled) Close() error {
	c.mu.Lock()
	if c.timer != nil {
		c.timer.Stop()
	}
	c.mu.Unlock()
	c.Stream.Close()
	return nil
}

// SetDeadline implements net.Conn.
func (c *Dialled) SetDeadline(at time.Time) error {
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
			c.Stream.Reset()
		})
	}
	return nil
}

// SetReadDeadline implements net.Conn.
func (c *Dialled) SetReadDeadline(at time.Time) error { return c.SetDeadline(at) }

// SetWriteDeadline implements net.Conn.
func (c *Dialled) SetWriteDeadline(at time.Time) error { return c.SetDeadline(at) }

// LocalAddr implements net.Conn.
func (c *Dialled) LocalAddr() net.Addr { return name("tunnel") }

// RemoteAddr implements net.Conn.
func (c *Dialled) RemoteAddr() net.Addr { return c.name }

// name is host:port of a node.
type name string

// Network implements net.Addr.
func (name) Network() string { return "raven" }

// String implements net.Addr.
func (n name) String() string { return string(n) }

var _ net.Conn = (*Dialled)(nil)
