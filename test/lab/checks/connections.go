package checks

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ravencni/raven/test/lab"
)

const (
	// shortConnections are made, a third each closed by the client, closed by the server and reset.
	shortConnections = 10_000
	shortPort        = 9007
	// firstPort of the clients; each connection has a port of its own, and with it an entry of its own.
	firstPort = 12_000
	// dialers make connections and clients use them, at the same time.
	dialers, clients = 2, 8
)

// Histogram is how many conntrack entries there are per "<node> <state>".
type Histogram map[string]int

func (h Histogram) String() string {
	var parts []string
	for _, key := range slices.Sorted(maps.Keys(h)) {
		parts = append(parts, fmt.Sprintf("%s %d", key, h[key]))
	}
	return strings.Join(parts, ", ")
}

// ShortConnections makes many short TCP connections between two pods and leaves in h what the hosts' conntrack holds
// afterwards, so that an accelerated lab can be compared with another one.
func ShortConnections(h Histogram) Check {
	return Check{
		Name:   "short-connections",
		Says:   "10,000 short TCP connections leave no conntrack entry beyond its state's own timeout",
		Within: 2 * time.Minute,
		Run: func(ctx context.Context, l *lab.Lab) (evidence string, err error) {
			s, err := newShort(ctx, l)
			if err != nil {
				return "", err
			}
			defer func() { err = errors.Join(err, s.close()) }()
			// Nothing may expire before it is counted.
			undo, err := s.closingTimeouts(120)
			if err != nil {
				return "", err
			}
			defer func() { err = errors.Join(err, undo()) }()
			began := time.Now()
			redirected, err := s.connect(ctx, l, firstPort, shortConnections)
			if err != nil {
				return "", err
			}
			took := time.Since(began)
			if accelerated := l.Options().Accelerated(); accelerated != (redirected >= shortConnections) {
				return "", fmt.Errorf("%.0f packets were redirected at the worse end", redirected)
			}
			if err := s.count(ctx, h, firstPort, shortConnections); err != nil {
				return "", err
			}
			if err := s.vanish(ctx, l); err != nil {
				return "", err
			}
			return fmt.Sprintf("in %s; at least %.0f packets redirected at either end; conntrack: %s",
				took.Round(time.Millisecond), redirected, h), nil
		},
	}
}

// count fills h, and fails where an entry is missing, still open, or has more time left than its state gives.
func (s *short) count(ctx context.Context, h Histogram, port, n int) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for _, host := range s.hosts {
		var entries []trackedTCP
		err := lab.Await(ctx, "conntrack on "+host.Name+" to see all ends", func(ctx context.Context) (err error) {
			entries, err = tracked(ctx, host, shortPort, port, n)
			if err == nil && len(entries) != n {
				err = fmt.Errorf("%d entries, want %d", len(entries), n)
			}
			for _, e := range entries {
				if err == nil && !e.closed {
					err = fmt.Errorf("port %d is still %s for %s", e.port, e.state, e.left)
				}
			}
			return err
		})
		if err != nil {
			return err
		}
		for _, e := range entries {
			h[host.Name+" "+e.state]++
		}
	}
	return nil
}

// vanish makes connections under timeouts of one second and waits until no entry is left.
func (s *short) vanish(ctx context.Context, l *lab.Lab) (err error) {
	const n = 300
	undo, err := s.closingTimeouts(1)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, undo()) }()
	const port = firstPort + shortConnections
	if _, err := s.connect(ctx, l, port, n); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for _, host := range s.hosts {
		err := lab.Await(ctx, "entries to vanish after their second on "+host.Name, func(ctx context.Context) error {
			entries, err := tracked(ctx, host, shortPort, port, n)
			if err == nil && len(entries) > 0 {
				err = fmt.Errorf("%d are left, such as port %d, %s for %s", len(entries), entries[0].port, entries[0].state,
					entries[0].left)
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// closingTimeouts sets how many seconds the hosts' conntrack keeps connections that have ended.
func (s *short) closingTimeouts(seconds int) (undo func() error, err error) {
	old := map[string]string{}
	for _, state := range []string{"time_wait", "close", "last_ack", "close_wait", "fin_wait"} {
		key := "net/netfilter/nf_conntrack_tcp_timeout_" + state
		for _, h := range s.hosts {
			if old[key], err = h.ReadSysctl(key); err != nil {
				return nil, err
			}
			if err := h.Sysctl(key, strconv.Itoa(seconds)); err != nil {
				return nil, err
			}
		}
	}
	return func() (err error) {
		for key, value := range old {
			for _, h := range s.hosts {
				err = errors.Join(err, h.Sysctl(key, value))
			}
		}
		return err
	}, nil
}
