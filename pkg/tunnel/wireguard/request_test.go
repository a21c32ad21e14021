package wireguard

import (
	"context"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/ravencni/raven/pkg/topology"
	"github.com/ravencni/raven/pkg/tunnel/detached"
	"github.com/ravencni/raven/pkg/tunnel/link"
)

func TestAProcessElsewhereServesOnRequestAndOutlivesTheRole(t *testing.T) {
	needsUserspace(t)
	h := newHost(t, "a").serve(Options{External: true})
	p := plan("a", "192.0.2.1", peerAt("b", newPublicKey(t), "192.0.2.2:4500", 0, "10.2.0.0/24"))
	err := h.try(func() error {
		_, err := h.Apply(context.Background(), p)
		return err
	})
	if err == nil || !strings.Contains(err.Error(), "raven-tunnel-ds") {
		t.Fatalf("Apply without a process: %v", err)
	}
	h.apply(&topology.Plan{}, 0) // takes the request back

	var holder *exec.Cmd
	h.do(func() error {
		holder = exec.Command("/proc/self/exe", "hold", h.opts.StateDir)
		return holder.Start()
	})
	ended := make(chan error, 1)
	go func() { ended <- holder.Wait() }()
	none := func() bool {
		var there bool
		h.do(func() error {
			l, err := link.Find(DefaultDevice)
			there = l != nil
			return err
		})
		return !there
	}
	for role := range 2 { // the second time as a gateway that is elected again
		if !none() {
			t.Fatal("a device without a role")
		}
		for { // a loaded machine may take longer than one pass waits
			if h.try(func() error { _, err := h.Apply(context.Background(), p); return err }) == nil {
				break
			}
			if t.Context().Err() != nil {
				t.Fatal("no device")
			}
		}
		h.apply(p, 0)
		if got := len(h.device().Peers); got != 1 {
			t.Errorf("role %d: %d peers", role, got)
		}
		h.restart() // the agent's; its successor finds the device as it is
		h.apply(p, 0)
		if role == 0 {
			h.apply(&topology.Plan{}, 1)
		} else {
			h.do(func() error { return h.Cleanup(context.Background()) })
		}
		if err := detached.Await(t.Context(), waitLong, func() bool { return h.try(func() error { return answers(t.Context(), DefaultDevice) }) != nil }); err != nil {
			t.Fatal("the device is gone and its process still serves it")
		}
	}
	if !none() {
		t.Error("the cleanup left the device")
	}
	select {
	case err := <-ended:
		t.Fatalf("the holder has ended: %v", err)
	default:
	}
	if err := holder.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Errorf("the holder failed: %v", err)
	}
}
