package filter

import "time"

// Limits of the damping: how long a chain is left alone after its rules were put back to the head.
const (
	firstPause   = time.Second
	longestPause = 10 * time.Minute
)

// damper ends a fight with another program that also wants the head of a chain. The first displacement is repaired at
// once; each further one waits twice as long, until there was peace for as long as the longest pause.
type damper struct {
	now   func() time.Time
	last  map[string]time.Time
	pause map[string]time.Duration
}

func newDamper(now func() time.Time) *damper {
	return &damper{now: now, last: map[string]time.Time{}, pause: map[string]time.Duration{}}
}

// allow says whether the chain may be repaired now, and if so counts it as repaired.
func (d *damper) allow(chain string) bool {
	now := d.now()
	last, seen := d.last[chain]
	switch since := now.Sub(last); {
	case !seen || since > longestPause+d.pause[chain]:
		d.pause[chain] = firstPause
	case since < d.pause[chain]:
		return false
	default:
		d.pause[chain] = min(2*d.pause[chain], longestPause)
	}
	d.last[chain] = now
	return true
}
