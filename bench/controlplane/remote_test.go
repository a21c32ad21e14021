package controlplane

import (
	"context"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"

	"github.com/ravencni/raven/pkg/agent/source"
	"github.com/ravencni/raven/test/cluster"
)

// remote is what the agent of a node in a region that nothing happens to hears of the cluster: its real source with its
// own rights, behind a connection that counts.
type remote struct {
	source   *source.Kube
	received atomic.Int64 // bytes from the API server, encrypted as they are
}

// startRemote connects the agent of a node and waits until it knows the cluster.
func startRemote(t *testing.T, server *cluster.Cluster, node string) *remote {
	t.Helper()
	config, err := server.PodUser(t.Context(), "kube-system", cluster.AgentAccount, node)
	if err != nil {
		t.Fatal(err)
	}
	at, err := url.Parse(config.Host)
	if err != nil {
		t.Fatal(err)
	}
	r := &remote{}
	config.Host = "https://" + r.count(t, at.Host)
	content, err := cluster.Kubeconfig(config)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "agent.kubeconfig")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	clients, err := source.NewClients(path, "v0.0.0-bench")
	if err != nil {
		t.Fatal(err)
	}
	r.source = source.NewKube(clients, source.Settings{}, nil)
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.source.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	await(t, time.Minute, "an agent that knows the cluster", func(context.Context) bool {
		in := r.source.Input()
		return in.Synced && len(in.State.Nodes) == gateways*nodesEach
	})
	return r
}

// count listens on the loopback address and passes connections on, counting what comes back.
func (r *remote) count(t *testing.T, to string) (address string) {
	t.Helper()
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	var mu sync.Mutex
	var open []net.Conn
	serving.Go(func() {
		for {
			from, err := listener.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open = append(open, from)
			mu.Unlock()
			serving.Go(func() { r.pass(from, to) })
		}
	})
	t.Cleanup(func() {
		if err := listener.Close(); err != nil {
			t.Error(err)
		}
		// The agent, which has ended, would keep its connections for a while.
		mu.Lock()
		for _, c := range open {
			_ = c.Close() // it may have ended by itself
		}
		mu.Unlock()
		serving.Wait()
	})
	return listener.Addr().String()
}

func (r *remote) pass(from net.Conn, to string) {
	server, err := net.Dial("tcp4", to)
	if err != nil {
		_ = from.Close()
		return
	}
	var back sync.WaitGroup
	back.Go(func() {
		// How a connection ends is the business of its two ends.
		_, _ = io.Copy(io.MultiWriter(from, r), server)
		_ = from.Close()
	})
	_, _ = io.Copy(server, from)
	_ = server.Close()
	back.Wait()
}

// Write counts.
func (r *remote) Write(p []byte) (int, error) {
	r.received.Add(int64(len(p)))
	return len(p), nil
}

// awaitChanges waits until the agent knows of every change: as many Gateways say that nobody is elected.
func (r *remote) awaitChanges(t *testing.T, want int) {
	t.Helper()
	await(t, time.Minute, "an agent that knows of every change", func(context.Context) bool {
		known := 0
		for _, gw := range r.source.Input().State.Gateways {
			if meta.IsStatusConditionFalse(gw.Status.Conditions, "TunnelElected") {
				known++
			}
		}
		return known == want
	})
}

// settled waits until nothing more has come for some seconds, and returns how much came in all.
func (r *remote) settled(t *testing.T) int64 {
	t.Helper()
	last, since := r.received.Load(), time.Now()
	await(t, time.Minute, "a quiet agent", func(context.Context) bool {
		if now := r.received.Load(); now > last+1024 { // a bookmark now and then does not count
			last, since = now, time.Now()
		}
		return time.Since(since) > 4*time.Second
	})
	return r.received.Load()
}
