package ipsec

import (
	"bytes"
	"encoding/binary"
	"sync"
	"time"
)

const (
	// earlyLimit is how long a packet may wait for charon to have the association that it came by. Half a second is more than
	// charon takes on a busy machine, and little for what would be lost.
	earlyLimit = 500 * time.Millisecond
	// earlyAssociations and earlyBytes bound what strangers can make this hold; what is beyond goes to charon at once.
	earlyAssociations = 64
	earlyBytes        = 4 << 20
	// passedMost bounds the memory of those that charon never told of.
	passedMost = 1024
)

// early holds ESP packets by associations that charon does not have yet. The end that answers a new association sends by
// it at once, and charon, which has each message handled by a thread of its own, drops what it decrypts too early: each
// change of a peer's prefixes cost a few packets.
type early struct {
	deliver func(packet []byte)

	mu sync.RWMutex
	// has are the numbers (SPI) of associations that charon has told of; off: it tells no more, and nothing is held.
	has map[uint32]bool
	off bool
	// passed are those that charon was given although it had not told of them, and those whose time is over.
	passed map[uint32]bool
	held   map[uint32]*heldPackets
	bytes  int
	// changed wakes who waits for the next deadline.
	changed chan struct{}
}

type heldPackets struct {
	since   time.Time
	packets [][]byte
}

// newEarly holds nothing until tells is called.
func newEarly(deliver func([]byte)) *early {
	return &early{
		deliver: deliver, off: true, has: map[uint32]bool{}, passed: map[uint32]bool{}, held: map[uint32]*heldPackets{},
		changed: make(chan struct{}, 1),
	}
}

// tells says whether charon tells of each association that it gets.
func (e *early) tells(yes bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.off = !yes
	if e.off {
		for number := range e.held {
			e.release(number)
		}
	}
}

// associationOf is the number of the association that a datagram to a peer's port came by; 0 for IKE and what keeps a NAT's
// mapping open (RFC 3948, section 2).
func associationOf(datagram []byte) uint32 {
	if len(datagram) < 4 {
		return 0
	}
	return binary.BigEndian.Uint32(datagram)
}

// take hands packet to charon, now or, where it comes by an association that charon does not have, later.
func (e *early) take(number uint32, packet []byte) {
	if number == 0 {
		e.deliver(packet)
		return
	}
	e.mu.RLock()
	at := e.off || e.has[number] || e.passed[number]
	e.mu.RUnlock()
	if at {
		e.deliver(packet)
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.off || e.has[number] || e.passed[number] {
		e.deliver(packet) // behind those that were held
		return
	}
	h := e.held[number]
	if h == nil {
		if len(e.held) >= earlyAssociations {
			e.deliver(packet)
			return
		}
		h = &heldPackets{since: time.Now()}
		e.held[number] = h
		select {
		case e.changed <- struct{}{}:
		default:
		}
	}
	if e.bytes+len(packet) > earlyBytes {
		e.deliver(packet)
		return
	}
	h.packets, e.bytes = append(h.packets, bytes.Clone(packet)), e.bytes+len(packet)
}

// arrived says that charon has the association now.
func (e *early) arrived(number uint32) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.has[number] = true
	e.release(number)
}

// superseded says that another one has taken the association's place. What is under way still comes by it, and nobody tells
// of its end.
func (e *early) superseded(number uint32) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.has, number)
	e.pass(number)
}

// left says that charon has let the association go.
func (e *early) left(number uint32) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.has, number)
}

// release hands over what was held. e.mu is held, so that nothing overtakes it.
func (e *early) release(number uint32) {
	h := e.held[number]
	if h == nil {
		return
	}
	delete(e.held, number)
	for _, p := range h.packets {
		e.bytes -= len(p)
		e.deliver(p)
	}
}

// watch hands over what has been held for too long, until done is closed.
func (e *early) watch(done <-chan struct{}) {
	timer := time.NewTimer(earlyLimit)
	defer timer.Stop()
	for {
		select {
		case <-done:
			return
		case <-e.changed:
		case <-timer.C:
		}
		if next := e.expire(time.Now()); next > 0 {
			timer.Reset(next)
		}
	}
}

// expire gives charon what has waited for long enough, and returns when the next is due; 0: nothing is held.
func (e *early) expire(now time.Time) (next time.Duration) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for number, h := range e.held {
		left := earlyLimit - now.Sub(h.since)
		if left > 0 {
			if next == 0 || left < next {
				next = left
			}
			continue
		}
		e.pass(number)
		e.release(number)
	}
	return next
}

// pass has nothing that comes by the association wait any more. e.mu is held.
func (e *early) pass(number uint32) {
	if len(e.passed) >= passedMost {
		clear(e.passed)
	}
	e.passed[number] = true
}
