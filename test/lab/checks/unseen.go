package checks

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"regexp"
	"strconv"
	"syscall"
	"time"

	"github.com/ravencni/raven/test/lab"
)

const (
	// unseenBytes is more than half of TCP's numbers: what conntrack saw last then looks like the future.
	unseenBytes = 3_000_000_000
	unseenPort  = 9008
)

// ClosingsAfterUnseenStreams: two streams that conntrack saw only the beginning of end, one by FIN and one by RST, on
// hosts that drop what conntrack calls INVALID, as kube-proxy sets them up.
var ClosingsAfterUnseenStreams = Check{
	Name:   "unseen-closings",
	Says:   "FIN and RST after 3 GB that conntrack did not see pass kube-proxy's INVALID rule and end the entries",
	Within: 2 * time.Minute,
	Run: func(ctx context.Context, l *lab.Lab) (evidence string, err error) {
		s, err := newShort(ctx, l)
		if err != nil {
			return "", err
		}
		defer func() { err = errors.Join(err, s.close()) }()
		// Short enough to wait for.
		undo, err := s.closingTimeouts(3)
		if err != nil {
			return "", err
		}
		defer func() { err = errors.Join(err, undo()) }()
		for _, h := range s.hosts {
			for _, family := range []int{4, 6} {
				undo, err := iptables(ctx, h, family, "filter", "FORWARD", "-m", "conntrack", "--ctstate", "INVALID", "-j", "DROP")
				if err != nil {
					return "", err
				}
				defer func() { err = errors.Join(err, undo()) }()
			}
		}
		nodes := []string{s.hosts[0].Name, s.hosts[1].Name}
		before, err := metricsOf(ctx, l, nodes)
		if err != nil {
			return "", err
		}
		began := time.Now()
		streams := make(chan error, 2)
		go func() { streams <- s.stream(ctx, 4, finish) }()
		go func() { streams <- s.stream(ctx, 6, reset) }()
		if err := errors.Join(<-streams, <-streams); err != nil {
			return "", err
		}
		took := time.Since(began)
		after, err := metricsOf(ctx, l, nodes)
		if err != nil {
			return "", err
		}
		share := 1.0
		for _, node := range nodes {
			share = min(share, compare(before[node], after[node]).bytes/(2*unseenBytes))
		}
		if share < leastRedirected {
			return "", fmt.Errorf("conntrack saw more than it should: only %.2f %% of the bytes were redirected", 100*share)
		}
		if err := s.ended(ctx); err != nil {
			return "", err
		}
		return fmt.Sprintf("2 streams of 3 GB in %s, %.2f %% or more redirected at both ends; both ends saw the closings, "+
			"nothing INVALID, entries gone", took.Round(100*time.Millisecond), min(100, 100*share)), nil
	},
}

// ending ends a connection whose other end has received everything, and reports what that other end saw.
type ending func(client *net.TCPConn, server <-chan error) error

// finish: either end closes, and sees the other one's end.
func finish(client *net.TCPConn, server <-chan error) error {
	if err := client.CloseWrite(); err != nil {
		return err
	}
	if err := <-server; err != nil {
		return fmt.Errorf("the server did not see the end, but: %w", err)
	}
	if _, err := client.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		return fmt.Errorf("the client did not see the server's end, but: %w", err)
	}
	return nil
}

func reset(client *net.TCPConn, server <-chan error) error {
	if err := errors.Join(client.SetLinger(0), client.Close()); err != nil {
		return err
	}
	if err := <-server; !errors.Is(err, syscall.ECONNRESET) {
		return fmt.Errorf("the server did not see the reset, but: %w", err)
	}
	return nil
}

// stream sends unseenBytes from pod to pod and ends the connection.
func (s *short) stream(ctx context.Context, family int, end ending) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("stream over IPv%d: %w", family, err)
		}
	}()
	listener, err := s.server.host.Listen(ctx, netip.AddrPortFrom(s.server.addr(family), unseenPort).String())
	if err != nil {
		return err
	}
	defer listener.Close()
	received := make(chan error, 1) // everything; and then what came after it
	go func() {
		c, err := listener.Accept()
		if err != nil {
			received <- err
			return
		}
		defer c.Close()
		defer context.AfterFunc(ctx, func() { _ = c.Close() })()
		_, err = io.CopyBuffer(struct{ io.Writer }{io.Discard}, io.LimitReader(c, unseenBytes), make([]byte, 1<<20))
		if err == nil {
			_, err = io.WriteString(c, "all\n")
		}
		received <- err
		if n, err := c.Read(make([]byte, 1)); n == 0 && errors.Is(err, io.EOF) {
			received <- nil
		} else {
			received <- fmt.Errorf("%d bytes more: %w", n, err)
		}
	}()
	conn, err := s.client.host.Dial(ctx, "tcp", netip.Addr{}, netip.AddrPortFrom(s.server.addr(family), unseenPort))
	if err != nil {
		return err
	}
	client := conn.(*net.TCPConn)
	defer client.Close()
	defer context.AfterFunc(ctx, func() { _ = client.Close() })()
	block := make([]byte, 1_000_000)
	for range unseenBytes / len(block) {
		if _, err := client.Write(block); err != nil {
			return fmt.Errorf("send: %w", err)
		}
	}
	if _, err := io.ReadFull(client, make([]byte, len("all\n"))); err != nil {
		return fmt.Errorf("wait for the server to have all: %w", err)
	}
	if err := <-received; err != nil {
		return fmt.Errorf("receive: %w", err)
	}
	return end(client, received)
}

// ended waits until conntrack of both hosts has no entry that is open, and then none at all, and looks at the counters
// of the rules for what is INVALID.
func (s *short) ended(ctx context.Context) error {
	for _, h := range s.hosts {
		for _, want := range []string{"closed", "gone"} {
			soon, cancel := context.WithTimeout(ctx, 10*time.Second)
			err := lab.Await(soon, "the entries to be "+want+" on "+h.Name, func(ctx context.Context) error {
				entries, err := tracked(ctx, h, unseenPort, 0, 1<<16)
				for _, e := range entries {
					if !e.closed || want == "gone" {
						err = errors.Join(err, fmt.Errorf("port %d is %s for %s", e.port, e.state, e.left))
					}
				}
				return err
			})
			cancel()
			if err != nil {
				return err
			}
		}
		for _, command := range []string{"iptables", "ip6tables"} {
			out, err := h.Run(ctx, command, "-w", "-nvxL", "FORWARD")
			if err != nil {
				return err
			}
			m := invalidLine.FindStringSubmatch(out)
			if m == nil {
				return fmt.Errorf("%s on %s has no rule for what is INVALID: %s", command, h.Name, out)
			}
			if n, err := strconv.Atoi(m[1]); err != nil || n != 0 {
				return fmt.Errorf("%s on %s dropped %s packets as INVALID", command, h.Name, m[1])
			}
		}
	}
	return nil
}

var invalidLine = regexp.MustCompile(`(?m)^ *(\d+) .* ctstate INVALID`)
