package proxytest

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/ravencni/raven/test/netns"
)

// Within bounds each wait of a test: many times what it takes on a busy machine.
const Within = 30 * time.Second

// Listen listens in a namespace until the test ends. Call it on the thread of netns.Run.
func Listen(t *testing.T, in *netns.Namespace, address string) net.Listener {
	t.Helper()
	var l net.Listener
	in.Do(t, func() {
		var err error
		if l, err = net.Listen("tcp", address); err != nil {
			t.Fatalf("listen on %s: %v", address, err)
		}
	})
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// Dial connects from a namespace, from any goroutine.
func Dial(in *netns.Namespace) func(ctx context.Context, network, address string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		var c net.Conn
		done := in.Go(func() error {
			var err error
			c, err = (&net.Dialer{}).DialContext(ctx, network, address)
			return err
		})
		if err := <-done; err != nil {
			return nil, err
		}
		return c, nil
	}
}

// Await waits until the condition holds, or fails the test.
func Await(t testing.TB, what string, holds func() bool) {
	t.Helper()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	limit := time.After(Within)
	for !holds() {
		select {
		case <-limit:
			t.Fatalf("within %v: no %s", Within, what)
		case <-ticker.C:
		}
	}
}
