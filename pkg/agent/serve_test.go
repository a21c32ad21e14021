package agent

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestAPortThatIsTakenIsServedOnceItIsFree(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := taken.Addr().String()
	var log logLines
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		Serve(ctx, "test", address, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "hello")
		}), slog.New(slog.NewTextHandler(&log, nil)))
	}()
	awaitTrue(t, "a word about the taken port", func() bool { return strings.Contains(log.take(), "address already in use") })
	if err := taken.Close(); err != nil {
		t.Fatal(err)
	}
	awaitTrue(t, "the page", func() bool {
		resp, err := http.Get("http://" + address)
		if err != nil {
			return false
		}
		body, err := io.ReadAll(resp.Body)
		return err == nil && resp.Body.Close() == nil && string(body) == "hello"
	})
	stop()
	<-ended
	if conn, err := net.Dial("tcp", address); err == nil {
		t.Errorf("the page is still served, %v", conn.Close())
	}
}

func TestAnAddressOfZeroServesNothing(t *testing.T) {
	for _, address := range []string{"", "0"} {
		Serve(t.Context(), "test", address, nil, nil) // returns at once
	}
}

// awaitTrue waits until ok, for at most fifteen seconds.
func awaitTrue(t *testing.T, what string, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("never saw %s", what)
		}
	}
}
