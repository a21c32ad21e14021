package lab

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// pollEvery is how often a condition without an event of its own is looked at.
const pollEvery = 10 * time.Millisecond

// final is an error that waiting cannot cure.
type final struct{ error }

// Final makes Await give up at once with err.
func Final(err error) error { return final{err} }

// Await waits until condition returns nil, ctx ends or condition's error is Final. The error says what was awaited and
// what stood in the way last.
func Await(ctx context.Context, what string, condition func(context.Context) error) error {
	ticker := time.NewTicker(pollEvery)
	defer ticker.Stop()
	var last error
	for {
		err := condition(ctx)
		var f final
		switch {
		case err == nil:
			return nil
		case errors.As(err, &f):
			return fmt.Errorf("wait for %s: %w", what, f.error)
		}
		if last == nil || ctx.Err() == nil {
			last = err // once ctx has ended, the condition fails for that reason only
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w; last: %w", what, context.Cause(ctx), last)
		case <-ticker.C:
		}
	}
}
