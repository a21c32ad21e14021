package wireguard

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/ravencni/raven/pkg/topology"

	"github.com/ravencni/raven/pkg/tunnel/detached"
)

func TestANextKeyIsMadeOnceForARequestAndTakenOnce(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	ctx := context.Background()
	open := func() *Driver {
		d, err := New(Options{StateDir: dir})
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	next := func(request string) string {
		t.Helper()
		key, err := open().NextKey(ctx, request) // each time after a restart
		if err != nil {
			t.Fatal(err)
		}
		return key
	}
	present := func() string {
		t.Helper()
		key, err := open().PublicKey(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return key
	}
	old := present()
	first := next("one")
	if first == "" || first == old || next("one") != first || present() != old {
		t.Errorf("present %s, next %s, then %s", old, first, next("one"))
	}
	if info, err := os.Stat(filepath.Join(dir, nextKeyFile)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the next key's file is %v, %v", info, err)
	}
	second := next("two") // another request before the switch
	if second == first {
		t.Error("a new request has the key of the old one")
	}
	if err := open().SwitchKey(ctx); err != nil {
		t.Fatal(err)
	}
	if got := present(); got != second || next("two") != "" {
		t.Errorf("after the switch the key is %s, want %s; the request is answered with %q", got, second, next("two"))
	}
	if err := open().SwitchKey(ctx); err != nil || present() != second {
		t.Errorf("a second switch: %v", err)
	}
	if third := next("three"); third == "" || third == second {
		t.Errorf("the next request gets %q", third)
	}
	if err := os.WriteFile(filepath.Join(dir, nextKeyFile), []byte("damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := open().SwitchKey(ctx); err == nil || errors.Is(err, fs.ErrNotExist) || present() != second {
		t.Errorf("a damaged next key is taken: %v", err)
	}
}

// rotate changes a host's key: the others learn it by their plans first.
func (h *host) rotate(request string, tellPeers func(key string), own *topology.Plan) {
	h.t.Helper()
	var key string
	h.do(func() (err error) {
		key, err = h.NextKey(context.Background(), request)
		return err
	})
	tellPeers(key)
	h.do(func() error { return h.SwitchKey(context.Background()) })
	h.apply(own, -1)
	h.apply(own, 0)
}

func TestAChangedKeyCostsTheOtherPeersNoPacketAndItsOwnAMoment(t *testing.T) {
	s := newStar(t)
	s.edge2.echo("10.2.0.1:7")
	s.edge1.echo("10.1.0.1:7")
	s.hub.awaitEcho("10.0.0.1", "10.2.0.1:7", waitLong)
	s.hub.awaitEcho("10.0.0.1", "10.1.0.1:7", waitLong)
	before := s.hub.status()["edge2"].LastHandshake
	arrived := s.edge2.sink("10.2.0.1:9")
	stop := s.hub.stream("10.0.0.1:1001", "10.2.0.1:9", arrived.Load)

	// An edge behind a NAT: it dials the hub by its new key at once, although it has nothing to send.
	planHub := func(key string) *topology.Plan {
		return plan("hub", "192.0.2.1", peerAt("edge1", key, "", 0, "10.1.0.0/24"), peerAt("edge2", s.edge2.key(), "", 0, "10.2.0.0/24"))
	}
	s.edge1.rotate("one", func(key string) { s.hub.apply(planHub(key), -1) }, s.plan1)
	began := time.Now()
	s.hub.awaitHandshake("edge1")
	shaken := time.Since(began)
	if shaken > rekeyRetry {
		t.Errorf("the hub and edge1 shook hands %v after the change, so a first attempt was missed", shaken)
	}
	s.hub.awaitEcho("10.0.0.1", "10.1.0.1:7", waitLong)

	sent := stop()
	if err := detached.Await(t.Context(), waitLong, func() bool { return arrived.Load() == sent }); err != nil {
		t.Errorf("of %d datagrams to the other edge %d arrived", sent, arrived.Load())
	}
	if now := s.hub.status()["edge2"].LastHandshake; !now.Equal(before) {
		t.Errorf("the other edge shook hands at %v, before at %v", now, before)
	}

	// The hub: it calls its edges at once, through the mappings that their NATs hold.
	s.hub.rotate("two", func(key string) {
		s.plan1.Tunnel.Peers[0].PublicKey, s.plan2.Tunnel.Peers[0].PublicKey = key, key
		s.edge1.apply(s.plan1, -1)
		s.edge2.apply(s.plan2, -1)
	}, planHub(s.edge1.key()))
	began = time.Now()
	s.edge1.awaitHandshake("hub")
	s.edge2.awaitHandshake("hub")
	t.Logf("an edge's new key was in use after %v, the hub's after %v; %d datagrams to the other edge arrived", shaken, time.Since(began), sent)
	if took := time.Since(began); took > rekeyRetry {
		t.Errorf("the edges and the hub shook hands %v after the change, so a first attempt was missed", took)
	}
	s.edge1.awaitEcho("10.1.0.1", "10.2.0.1:7", waitLong)
}

// rekeyRetry is when WireGuard repeats a handshake that got no answer (REKEY_TIMEOUT): what is faster was not repeated.
const rekeyRetry = 5 * time.Second
