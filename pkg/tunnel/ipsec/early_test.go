package ipsec

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ravencni/raven/pkg/tunnel/ipsec/vici"
)

// earlyTo returns an early that charon tells, and what it has handed over so far.
func earlyTo() (e *early, came func() string) {
	var got []string
	e = newEarly(func(packet []byte) { got = append(got, string(packet)) })
	e.tells(true)
	return e, func() string { return strings.Join(got, " ") }
}

func TestWhatComesEarlyWaitsForItsAssociationAndKeepsItsOrder(t *testing.T) {
	e, came := earlyTo()
	buffer := []byte("1a") // the caller uses it again
	e.take(1, buffer)
	copy(buffer, "1b")
	e.take(1, buffer)
	e.take(2, []byte("2a"))
	e.take(0, []byte("ike"))
	if got := came(); got != "ike" {
		t.Errorf("handed over too early: %s", got)
	}
	e.arrived(1)
	e.take(1, []byte("1c"))
	if got := came(); got != "ike 1a 1b 1c" {
		t.Errorf("handed over: %s", got)
	}
	if e.bytes != 2 {
		t.Errorf("%d bytes are held, want those of 2a", e.bytes)
	}
}

func TestWhatNobodyTellsOfWaitsForAMomentOnce(t *testing.T) {
	e, came := earlyTo()
	e.take(7, []byte("a"))
	if next := e.expire(time.Now()); next <= 0 || next > earlyLimit || came() != "" {
		t.Errorf("the next is due in %v, and handed over is %q", next, came())
	}
	if next := e.expire(time.Now().Add(earlyLimit)); next != 0 {
		t.Errorf("something is due in %v", next)
	}
	e.take(7, []byte("b"))
	if got := came(); got != "a b" {
		t.Errorf("handed over: %s", got)
	}
}

func TestStrangersFillNoMemory(t *testing.T) {
	e, came := earlyTo()
	for number := range uint32(3 * earlyAssociations) {
		e.take(number+1, []byte("x"))
	}
	if len(e.held) != earlyAssociations || strings.Count(came(), "x") != 2*earlyAssociations {
		t.Errorf("%d associations are held, %d packets handed over", len(e.held), strings.Count(came(), "x"))
	}
	e.expire(time.Now().Add(earlyLimit))
	for range earlyBytes/1000 + 10 {
		e.take(1<<20, make([]byte, 1000))
	}
	if e.bytes > earlyBytes {
		t.Errorf("%d bytes are held", e.bytes)
	}
	for number := range uint32(2 * passedMost) {
		e.pass(number)
	}
	if len(e.passed) > passedMost {
		t.Errorf("%d numbers are remembered", len(e.passed))
	}
}

func TestNothingWaitsWhereCharonTellsNothing(t *testing.T) {
	e, came := earlyTo()
	e.take(1, []byte("a"))
	e.tells(false)
	e.take(2, []byte("b"))
	if got := came(); got != "a b" {
		t.Errorf("handed over: %s", got)
	}
}

func TestEventsNameTheNumbersByWhichPeersSend(t *testing.T) {
	child := func(spi string) *vici.Message { return new(vici.Message).Set("spi-in", spi).Set("spi-out", "00000001") }
	of := func(child *vici.Message) *vici.Message {
		return new(vici.Message).SetSection("west", new(vici.Message).SetSection("child-sas", new(vici.Message).SetSection("net-1", child)))
	}
	e, _ := earlyTo()
	has := func(want ...uint32) {
		t.Helper()
		var got []uint32
		for n := range e.has {
			got = append(got, n)
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("charon has %x, want %x", got, want)
		}
	}
	readEvent(childUpDown, of(child("c0ffee00")).Set("up", "yes"), e)
	has(0xc0ffee00)
	readEvent(childRekey, of(new(vici.Message).SetSection("old", child("c0ffee00")).SetSection("new", child("c0ffee01"))), e)
	has(0xc0ffee01)
	if !e.passed[0xc0ffee00] {
		t.Error("what is under way by the old keys waits")
	}
	readEvent(childUpDown, of(child("c0ffee01")), e)
	has()
}
