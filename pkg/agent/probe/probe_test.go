package probe

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"time"
)

func TestAnswersGiveARoundTripAndTheirLackALoss(t *testing.T) {
	targets := map[string]netip.Addr{"b1": netip.MustParseAddr("10.0.1.1"), "c1": netip.MustParseAddr("10.0.2.1")}
	p := New(func() map[string]netip.Addr { return targets })
	lost := false
	p.ping = func(_ context.Context, to netip.Addr) (time.Duration, error) {
		if lost && to == targets["c1"] {
			return 0, errors.New("no answer")
		}
		return 5 * time.Millisecond, nil
	}
	for i := range 30 {
		lost = i >= 25
		p.round(t.Context())
	}
	got := p.Quality()
	if got["b1"] != (Quality{RTT: 0.005}) {
		t.Errorf("b1 is %+v", got["b1"])
	}
	if got["c1"] != (Quality{RTT: 0.005, Loss: 0.25}) { // 5 of the last 20
		t.Errorf("c1 is %+v", got["c1"])
	}
	targets = map[string]netip.Addr{"b1": targets["b1"]}
	p.round(t.Context())
	if got := p.Quality(); len(got) != 1 {
		t.Errorf("a peer that is gone is still told: %v", got)
	}
}

func TestNobodyLookingMeansNoProbe(t *testing.T) {
	rounds := make(chan struct{}, 10)
	p := New(func() map[string]netip.Addr { rounds <- struct{}{}; return nil })
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); p.Run(ctx) }()
	p.Quality()
	p.Quality() // at once again: no second round
	<-rounds
	cancel()
	<-ended
	if n := len(rounds); n != 0 {
		t.Errorf("%d rounds more than one", n)
	}
}
