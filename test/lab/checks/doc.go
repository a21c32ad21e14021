// Package checks holds what a lab must show: each check is a named function that looks at real packets and kernel
// state and returns its evidence.
package checks

import (
	"context"
	"time"

	"github.com/ravencni/raven/test/lab"
)

// Check is one thing that must hold in a running lab.
type Check struct {
	// Name is short, in lower case with dashes.
	Name string
	// Says is the claim, as a sentence without a full stop.
	Says string
	// Flags are those that the agents must have besides the lab's; none: the check holds with agents of any.
	Flags []string
	// Within is the most that the check may take; zero means 20 s.
	Within time.Duration
	// Run returns the evidence in one line, or why the claim is false. It leaves the lab as it found it.
	Run func(ctx context.Context, l *lab.Lab) (evidence string, err error)
}
