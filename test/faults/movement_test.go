package faults

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
)

// still are watched metrics that say one thing for as long as an agent lives.
var still = []string{"raven_build_info"}

// movement remembers what each series of the watched metrics has shown.
type movement struct {
	looks map[string]int // at each node
	// series by metric, and by node and labels.
	series map[string]map[string]*series
}

type series struct {
	node   string
	seen   int // in how many looks
	values map[float64]bool
}

// look notes what the agents that run now show.
func (w *world) look(t *testing.T) {
	t.Helper()
	names := watched(t)
	for _, node := range w.lab.Nodes() {
		page, err := w.lab.Metrics(w.ctx, node)
		if err != nil {
			continue // this agent is stopped
		}
		w.moves.looks[node]++
		for _, sample := range page {
			name := strings.TrimSuffix(sample.Name, "_bucket")
			if !slices.Contains(names, name) {
				continue
			}
			all := w.moves.series[name]
			if all == nil {
				all = map[string]*series{}
				w.moves.series[name] = all
			}
			key := node + fmt.Sprint(sample.Labels)
			if all[key] == nil {
				all[key] = &series{node: node, values: map[float64]bool{}}
			}
			all[key].seen++
			all[key].values[sample.Value] = true
		}
	}
}

// moved says whether a metric's values changed, or a series of it came or went.
func (m movement) moved(name string) bool {
	for s := range maps.Values(m.series[name]) {
		if len(s.values) > 1 || s.seen < m.looks[s.node] {
			return true
		}
	}
	return false
}

// haveMoved expects each watched metric to have changed while nodes were broken and repaired.
func (w *world) haveMoved(t *testing.T) {
	var unmoved []string
	for _, name := range watched(t) {
		if !slices.Contains(still, name) && !w.moves.moved(name) {
			unmoved = append(unmoved, name)
		}
	}
	if len(unmoved) > 0 {
		t.Errorf("these metrics are watched, and never changed: %s", strings.Join(unmoved, ", "))
	}
}
