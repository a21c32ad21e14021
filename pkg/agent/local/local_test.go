package local

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/ravencni/raven/pkg/agent/view"
	"github.com/ravencni/raven/pkg/topology"
	"github.com/ravencni/raven/pkg/tunnel"
)

func seen(context.Context) *view.View {
	return &view.View{
		Synced: true,
		Plan: &topology.Plan{
			Node: "a1", Region: "gw-a", Role: topology.RoleGateway,
			Tunnel:   &topology.Tunnel{MTU: 1400, Peers: []topology.Peer{{Node: "b1", Region: "gw-b", Relays: []string{"gw-c"}}}},
			Prefixes: []topology.Prefix{{Prefix: netip.MustParsePrefix("10.2.1.0/24"), Scope: topology.ScopeRemote, NextHop: "region/gw-b"}},
			Overlay:  &topology.Overlay{MAC: net.HardwareAddr{0xaa, 0x0f, 1, 2, 3, 4}},
		},
		Peers:    []tunnel.PeerStatus{{Node: "b1", State: tunnel.StateUp, LastHandshake: time.Now().Add(-time.Minute), RxBytes: 7}},
		Problems: []topology.Problem{{Object: "Node/x", Reason: "MalformedCIDR", Message: "m"}},
	}
}

// serve runs Serve at path until the test's end.
func serve(t *testing.T, path string) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- Serve(ctx, path, Sources{Settings: Settings{Node: "a1"}, View: seen}) }()
	deadline := time.Now().Add(10 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for _, err := Ask(t.Context(), path); err != nil; _, err = Ask(t.Context(), path) {
		if time.Now().After(deadline) {
			t.Fatalf("nobody answers: %v", err)
		}
		<-tick.C
	}
	return func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("serving ended with %v", err)
		}
	}
}

func TestTheReportComesThroughTheSocketWhole(t *testing.T) {
	path := filepath.Join(t.TempDir(), SocketName)
	if err := os.WriteFile(path, nil, 0o644); err != nil { // what a killed agent left behind
		t.Fatal(err)
	}
	stop := serve(t, path)
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the socket's rights are %v, %v", info.Mode(), err)
	}
	r, err := Ask(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	if r.Node != "a1" || r.Region != "gw-a" || r.Role != topology.RoleGateway || !r.Synced {
		t.Errorf("the node is told as %+v", r)
	}
	if len(r.Peers) != 1 || r.Peers[0].Region != "gw-b" || r.Peers[0].MTU != 1400 || r.Peers[0].Relays[0] != "gw-c" {
		t.Fatalf("the peers are told as %+v", r.Peers)
	}
	if age := r.Peers[0].HandshakeAge; age == nil || *age < 59 || *age > 120 {
		t.Errorf("the handshake's age is %v", age)
	}
	if r.Plan.Overlay.MAC.String() != "aa:0f:01:02:03:04" || r.Plan.Prefixes[0].Prefix.String() != "10.2.1.0/24" {
		t.Errorf("the plan is told as %+v", r.Plan)
	}
	if len(r.Problems) != 1 || r.Problems[0].Reason != "MalformedCIDR" {
		t.Errorf("the problems are told as %+v", r.Problems)
	}
	stop()
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket outlived the server: %v", err)
	}
	if _, err := Ask(t.Context(), path); !errors.Is(err, ErrNoAgent) {
		t.Errorf("a socket that is gone gives %v", err)
	}
}
