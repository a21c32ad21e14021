package inventory

import (
	"cmp"
	"maps"
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"

	"github.com/ravencni/raven/pkg/apis/raven/v1beta1"
	"github.com/ravencni/raven/pkg/topology"
)

// Inventory is safe for concurrent use.
type Inventory struct {
	mu sync.Mutex
	// loaded is false while the first lists come in: homes are worked out once, at their end.
	loaded    bool
	gateways  map[string]*v1beta1.Gateway
	nodes     map[string]*corev1.Node
	endpoints map[string]*v1beta1.TunnelEndpoint

	// home is the Gateway of each node that has one, members the reverse.
	home    map[string]string
	members map[string]names
	// labelled holds the nodes by the value of the label raven.openyurt.io/gateway.
	labelled map[string]names
	// custom are the selectors of Gateways that have one of their own.
	custom *topology.Selectors
	// listed holds the Gateways that list a node in spec.endpoints, by node.
	listed map[string]names

	observed  observations
	blocks    blocks
	balancers map[Balancer]string
	switches  Switches
	// written are the keys of raven-cfg that were there at least once.
	written map[string]bool
}

// names is a set.
type names map[string]struct{}

// New makes an empty Inventory. Call Loaded once after the first lists are in.
func New() *Inventory {
	custom, _ := topology.NewSelectors(nil)
	return &Inventory{
		gateways: map[string]*v1beta1.Gateway{}, nodes: map[string]*corev1.Node{}, endpoints: map[string]*v1beta1.TunnelEndpoint{},
		home: map[string]string{}, members: map[string]names{}, labelled: map[string]names{}, listed: map[string]names{},
		observed: observations{}, blocks: newBlocks(), balancers: map[Balancer]string{},
		custom: custom, switches: Switches{Tunnel: true, Proxy: true}, written: map[string]bool{},
	}
}

// Loaded works out which node belongs where, and what raven-cfg said last where it is silent now.
func (v *Inventory) Loaded() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.loaded = true
	v.recallSwitches()
	v.compileSelectors()
	touched := names{}
	for _, n := range v.nodes {
		v.settle(n, touched)
	}
}

// Gateway returns the named Gateway, or nil. It must not be changed.
func (v *Inventory) Gateway(name string) *v1beta1.Gateway {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.gateways[name]
}

// Gateways returns all names, sorted.
func (v *Inventory) Gateways() []string {
	v.mu.Lock()
	defer v.mu.Unlock()
	return slices.Sorted(maps.Keys(v.gateways))
}

// Members of a Gateway, sorted by name. They must not be changed.
func (v *Inventory) Members(gateway string) []*corev1.Node {
	v.mu.Lock()
	defer v.mu.Unlock()
	out := make([]*corev1.Node, 0, len(v.members[gateway]))
	for name := range v.members[gateway] {
		out = append(out, v.nodes[name])
	}
	slices.SortFunc(out, func(a, b *corev1.Node) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// GatewayOf returns the Gateway of a node, "" for none, and whether there is such a node.
func (v *Inventory) GatewayOf(node string) (gateway string, exists bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.home[node], v.nodes[node] != nil
}

// Endpoint is what the node published, or nil. It must not be changed.
func (v *Inventory) Endpoint(node string) *v1beta1.TunnelEndpoint {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.endpoints[node]
}

// State is the planner's input, without its configuration. The objects must not be changed.
func (v *Inventory) State() topology.State {
	v.mu.Lock()
	defer v.mu.Unlock()
	return topology.State{
		Gateways:  slices.Collect(maps.Values(v.gateways)),
		Nodes:     slices.Collect(maps.Values(v.nodes)),
		Endpoints: slices.Collect(maps.Values(v.endpoints)),
	}
}

// add puts a name into one of the sets of a map.
func add(sets map[string]names, key, name string) {
	if sets[key] == nil {
		sets[key] = names{}
	}
	sets[key][name] = struct{}{}
}

// remove takes a name out of one of the sets of a map.
func remove(sets map[string]names, key, name string) {
	delete(sets[key], name)
	if len(sets[key]) == 0 {
		delete(sets, key)
	}
}

func (n names) sorted() []string { return slices.Sorted(maps.Keys(n)) }
