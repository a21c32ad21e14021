package vici

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// serve is a fake charon that answers one connection by the given function.
func serve(t *testing.T, answer func(*Conn)) *Conn {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		answer(&Conn{c: c})
	})
	c, err := Dial(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Close()
		l.Close()
		wg.Wait()
	})
	return c
}

func reply(t *testing.T, c *Conn, kind byte, name string, m *Message) {
	b, err := m.Encode()
	if err != nil {
		t.Error(err)
	}
	if name != "" {
		head, err := appendName(nil, name)
		if err != nil {
			t.Error(err)
		}
		b = append(head, b...)
	}
	n := len(b) + 1
	if _, err := c.c.Write(append([]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n), kind}, b...)); err != nil {
		t.Error(err)
	}
}

func TestEventsComeBeforeTheAnswer(t *testing.T) {
	c := serve(t, func(c *Conn) {
		for _, want := range []byte{eventRegister, cmdRequest, eventUnregister} {
			kind, _, err := c.packet()
			if err != nil || kind != want {
				t.Errorf("received packet %d (%v), want %d", kind, err, want)
			}
			if kind != cmdRequest {
				reply(t, c, eventConfirm, "", nil)
				continue
			}
			reply(t, c, event, "list-sa", new(Message).Set("n", "1"))
			reply(t, c, event, "list-sa", new(Message).Set("n", "2"))
			reply(t, c, cmdResponse, "", new(Message).Set("success", "yes"))
		}
	})
	var got string
	answer, err := c.Stream(t.Context(), "list-sas", "list-sa", nil, func(m *Message) { got += m.Get("n") })
	if err != nil || got != "12" || answer.Get("success") != "yes" {
		t.Errorf("events %q, answer %v, error %v", got, answer, err)
	}
}

func TestARefusalIsAnErrorOfItsOwnAndTheConnectionStays(t *testing.T) {
	c := serve(t, func(c *Conn) {
		for range 2 {
			if _, _, err := c.packet(); err != nil {
				t.Error(err)
			}
			reply(t, c, cmdResponse, "", new(Message).Set("success", "no").Set("errmsg", "no such thing"))
		}
	})
	for range 2 {
		_, err := c.Call(t.Context(), "terminate", new(Message).Set("ike", "x"))
		var refused *CommandError
		if !errors.As(err, &refused) || refused.Message != "no such thing" {
			t.Errorf("the error is %v", err)
		}
	}
}

func TestACallEndsWithItsContextAndTheConnectionIsSpent(t *testing.T) {
	c := serve(t, func(c *Conn) {
		for { // never answers
			if _, _, err := c.packet(); err != nil {
				return
			}
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := c.Call(ctx, "version", nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the error is %v", err)
	}
	if _, err := c.Call(t.Context(), "version", nil); err == nil {
		t.Error("a connection that is out of step was used again")
	}
}
