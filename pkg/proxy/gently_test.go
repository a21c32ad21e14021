package proxy

import (
	"io"
	"log/slog"
	"net"
	"testing"
	"time"
)

func TestAListenerIsClosedOnlyOnceItsClientsAreAccepted(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	const clients = 3
	waiting := make([]net.Conn, clients)
	for i := range waiting {
		if waiting[i], err = net.Dial("tcp", l.Addr().String()); err != nil { // by the kernel alone
			t.Fatal(err)
		}
		defer waiting[i].Close()
	}
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		closeGently([]net.Listener{l}, slog.New(slog.DiscardHandler))
	}()
	// Whoever serves the listener is busy for longer than handshakes take.
	busy := time.NewTimer(2 * settling)
	defer busy.Stop()
	select {
	case <-closed:
		t.Fatal("it was closed while clients waited")
	case <-busy.C:
	}
	for range waiting {
		c, err := l.Accept()
		if err != nil {
			t.Fatalf("a client was not to be had any more: %v", err)
		}
		if _, err := io.WriteString(c, "hello"); err != nil {
			t.Error(err)
		}
		_ = c.Close()
	}
	<-closed
	for _, c := range waiting {
		if got, err := io.ReadAll(c); err != nil || string(got) != "hello" {
			t.Errorf("a client was answered %q, %v", got, err)
		}
	}
	if c, err := net.Dial("tcp", l.Addr().String()); err == nil {
		t.Error("a client came in after the end")
		_ = c.Close()
	}
}
