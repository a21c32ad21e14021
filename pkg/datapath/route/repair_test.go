package route

import (
	"context"
	"net"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ravencni/raven/pkg/datapath/watch"
	"github.com/ravencni/raven/test/netns"
)

// stream sends a numbered datagram a millisecond and counts those that arrive.
type stream struct {
	sent, arrived atomic.Int64
}

// startStream streams from one namespace to an address in another until the test ends.
func startStream(t *testing.T, from, to *netns.Namespace, address string) *stream {
	t.Helper()
	var receiver net.PacketConn
	var sender net.Conn
	var err error
	to.Do(t, func() { receiver, err = net.ListenPacket("udp", address) })
	if err == nil {
		from.Do(t, func() { sender, err = net.Dial("udp", address) })
	}
	if err != nil {
		t.Fatal(err)
	}
	s := &stream{}
	ctx, cancel := context.WithCancel(t.Context())
	sending, receiving := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(receiving)
		buf := make([]byte, 64)
		for {
			if _, _, err := receiver.ReadFrom(buf); err != nil {
				return // closed below
			}
			s.arrived.Add(1)
		}
	}()
	go func() {
		defer close(sending)
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				// A refusal counts as a loss: the packet was due.
				_, _ = sender.Write([]byte("packet"))
				s.sent.Add(1)
			}
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-sending
		receiver.Close()
		sender.Close()
		<-receiving
	})
	return s
}

// lost is the number of packets that did not arrive once the stream flows again: it waits for some that do.
func (s *stream) lost(t *testing.T) int64 {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	deadline := time.Now().Add(10 * time.Second)
	for before := s.arrived.Load(); s.arrived.Load() < before+20; <-tick.C {
		if time.Now().After(deadline) {
			t.Fatal("the stream does not flow")
		}
	}
	return s.sent.Load() - s.arrived.Load()
}

func TestATrafficStreamSurvivesTheRemovalOfAllRulesAndRoutesOnItsGateway(t *testing.T) {
	netns.Run(t, func(t *testing.T) {
		w := newWorld(t)
		bring(t, w.member, memberPlan())
		bring(t, w.gateway, gatewayPlan())
		bring(t, w.cloud, cloudPlan())
		var watcher *watch.Watcher
		w.gateway.Do(t, func() {
			var err error
			if watcher, err = watch.New(watch.Options{}); err != nil {
				t.Fatal(err)
			}
		})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- watcher.Run(ctx) }()
		defer func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		}()

		s := startStream(t, w.edgePod, w.cloudPod, "10.2.1.9:7")
		before := s.lost(t)
		var losses []int64
		for range 5 {
			w.gateway.Do(t, func() {
				if err := New().Cleanup(t.Context()); err != nil { // every rule and route, at once
					t.Fatal(err)
				}
			})
			select {
			case <-watcher.Routes():
			case <-time.After(5 * time.Second):
				t.Fatal("no signal came")
			}
			bring(t, w.gateway, gatewayPlan())
			after := s.lost(t)
			losses = append(losses, after-before)
			before = after
		}
		slices.Sort(losses)
		t.Logf("of 1,000 packets a second each removal lost %v", losses)
		if median := losses[len(losses)/2]; median > 100 { // single rounds feel the machine's other work
			t.Errorf("the median removal lost %d packets", median)
		}
	})
}
