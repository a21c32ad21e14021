package faults

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/ravencni/raven/pkg/ctl/trace"
)

const (
	eastPod = "10.244.22.2"
	westPod = "10.244.32.2"
)

// follow runs ravenctl trace on a node.
func (w *world) follow(t *testing.T, node string) *trace.Hop {
	t.Helper()
	out, err := w.lab.Host(node).Run(w.ctx, w.tool, "trace", eastPod, westPod, "-o", "json")
	var hops []*trace.Hop
	if jsonErr := json.Unmarshal([]byte(out), &hops); jsonErr != nil || len(hops) != 1 {
		t.Fatalf("trace on %s printed %q: %v, %v", node, out, jsonErr, err)
	}
	if (err != nil) != hops[0].Bad() {
		t.Errorf("trace on %s ended with %v and found %+v", node, err, hops[0].Steps)
	}
	return hops[0]
}

// says whether a step of the hop holds all words.
func (w *world) traced(h *trace.Hop, what string, words ...string) bool {
	return slices.ContainsFunc(h.Steps, func(s trace.Step) bool {
		return s.What == what && !slices.ContainsFunc(words, func(word string) bool { return !strings.Contains(s.Says, word) })
	})
}

// followThrough walks a packet over all hops.
func (w *world) followThrough(t *testing.T) {
	node := "east-2"
	for _, want := range []struct {
		node, next string
		steps      map[string][]string // what -> words
	}{
		{"east-2", "east-1", map[string][]string{
			"source": {"local pod behind veth"}, "map": {"overlay by raven0", "aa:0f:ac:10:01:0b"},
			"test run": {"raven_from_pod", "pass", "untracked"}, "kernel": {"table 9027", "raven0"},
		}},
		{"east-1", "west-1", map[string][]string{
			"source": {"comes in by raven0"}, "map": {"tunnel by raven-wg0"}, "test run": {"raven_from_overlay", "redirect", "tunnel"},
			"kernel": {"table 9027", "raven-wg0"},
		}},
		{"west-1", "west-2", map[string][]string{
			"source": {"comes out of raven-wg0"}, "map": {"overlay by raven0"}, "kernel": {"table 9028", "raven0"},
		}},
		{"west-2", "", map[string][]string{"plan": {"a pod of this node"}, "test run": {"raven_from_overlay", "pass"}, "kernel": {"veth"}}},
	} {
		h := w.follow(t, node)
		if h.Node != want.node || h.Next != want.next || h.Bad() {
			t.Fatalf("on %s: %+v", node, h)
		}
		for what, words := range want.steps {
			if !w.traced(h, what, words...) {
				t.Errorf("trace on %s does not say %v of %s: %+v", node, words, what, h.Steps)
			}
		}
		node = h.Next
	}
}

// strayed: without its route the packet leaves by none of Raven's devices, and trace says so.
func (w *world) strayed(t *testing.T) {
	w.sh(t, "east-2", "ip rule del priority 100")
	if h := w.follow(t, "east-2"); !h.Bad() || !w.traced(h, "kernel", "not by a device of Raven's") {
		t.Errorf("a packet that strays is traced as %+v", h)
	}
	w.repair(t, "east-2", false)
}
