package checks

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"

	"github.com/ravencni/raven/test/lab"
)

// short is a client and a server for short connections.
type short struct {
	client, server end
	hosts          []*lab.Host
	listener       net.Listener
	serving        sync.WaitGroup
}

func newShort(ctx context.Context, l *lab.Lab) (*short, error) {
	client, err := findEnd(l, "east-2/a")
	if err != nil {
		return nil, err
	}
	server, err := findEnd(l, "west-2/a")
	if err != nil {
		return nil, err
	}
	s := &short{client: client, server: server, hosts: []*lab.Host{client.host.Node(), server.host.Node()}}
	if s.listener, err = server.host.Listen(ctx, fmt.Sprintf(":%d", shortPort)); err != nil {
		return nil, err
	}
	s.serving.Go(func() {
		for {
			c, err := s.listener.Accept()
			if err != nil {
				return
			}
			s.serving.Go(func() { answer(c) })
		}
	})
	return s, nil
}

// answer gives every line back, and closes first when it is told goodbye.
func answer(c net.Conn) {
	defer c.Close()
	for r := bufio.NewReader(c); ; {
		line, err := r.ReadString('\n')
		if err != nil || line == "bye\n" {
			return
		}
		if _, err := io.WriteString(c, line); err != nil {
			return
		}
	}
}

func (s *short) close() error {
	err := s.listener.Close()
	s.serving.Wait()
	return err
}

// connect makes n connections from ports on, side by side and over both families in turn, and returns how many packets
// the end redirected that redirected less.
func (s *short) connect(ctx context.Context, l *lab.Lab, port, n int) (float64, error) {
	nodes := []string{s.hosts[0].Name, s.hosts[1].Name}
	before, err := metricsOf(ctx, l, nodes)
	if err != nil {
		return 0, err
	}
	if err := s.each(ctx, port, n); err != nil {
		return 0, err
	}
	after, err := metricsOf(ctx, l, nodes)
	if err != nil {
		return 0, err
	}
	client, server := compare(before[nodes[0]], after[nodes[0]]), compare(before[nodes[1]], after[nodes[1]])
	return min(client.redirected, server.redirected), nil
}

// dialled is a connection that has just been made; which number it has decides its family and its end.
type dialled struct {
	*net.TCPConn
	number int
}

// each makes n connections and lets each be used. Dialling needs a thread in the client's namespace, talking does not,
// and is faster without.
func (s *short) each(ctx context.Context, port, n int) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	made := make(chan dialled, clients)
	var dialling, talking sync.WaitGroup
	for i := range dialers {
		dialling.Go(func() {
			err := s.client.host.Do(func() error {
				for k := i; k < n && ctx.Err() == nil; k += dialers {
					c, err := s.dial(ctx, port+k, k)
					if err != nil {
						return fmt.Errorf("connection %d: %w", k, err)
					}
					made <- dialled{c, k}
				}
				return nil
			})
			if err != nil {
				cancel(err)
			}
		})
	}
	for range clients {
		talking.Go(func() {
			for c := range made {
				if err := c.talk(); err != nil {
					cancel(fmt.Errorf("connection %d: %w", c.number, err))
				}
			}
		})
	}
	dialling.Wait()
	close(made)
	talking.Wait()
	return context.Cause(ctx)
}

func (s *short) dial(ctx context.Context, port, number int) (*net.TCPConn, error) {
	family := 4 + 2*(number%2)
	d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(s.client.addr(family), uint16(port)))}
	c, err := d.DialContext(ctx, "tcp", netip.AddrPortFrom(s.server.addr(family), shortPort).String())
	if err != nil {
		return nil, err
	}
	return c.(*net.TCPConn), nil
}

// talk says a few lines and ends the connection in one of three ways.
func (c dialled) talk() error {
	defer c.Close()
	r := bufio.NewReader(c)
	for range 3 {
		if _, err := io.WriteString(c, "hello\n"); err != nil {
			return err
		}
		if _, err := r.ReadString('\n'); err != nil {
			return err
		}
	}
	var err error
	switch c.number % 3 {
	case 0: // the client closes first, and waits for the server's end
		err = c.CloseWrite()
	case 1:
		_, err = io.WriteString(c, "bye\n")
	default:
		return errors.Join(c.SetLinger(0), c.Close())
	}
	if err != nil {
		return err
	}
	if _, err := r.ReadByte(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("the other end did not close, but: %w", err)
	}
	return nil
}
