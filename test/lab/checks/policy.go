package checks

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"time"

	"github.com/ravencni/raven/test/lab"
)

// iptables runs the command of a family with a rule, and returns the command that undoes it.
func iptables(ctx context.Context, h *lab.Host, family int, table, chain string, rule ...string) (
	undo func() error, err error,
) {
	command := "iptables"
	if family == 6 {
		command = "ip6tables"
	}
	_, err = h.Run(ctx, command, append([]string{"-w", "-t", table, "-I", chain}, rule...)...)
	return func() error {
		_, err := h.Run(context.WithoutCancel(ctx), command, append([]string{"-w", "-t", table, "-D", chain}, rule...)...)
		return err
	}, err
}

// PolicyRejectsNewFlows: a rule in FORWARD of either host that rejects what a pod begins (or what is begun towards it)
// blocks just that, by TCP, UDP and ICMP.
var PolicyRejectsNewFlows = Check{
	Name: "policy-reject",
	Says: "an iptables rule in FORWARD blocks new flows of one pod, TCP, UDP and ICMP, and nothing else",
	Run: func(ctx context.Context, l *lab.Lab) (string, error) {
		tried := 0
		for _, family := range []int{4, 6} {
			for _, host := range []string{"hangzhou-2", "qingdao-2"} {
				for _, match := range []string{"-s", "-d"} {
					if err := rejectNew(ctx, l, family, host, match); err != nil {
						return "", fmt.Errorf("rule on %s, IPv%d, %s pod: %w", host, family, match, err)
					}
					tried++
				}
			}
		}
		return fmt.Sprintf("%d rules on the source's and on the destination's host, each both ways", tried), nil
	},
}

func rejectNew(ctx context.Context, l *lab.Lab, family int, host, match string) (err error) {
	marked, err := findEnd(l, "hangzhou-2/b")
	if err != nil {
		return err
	}
	far, err := findEnd(l, "qingdao-2/a")
	if err != nil {
		return err
	}
	other, err := findEnd(l, "hangzhou-2/a")
	if err != nil {
		return err
	}
	// A connection from before the rule goes on.
	from, to := marked, far
	if match == "-d" {
		from, to = far, marked
	}
	old, err := from.host.Dial(ctx, "tcp", netip.Addr{}, netip.AddrPortFrom(to.addr(family), lab.EchoPort))
	if err != nil {
		return err
	}
	defer old.Close()
	if _, _, err := lab.Exchange(ctx, old, "before"); err != nil {
		return err
	}
	undo, err := iptables(ctx, l.Host(host), family, "filter", "FORWARD", match, marked.addr(family).String(),
		"-m", "conntrack", "--ctstate", "NEW", "-j", "REJECT")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, undo()) }()

	if _, _, err := lab.Exchange(ctx, old, "after"); err != nil {
		return fmt.Errorf("an established connection ended with a rule for new ones: %w", err)
	}
	return errors.Join(
		refused(ctx, from, to, family),
		answered(ctx, to, from, family),
		answered(ctx, other, far, family),
	)
}

// refused: each protocol gets the rejection back, at once.
func refused(ctx context.Context, a, b end, family int) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	var err error
	for _, network := range []string{"tcp", "udp"} {
		if _, e := a.host.Ask(ctx, network, b.addr(family)); !errors.Is(e, syscall.ECONNREFUSED) {
			err = errors.Join(err, fmt.Errorf("%s from %s to %s must be refused, got: %v", network, a, b, e))
		}
	}
	ping, e := a.host.Ping(ctx, b.addr(family), 1)
	if e == nil || !strings.Contains(strings.ToLower(ping.Output), "unreachable") {
		err = errors.Join(err, fmt.Errorf("a ping from %s to %s must be refused, got: %s", a, b, ping.Output))
	}
	return err
}

// answered: each protocol passes.
func answered(ctx context.Context, a, b end, family int) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	var err error
	for _, network := range []string{"tcp", "udp"} {
		seen, e := a.host.Ask(ctx, network, b.addr(family))
		err = errors.Join(err, e, sameSource(network, seen, a.addr(family), e))
	}
	_, e := a.host.Ping(ctx, b.addr(family), 1)
	return errors.Join(err, e)
}

// PolicyRevoked: a connection whose conntrack entry is removed after a rule was added ends within five seconds, though
// no packet of it took the stack any more.
var PolicyRevoked = Check{
	Name: "policy-revoke",
	Says: "removing the conntrack entry of a flow after adding a rule cuts it within 5 s",
	Run: func(ctx context.Context, l *lab.Lab) (evidence string, err error) {
		for _, family := range []int{4, 6} {
			took, err := revoke(ctx, l, family)
			if err != nil {
				return "", fmt.Errorf("IPv%d: %w", family, err)
			}
			evidence += fmt.Sprintf("IPv%d cut after %s ", family, took.Round(time.Millisecond))
		}
		return strings.TrimSpace(evidence), nil
	},
}

const revokeWithin = 5 * time.Second

func revoke(ctx context.Context, l *lab.Lab, family int) (took time.Duration, err error) {
	a, err := findEnd(l, "hangzhou-2/b")
	if err != nil {
		return 0, err
	}
	c, err := warm(ctx, l, "hangzhou-2/b", "qingdao-2/a", family)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	for _, match := range []string{"-s", "-d"} {
		undo, err := iptables(ctx, a.host.Node(), family, "filter", "FORWARD", match, a.addr(family).String(),
			"-m", "conntrack", "--ctstate", "NEW", "-j", "REJECT")
		if err != nil {
			return 0, err
		}
		defer func() { err = errors.Join(err, undo()) }()
	}
	if _, _, err := lab.Exchange(ctx, c, "still"); err != nil {
		return 0, fmt.Errorf("the rule for new flows alone ended an established one: %w", err)
	}
	if _, err := a.host.Node().Run(ctx, "conntrack", "-D", "-f", fmt.Sprintf("ipv%d", family), "-s",
		a.addr(family).String(), "-p", "tcp"); err != nil {
		return 0, err
	}
	began := time.Now()
	for time.Since(began) < revokeWithin {
		if err := c.SetDeadline(time.Now().Add(time.Second)); err != nil {
			return 0, fmt.Errorf("limit the wait: %w", err)
		}
		asked := time.Since(began)
		_, _, err := lab.Exchange(ctx, c, "after")
		var timeout net.Error
		if errors.As(err, &timeout) && timeout.Timeout() || errors.Is(err, syscall.ECONNREFUSED) {
			return asked, nil
		}
		if err != nil {
			return 0, err
		}
	}
	return 0, fmt.Errorf("the connection still works %s after its conntrack entry was removed", revokeWithin)
}
