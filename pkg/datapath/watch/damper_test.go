package watch

import (
	"testing"
	"time"
)

func testDamper() *damper {
	return newDamper(25*time.Millisecond, 2*time.Second)
}

func taken(d *damper) bool {
	select {
	case <-d.out:
		return true
	default:
		return false
	}
}

func TestTheFirstEventSignalsAtOnceAndTheNextAfterTheInterval(t *testing.T) {
	d, now := testDamper(), time.Unix(1000, 0)
	if due := d.flush(now); !due.IsZero() || taken(d) {
		t.Error("a signal without an event")
	}
	d.event()
	if due := d.flush(now); !due.IsZero() || !taken(d) {
		t.Error("the first event did not signal at once")
	}
	d.event()
	d.event()
	if due := d.flush(now.Add(time.Millisecond)); !due.Equal(now.Add(25*time.Millisecond)) || taken(d) {
		t.Errorf("the second signal is due at %v", due)
	}
	if d.flush(now.Add(25 * time.Millisecond)); !taken(d) {
		t.Error("the second signal did not come when due")
	}
	if d.flush(now.Add(time.Second)); taken(d) {
		t.Error("two events that merged signalled twice")
	}
}

func TestTheIntervalGrowsInAFightAndComesBackInQuiet(t *testing.T) {
	d, now := testDamper(), time.Unix(1000, 0)
	signals := 0
	for began := now; now.Before(began.Add(time.Minute)); now = now.Add(time.Millisecond) {
		d.event()
		d.flush(now)
		if taken(d) {
			signals++
		}
	}
	// 33 at 25 ms, 7 while it doubles to 2 s, then one each 2 s.
	if signals < 60 || signals > 75 {
		t.Errorf("%d signals in a minute of events", signals)
	}
	now = now.Add(time.Minute)
	for i := range patience {
		d.event()
		if d.flush(now); !taken(d) {
			t.Fatalf("after quiet, signal %d did not come after 25 ms", i)
		}
		now = now.Add(25 * time.Millisecond)
	}
}

func TestAFightInWhichEachRoundIsSlowIsDampedToo(t *testing.T) {
	d, now := testDamper(), time.Unix(1000, 0)
	signals := 0
	for began := now; now.Before(began.Add(time.Minute)); {
		d.event()
		if due := d.flush(now); !due.IsZero() {
			now = due
			continue
		}
		if taken(d) {
			signals++
		}
		now = now.Add(200 * time.Millisecond) // the pass, and the other's answer
	}
	if signals > 80 {
		t.Errorf("%d signals in a minute; undamped it would be 300", signals)
	}
}

func TestASignalThatNobodyTookStandsForLaterOnes(t *testing.T) {
	d, now := testDamper(), time.Unix(1000, 0)
	for range 3 {
		d.event()
		d.flush(now)
		now = now.Add(time.Second)
	}
	if !taken(d) || taken(d) {
		t.Error("want exactly one signal")
	}
}
