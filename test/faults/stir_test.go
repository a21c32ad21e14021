package faults

import (
	"context"
	"fmt"
	"testing"

	"github.com/ravencni/raven/test/lab"
)

// stir changes what the faults leave alone, so that each metric that is watched has something to tell.
func (w *world) stir(t *testing.T) {
	const node = "west-2"
	files, err := w.lab.ManifestFiles()
	w.fatal(t, err)
	kept := map[string]string{}
	for _, file := range files {
		kept[file], err = w.lab.ReadManifest(file)
		w.fatal(t, err)
	}
	put := func(file string) { w.fatal(t, w.lab.WriteManifest(file, kept[file])) }

	// A region goes, and comes back.
	const gateway = "gateway-west.yaml"
	w.fatal(t, w.lab.RemoveManifest(gateway))
	w.shows(t, "east-1", "raven_plan_peers", 0)
	put(gateway)
	w.shows(t, "east-1", "raven_plan_peers", 1)
	w.shows(t, "east-1", "raven_tunnel_peer_state", 1, "state", "up")

	// The input lacks the node itself.
	const itself = "node-" + node + ".yaml"
	w.fatal(t, w.lab.RemoveManifest(itself))
	w.shows(t, node, "raven_input_held", 1)
	put(itself)
	w.shows(t, node, "raven_input_held", 0)

	// An agent starts and finds an empty folder.
	for _, file := range files {
		w.fatal(t, w.lab.RemoveManifest(file))
	}
	w.stop(t, node)
	_, err = w.lab.StartAgent(w.ctx, w.lab.Options(), node)
	w.fatal(t, err)
	w.shows(t, node, "raven_source_synced", 0)
	for _, file := range files {
		put(file)
	}
	w.shows(t, node, "raven_source_synced", 1)

	// A smaller underlay.
	w.sh(t, node, "ip link set eth0 mtu 1400")
	w.shows(t, node, "raven_mtu_bytes", 1400, "device", "underlay")
	w.sh(t, node, "ip link set eth0 mtu 1500")
	w.shows(t, node, "raven_mtu_bytes", 1500, "device", "underlay")

	// Without acceleration.
	w.stop(t, node)
	w.fatal(t, w.lab.StartAgents(w.ctx, lab.AgentOptions{Acceleration: "off"}, node))
	w.shows(t, node, "raven_datapath_accelerated", 0)
	w.stop(t, node)
	w.fatal(t, w.lab.StartAgents(w.ctx, lab.AgentOptions{Acceleration: "auto"}, node))
	w.shows(t, node, "raven_datapath_accelerated", 1)
}

func (w *world) fatal(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// shows waits until a metric of a node has a value, and notes what all show then.
func (w *world) shows(t *testing.T, node, metric string, value float64, labels ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(w.ctx, noticedWithin)
	defer cancel()
	w.fatal(t, lab.Await(ctx, fmt.Sprintf("%s %v of %s to be %g", metric, labels, node, value), func(ctx context.Context) error {
		page, err := w.lab.Metrics(ctx, node)
		if err != nil {
			return err
		}
		if got := page.Sum(metric, labels...); got != value {
			return fmt.Errorf("it is %g", got)
		}
		return nil
	}))
	w.look(t)
}
