package checks

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/ravencni/raven/test/lab"
)

// reachAll lets pairs converse, both families, side by side.
func reachAll(ctx context.Context, l *lab.Lab, pairs [][2]string) (reached int, err error) {
	var all sync.WaitGroup
	slots := make(chan struct{}, together)
	var mu sync.Mutex
	for _, p := range pairs {
		for _, family := range []int{4, 6} {
			slots <- struct{}{}
			all.Go(func() {
				defer func() { <-slots }()
				_, e := reach(ctx, l, p[0], p[1], family)
				mu.Lock()
				defer mu.Unlock()
				if e != nil {
					err = errors.Join(err, fmt.Errorf("%s -> %s, IPv%d: %w", p[0], p[1], family, e))
				}
				reached++
			})
		}
	}
	all.Wait()
	return reached, err
}

// silent: no protocol gets an answer.
func silent(ctx context.Context, a, b end, family int) error {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	var all sync.WaitGroup
	errs := make([]error, 3)
	for i, network := range []string{"tcp", "udp"} {
		all.Go(func() {
			if _, err := a.host.Ask(ctx, network, b.addr(family)); err == nil {
				errs[i] = fmt.Errorf("%s from %s to %s, IPv%d, was answered past the host's firewall", network, a, b, family)
			}
		})
	}
	all.Go(func() {
		if _, err := a.host.Ping(ctx, b.addr(family), 1, "-W", "1"); err == nil {
			errs[2] = fmt.Errorf("a ping from %s to %s, IPv%d, was answered past the host's firewall", a, b, family)
		}
	})
	all.Wait()
	return errors.Join(errs...)
}
