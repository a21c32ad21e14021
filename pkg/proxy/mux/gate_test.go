package mux

import (
	"io"
	"net/http"
	"testing"

	"github.com/ravencni/raven/bench/gate"
)

// A message of a client's socket, through both sides of a connection to a node's socket, and its answer all the way back. It
// counts what both sides allocate, and what their goroutines do meanwhile.
func TestGateOfAllocations(t *testing.T) {
	const size = 100
	client, _ := pair(t, func(s *Stream) {
		near, far := sockets(t)
		go func() {
			buf := make([]byte, size)
			for {
				if _, err := io.ReadFull(far, buf); err != nil {
					_ = far.Close()
					return
				}
				if _, err := far.Write(buf); err != nil {
					return
				}
			}
		}()
		if s.Respond(Response{Status: http.StatusOK}, false) == nil {
			_ = carry(s, near)
		}
	})
	s := open(t, client, "")
	here, there := sockets(t)
	done := make(chan error, 1)
	go func() { done <- carry(s, there) }()
	buf := make([]byte, size)
	n := testing.AllocsPerRun(200, func() {
		if _, err := here.Write(buf); err != nil {
			t.Error(err)
		}
		if _, err := io.ReadFull(here, buf); err != nil {
			t.Error(err)
		}
	})
	// There are none; under the race detector pools forget what they are given, about once a message.
	gate.Check(t, "allocations of a message and its answer", max(n, 1), 0.1)
	_ = here.CloseWrite()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
