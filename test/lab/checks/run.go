package checks

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/ravencni/raven/test/lab"
)

// Outcome is what a check found in one lab.
type Outcome struct {
	Check Check
	// Lab says which lab it was, such as accelerated.
	Lab      string
	Evidence string
	Err      error
	Took     time.Duration
}

// Group is a number of checks that may run at the same time without disturbing one another.
type Group []Check

// together limits how many checks of a group run at the same time, so that a small machine does not make pings late.
const together = 6

// Run runs groups one after another in a lab, the checks of a group side by side, and calls report for each outcome as
// it comes, never twice at once. It returns false where a check failed. A panic in a check is the program's end; an
// ended ctx fails the remaining checks.
func Run(ctx context.Context, name string, l *lab.Lab, groups []Group, report func(Outcome)) bool {
	var mu sync.Mutex
	passed := true
	for _, group := range groups {
		var running sync.WaitGroup
		slots := make(chan struct{}, together)
		for _, c := range group {
			slots <- struct{}{}
			running.Go(func() {
				defer func() { <-slots }()
				o := One(ctx, name, l, c)
				mu.Lock()
				defer mu.Unlock()
				passed = passed && o.Err == nil
				report(o)
			})
		}
		running.Wait()
	}
	return passed
}

// checkTimeout is what a check may take at most that says nothing else; the longest ones run a ten-second throughput test.
const checkTimeout = 100 * time.Second

// One runs a single check.
func One(ctx context.Context, name string, l *lab.Lab, c Check) Outcome {
	began := time.Now()
	within := cmp.Or(c.Within, checkTimeout)
	ctx, cancel := context.WithTimeoutCause(ctx, within, fmt.Errorf("the check took longer than %s", within))
	defer cancel()
	evidence, err := c.Run(ctx, l)
	if err != nil && ctx.Err() != nil {
		err = errors.Join(err, context.Cause(ctx))
	}
	return Outcome{Check: c, Lab: name, Evidence: evidence, Err: err, Took: time.Since(began)}
}
