package source

import (
	"cmp"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/ravencni/raven/pkg/apis/raven/v1beta1"
	"github.com/ravencni/raven/pkg/topology"
)

// The ConfigMaps that the agent reads.
const (
	configNamespace = "kube-system"
	switchesName    = "raven-cfg"
	settingsName    = "raven-agent-config"
)

// objects are what a source holds, by name.
type objects struct {
	gateways  map[string]*v1beta1.Gateway
	nodes     map[string]*corev1.Node
	endpoints map[string]*v1beta1.TunnelEndpoint
	// configs are the data of raven-cfg and raven-agent-config, as far as these exist.
	configs map[string]map[string]string
}

func newObjects() objects {
	return objects{
		gateways:  map[string]*v1beta1.Gateway{},
		nodes:     map[string]*corev1.Node{},
		endpoints: map[string]*v1beta1.TunnelEndpoint{},
		configs:   map[string]map[string]string{},
	}
}

// objectsOf takes a State apart again; it seeds a source from a snapshot. A State holds no ConfigMaps: what they said
// is in its Config, which seeds the settings.
func objectsOf(s topology.State) objects {
	o := newObjects()
	for _, g := range s.Gateways {
		o.gateways[g.Name] = g
	}
	for _, n := range s.Nodes {
		o.nodes[n.Name] = n
	}
	for _, e := range s.Endpoints {
		o.endpoints[e.Name] = e
	}
	return o
}

// state lists the objects, sorted by name.
func (o objects) state(config topology.Config) topology.State {
	return topology.State{
		Gateways:  sorted(o.gateways),
		Nodes:     sorted(o.nodes),
		Endpoints: sorted(o.endpoints),
		Config:    config,
	}
}

func sorted[T any](m map[string]T) []T {
	out := make([]T, 0, len(m))
	for _, name := range slices.Sorted(maps.Keys(m)) {
		out = append(out, m[name])
	}
	return out
}

// sortProblems sorts and removes repetitions.
func sortProblems(problems []topology.Problem) []topology.Problem {
	slices.SortFunc(problems, func(a, b topology.Problem) int {
		return cmp.Or(cmp.Compare(a.Object, b.Object), cmp.Compare(a.Reason, b.Reason), cmp.Compare(a.Message, b.Message))
	})
	return slices.Compact(problems)
}
