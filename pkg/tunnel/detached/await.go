package detached

import (
	"context"
	"time"
)

// pollEvery is the pause between two looks at a process, of whose doings nothing tells.
const pollEvery = 5 * time.Millisecond

// Await polls until done, for at most the given time.
func Await(ctx context.Context, most time.Duration, done func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for !done() {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
	return nil
}
