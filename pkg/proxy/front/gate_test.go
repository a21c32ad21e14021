package front

import (
	"bufio"
	"context"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"testing"

	"github.com/ravencni/raven/bench/gate"
	"github.com/ravencni/raven/pkg/proxy/metrics"
	"github.com/ravencni/raven/pkg/proxy/target"
	"github.com/ravencni/raven/pkg/proxy/tunnel"
)

// nextDoor is the only node: it is reached without a tunnel.
type nextDoor netip.AddrPort

func (d nextDoor) Find(to target.HostPort) (Route, error) {
	return Route{Gateway: "gw-cloud", Node: to.Host.Name, Direct: []netip.AddrPort{netip.AddrPort(d)}}, nil
}
func (d nextDoor) FindAny(_ context.Context, to target.HostPort) (Route, error) { return d.Find(to) }
func (d nextDoor) Allowed(netip.Addr) bool                                      { return true }

// A small HTTP request by the front end and its answer, over connections that are kept. What client and node allocate is in
// it, and little.
func TestGateOfAllocations(t *testing.T) {
	node, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer node.Close()
	go func() {
		c, err := node.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		for in := bufio.NewReader(c); ; {
			for line := []byte("a line"); len(line) > len("\r\n"); {
				if line, err = in.ReadSlice('\n'); err != nil {
					return
				}
			}
			if _, err := io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"); err != nil {
				return
			}
		}
	}()
	log := slog.New(slog.DiscardHandler)
	hub := tunnel.NewHub(tunnel.HubOptions{Metrics: metrics.New(nil), Log: log})
	f := New(Options{Hub: hub, Directory: nextDoor(node.Addr().(*net.TCPAddr).AddrPort()), Metrics: metrics.New(nil), Log: log})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- f.ServeHTTP(l) }()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	in := bufio.NewReader(c)
	n := testing.AllocsPerRun(100, func() {
		if _, err := io.WriteString(c, "GET /small HTTP/1.1\r\nHost: node:8080\r\n\r\n"); err != nil {
			t.Error(err)
		}
		status, err := in.ReadSlice('\n')
		if err != nil || string(status) != "HTTP/1.1 200 OK\r\n" {
			t.Fatalf("%q, %v", status, err)
		}
		for line := status; len(line) > len("\r\n") && err == nil; {
			line, err = in.ReadSlice('\n')
		}
		if _, err := in.Discard(len("ok")); err != nil {
			t.Fatal(err)
		}
	})
	gate.Check(t, "allocations of an HTTP request", n, 0.1)
	_, _ = c.Close(), l.Close() // the front end ends with them
	if err := <-served; err != nil {
		t.Error(err)
	}
	f.Close()
}
