package wireguard

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/ravencni/raven/pkg/topology"
	"github.com/ravencni/raven/pkg/tunnel"
)

func newPublicKey(t *testing.T) string {
	t.Helper()
	key, err := wgtypes.GeneratePrivateKey()
	if err != nil {
		t.Fatal(err)
	}
	return key.PublicKey().String()
}

func TestEachBadPeerCostsOnlyItselfAndIsNamed(t *testing.T) {
	h := newHost(t, "a").serve(Options{})
	good := newPublicKey(t)
	h.apply(plan("a", "192.0.2.1", peerAt("good", good, "192.0.2.2:4500", 0, "10.2.0.0/24")), -1)
	for name, bad := range map[string]topology.Peer{
		"no public key yet":       peerAt("bad", "", "192.0.2.3:4500", 0, "10.3.0.0/24"),
		"malformed":               peerAt("bad", "not a key", "192.0.2.3:4500", 0, "10.3.0.0/24"),
		"no point":                peerAt("bad", wgtypes.Key{}.String(), "192.0.2.3:4500", 0, "10.3.0.0/24"),
		"own public key":          peerAt("bad", h.key(), "192.0.2.3:4500", 0, "10.3.0.0/24"),
		"same public key":         peerAt("bad", good, "192.0.2.3:4500", 0, "10.3.0.0/24"),
		"no port":                 peerAt("bad", newPublicKey(t), "192.0.2.3:0", 0, "10.3.0.0/24"),
		"not the address":         peerAt("bad", newPublicKey(t), "224.0.0.1:4500", 0, "10.3.0.0/24"),
		"not between 0 and 65535": peerAt("bad", newPublicKey(t), "192.0.2.3:4500", 70000, "10.3.0.0/24"),
		"goes to region good":     peerAt("bad", newPublicKey(t), "192.0.2.3:4500", 0, "10.2.0.0/24"),
		"invalid prefix":          {Region: "bad", Node: "bad", PublicKey: newPublicKey(t), Prefixes: make([]netip.Prefix, 1)},
	} {
		t.Run(name, func(t *testing.T) {
			p := plan("a", "192.0.2.1", peerAt("good", good, "192.0.2.2:4500", 0, "10.2.0.0/24"), bad)
			err := h.try(func() error {
				_, err := h.Apply(context.Background(), p)
				return err
			})
			if err == nil || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), "region bad (node bad)") {
				t.Errorf("Apply: %v", err)
			}
			found := false
			for _, got := range h.device().Peers {
				if got.PublicKey.String() == good {
					found = len(got.AllowedIPs) == 1 && got.Endpoint.String() == "192.0.2.2:4500"
				}
			}
			if !found {
				t.Errorf("the good peer is harmed: %+v", h.device().Peers)
			}
			refused := strings.Contains(err.Error(), "is left out: ")
			if s := h.status()["bad"]; refused != (s.State == tunnel.StateDown) || s.State == tunnel.StateUp || s.Message == "" {
				t.Errorf("status of the bad peer: %+v", s)
			}
		})
	}
}

func TestABusyPortIsNamedAndTheOldOneKept(t *testing.T) {
	p := newPair(t)
	p.connect()
	p.planA.Tunnel.ListenPort = 7 // b's echo runs elsewhere; here nobody holds it yet
	p.a.echo("10.1.0.1:7")
	err := p.a.try(func() error {
		_, err := p.a.Apply(context.Background(), p.planA)
		return err
	})
	if err == nil || !strings.Contains(err.Error(), "UDP port 7 is held by another program") {
		t.Fatalf("Apply with a busy port: %v", err)
	}
	if got := p.a.device().ListenPort; got != 4500 {
		t.Errorf("the device listens on %d", got)
	}
	p.planA.Tunnel.ListenPort = 4501
	p.a.apply(p.planA, 1)
	p.a.awaitEcho("10.1.0.1", "10.2.0.1:7", waitLong)
}

func TestAForeignDeviceOfTheSameNameStays(t *testing.T) {
	h := newHost(t, "a").serve(Options{})
	h.run("ip", "link", "add", DefaultDevice, "type", "bridge")
	for _, p := range []*topology.Plan{plan("a", "192.0.2.1"), {}} {
		err := h.try(func() error {
			_, err := h.Apply(context.Background(), p)
			return err
		})
		if err == nil || !strings.Contains(err.Error(), "type bridge") {
			t.Errorf("Apply over a bridge: %v", err)
		}
	}
	h.run("ip", "link", "del", DefaultDevice)
}

func TestAProcessThatCannotMakeItsDeviceSaysWhy(t *testing.T) {
	needsUserspace(t)
	h := newHost(t, "a").serve(Options{Command: []string{"/bin/sh", "-c", "echo no such luck >&2; exit 3"}})
	err := h.try(func() error {
		_, err := h.Apply(context.Background(), plan("a", "192.0.2.1"))
		return err
	})
	if err == nil || !strings.Contains(err.Error(), "no such luck") || !strings.Contains(err.Error(), "exit status 3") {
		t.Errorf("Apply: %v", err)
	}
	if errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Apply waited for a dead process: %v", err)
	}
}
