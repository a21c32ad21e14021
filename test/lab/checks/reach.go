package checks

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/ravencni/raven/test/lab"
)

// pairs are the conversations that every lab of the tutorial must be able to hold. The first is the tutorial's pod
// test, the second its node test.
var pairs = [][2]string{
	{"hangzhou-2/a", "qingdao-2/a"},
	{"hangzhou-2", "qingdao-2"},
	{"qingdao-2/a", "hangzhou-2/a"},
	{"qingdao-2", "hangzhou-2"},
	{"hangzhou-2/b", "qingdao-2"},
	{"qingdao-2", "hangzhou-2/b"},
	{"hangzhou-1/a", "qingdao-1/a"},
	{"qingdao-1/a", "hangzhou-2/a"},
	{"hangzhou-1", "qingdao-1"},
	{"cloud-2/a", "hangzhou-2/a"},
	{"hangzhou-2/a", "cloud-2/a"},
	{"cloud-2", "qingdao-2"},
	{"qingdao-2", "cloud-2"},
	{"cloud-1/a", "qingdao-1/a"},
	{"qingdao-1/a", "cloud-1/a"},
	{"cloud-1", "hangzhou-1"},
	{"hangzhou-1", "cloud-1"},
}

// Reach are the checks that every node and pod reaches every kind of other one, by ICMP, TCP and UDP over both
// families. The Echo must be served (see lab.ServeEcho).
func Reach() []Check {
	var all []Check
	for _, p := range pairs {
		for _, family := range []int{4, 6} {
			all = append(all, Check{
				Name: fmt.Sprintf("reach-%s-%s-ipv%d", strings.ReplaceAll(p[0], "/", "-"),
					strings.ReplaceAll(p[1], "/", "-"), family),
				Says: fmt.Sprintf("%s -> %s, IPv%d: ICMP, TCP, UDP", kind(p[0]), kind(p[1]), family),
				Run: func(ctx context.Context, l *lab.Lab) (string, error) {
					return reach(ctx, l, p[0], p[1], family)
				},
			})
		}
	}
	return all
}

// ReachAll is all of Reach in one, for matrices.
var ReachAll = Check{
	Name:   "reach",
	Says:   "every node and pod reaches every kind of other one by ICMP, TCP and UDP over both families",
	Within: 10 * time.Minute,
	Run: func(ctx context.Context, l *lab.Lab) (string, error) {
		var errs []error
		Run(ctx, "", l, []Group{Reach()}, func(o Outcome) {
			if o.Err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", o.Check.Says, o.Err))
			}
		})
		return fmt.Sprintf("%d pairs, 3 protocols each", len(Reach())), errors.Join(errs...)
	},
}

func kind(name string) string {
	if strings.Contains(name, "/") {
		return "pod " + name
	}
	return "node " + name
}

func reach(ctx context.Context, l *lab.Lab, from, to string, family int) (string, error) {
	a, err := findEnd(l, from)
	if err != nil {
		return "", err
	}
	b, err := findEnd(l, to)
	if err != nil {
		return "", err
	}
	target := b.addr(family)
	ping, err := a.host.Ping(ctx, target, 2)
	if err != nil {
		return "", err
	}
	want := wantTTL(l, a, b)
	for _, ttl := range ping.TTLs {
		if ttl != want {
			err = errors.Join(err, fmt.Errorf("ping printed ttl=%d, want ttl=%d over %s: %s", ttl, want,
				strings.Join(hops(l, a, b), ", "), ping.First))
		}
	}
	if len(ping.TTLs) != 2 {
		err = errors.Join(err, fmt.Errorf("%d of 2 pings were answered: %s", len(ping.TTLs), ping.Output))
	}
	for _, network := range []string{"tcp", "udp"} {
		seen, askErr := a.host.Ask(ctx, network, target)
		err = errors.Join(err, askErr, sameSource(network, seen, a.addr(family), askErr))
	}
	return ping.First, err
}

// sameSource: what crosses regions keeps its source address.
func sameSource(network string, seen, own netip.Addr, failed error) error {
	if failed == nil && seen != own {
		return fmt.Errorf("%s arrived from %s instead of %s", network, seen, own)
	}
	return nil
}
