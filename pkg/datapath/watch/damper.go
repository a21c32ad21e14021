package watch

import "time"

// patience is how many signals in a row come at the least interval before it grows: a network manager that restarts
// sends events for a second or so, a fight goes on.
const patience = 32

// calm is how long no event may come for a fight to count as over. It is longer than a pass of the appliers takes, or a
// slow pass would look like peace.
const calm = time.Second

// damper passes the first event at once and further ones at intervals that grow while they do not cease.
type damper struct {
	out           chan struct{}
	least, most   time.Duration
	interval      time.Duration
	last          time.Time // of the last signal
	streak        int
	eventsPending bool
}

func newDamper(least, most time.Duration) *damper {
	return &damper{out: make(chan struct{}, 1), least: least, most: most, interval: least}
}

func (d *damper) event() { d.eventsPending = true }

// flush signals if that is due and returns when to call again; the zero time means not before another event.
func (d *damper) flush(now time.Time) time.Time {
	if !d.eventsPending {
		return time.Time{}
	}
	if next := d.last.Add(d.interval); now.Before(next) {
		return next
	}
	if now.Sub(d.last) > max(calm, 2*d.interval) {
		d.streak, d.interval = 0, d.least
	} else if d.streak++; d.streak > patience {
		d.interval = min(2*d.interval, d.most)
	}
	d.last, d.eventsPending = now, false
	select {
	case d.out <- struct{}{}:
	default: // the last signal is not taken yet and stands for this one too
	}
	return time.Time{}
}

func earliest(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
