package ipsec

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ravencni/raven/pkg/topology"
	"github.com/ravencni/raven/pkg/tunnel"
	"github.com/ravencni/raven/pkg/tunnel/link"
	testns "github.com/ravencni/raven/test/netns"
)

func TestTheDriverMakesItsDeviceOnceAndLeavesNothingBehind(t *testing.T) {
	needsCharon(t)
	testns.Run(t, func(t *testing.T) {
		dir, err := os.MkdirTemp("", "ripsec") // a socket's path is short
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.RemoveAll(dir) })
		run, state := filepath.Join(dir, "raven", "ipsec"), filepath.Join(dir, "state")
		opts := Options{
			RunDir: run, StateDir: state, Secret: Secret("", "a secret"), Command: []string{"/proc/self/exe", "ipsec-daemon", run},
		}
		opts.Command[0], err = os.Executable() // the daemon works in /, and /proc/self is another there
		if err != nil {
			t.Fatal(err)
		}
		d, err := New(opts)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := d.Cleanup(t.Context()); err != nil && t.Context().Err() == nil {
				t.Error(err)
			}
		})
		plan := gatewayPlan()
		plan.Tunnel.Peers = []topology.Peer{{Region: "far", Node: "far-1", Prefixes: prefixes("172.16.2.104/32", "fd00:1::/64")}}
		first, err := d.Apply(t.Context(), plan)
		if err != nil || first.Changes == 0 || deviceOf(first).Name != DefaultDevice || deviceOf(first).MTU != 1400 {
			t.Fatalf("the first Apply: %+v, %v", first, err)
		}
		if again, err := d.Apply(t.Context(), plan); err != nil || again.Changes != 0 || deviceOf(again) != deviceOf(first) {
			t.Errorf("the second Apply: %+v, %v; want no change of %+v", again, err, deviceOf(first))
		}
		all, err := d.Status(t.Context())
		if err != nil || len(all) != 1 || all[0].State != tunnel.StateConnecting || !strings.Contains(all[0].Message, "port 4500") {
			t.Errorf("the status is %+v, %v", all, err)
		}

		// Another agent finds the daemon as it is.
		next, err := New(opts)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := next.Apply(t.Context(), plan); err != nil || again.Changes != 0 || deviceOf(again) != deviceOf(first) {
			t.Errorf("the next agent's Apply: %+v, %v; want no change of %+v", again, err, deviceOf(first))
		}

		if err := next.Cleanup(t.Context()); err != nil {
			t.Fatal(err)
		}
		if l, err := link.Find(DefaultDevice); err != nil || l != nil {
			t.Errorf("after the clean-up there is the device %v, %v", l, err)
		}
		if left, _ := filepath.Glob(filepath.Join(dir, "*", "*")); len(left) > 0 {
			t.Errorf("after the clean-up there are %v", left)
		}
		if r, err := next.Apply(t.Context(), &topology.Plan{Node: "cloud-1"}); err != nil || r.Changes != 0 {
			t.Errorf("nothing is taken away again: %+v, %v", r, err)
		}
	})
}

// deviceOf is the only device, whether it serves all peers or the only one.
func deviceOf(r tunnel.Result) tunnel.Device {
	if len(r.PerPeer) == 1 {
		return r.PerPeer[0]
	}
	return r.Device
}

func TestWithoutASecretNothingIsStarted(t *testing.T) {
	d, err := New(Options{RunDir: t.TempDir(), StateDir: t.TempDir(), Secret: Secret("", " \n"), Command: []string{"/nonexistent"}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Apply(t.Context(), gatewayPlan()); err == nil || !strings.Contains(err.Error(), "vpn-connection-psk") {
		t.Errorf("the error is %v", err)
	}
}
