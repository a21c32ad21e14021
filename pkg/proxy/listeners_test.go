package proxy

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ravencni/raven/pkg/controller/services"
	"github.com/ravencni/raven/pkg/proxy/proxytest"
)

// failsOnce accepts nothing: it fails as a process does that has no file descriptors left.
type failsOnce struct{ net.Listener }

func (failsOnce) Accept() (net.Conn, error) { return nil, syscall.EMFILE }

// hostListens runs the cloud's proxy on the loopback device, on ports that are free, until the test ends. listen makes
// of each listener what the proxy gets.
func hostListens(t *testing.T, listen func(asked string, l net.Listener) net.Listener) *Proxy {
	p := New(Options{
		Node: "cloud-1", Identity: proxytest.NewAuthority(t).Proxy(t, "cloud-1"), Log: slog.New(slog.DiscardHandler),
		Targets: func() services.Targets { return nil }, Drain: 1, Retry: 10 * time.Millisecond,
		Listen: func(ctx context.Context, asked string) (net.Listener, error) {
			l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
			if err != nil {
				return nil, err
			}
			return listen(asked, l), nil
		},
	})
	ctx, cancel := context.WithCancel(context.Background())
	var group sync.WaitGroup
	group.Go(func() { p.Run(ctx) })
	t.Cleanup(func() { cancel(); group.Wait() })
	return p
}

func TestAFrontEndThatCannotAcceptIsOpenedAgain(t *testing.T) {
	opened := make(chan net.Listener, 100)
	var mu sync.Mutex
	times := map[string]int{}
	p := hostListens(t, func(asked string, l net.Listener) net.Listener {
		mu.Lock()
		defer mu.Unlock()
		times[asked]++
		if times[asked] == 1 {
			return failsOnce{l}
		}
		if asked == "10.0.0.1:10264" {
			opened <- l
		}
		return l
	})
	p.Set(cluster(true))
	l := <-opened
	// It serves: a stranger is refused, which takes a connection that is accepted.
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("127.0.0.1 is none of the allowed sources, and was answered")
	}
	mu.Lock()
	defer mu.Unlock()
	if times["10.0.0.1:10264"] != 2 {
		t.Errorf("opened %v times", times)
	}
}

func TestANodeWithoutAnAddressWaitsForOne(t *testing.T) {
	opened := make(chan string, 100)
	p := hostListens(t, func(asked string, l net.Listener) net.Listener {
		opened <- asked
		return l
	})
	without := cluster(true)
	for _, n := range without.Nodes {
		n.Status.Addresses = nil
	}
	p.Set(without)
	proxytest.Await(t, "the role", func() bool { return p.now.Load().Front })
	select {
	case asked := <-opened:
		t.Errorf("listens on %s", asked)
	default:
	}
	p.Set(cluster(true))
	<-opened
}
