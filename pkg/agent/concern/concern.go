// Package concern decides which of the cluster's problems a node names. All agents plan from the whole cluster and find
// the same problems; if each named all, one mistake would be thousands of log lines, series and writes to the API server.
package concern

import (
	"slices"
	"strings"

	"github.com/ravencni/raven/pkg/apis/raven/v1beta1"
	"github.com/ravencni/raven/pkg/topology"
)

// Scope is what one node answers for. Every problem of an object lies in the scope of at least one node whose agent runs.
type Scope struct {
	node, region string
	regionOf     map[string]string // by node
	// actor is the active gateway node by region; a region without one has no entry.
	actor   map[string]string
	exposed map[string]bool // by region
	// witness is true for a node that names what belongs to no region, or to one where nobody acts.
	witness bool
}

// New computes the scope of a node. standalone says that agents read manifests, each its own, instead of an API server.
func New(state topology.State, node string, standalone bool) *Scope {
	s := &Scope{
		node: node, regionOf: topology.AssignNodes(state.Gateways, state.Nodes).GatewayOf,
		actor: map[string]string{}, exposed: map[string]bool{},
	}
	s.region = s.regionOf[node]
	for _, g := range state.Gateways {
		if g == nil {
			continue
		}
		s.exposed[g.Name] = g.Spec.ExposeType != v1beta1.ExposeNone
		for _, name := range activeTunnels(g) {
			if s.regionOf[name] == g.Name {
				s.actor[g.Name] = name
				break
			}
		}
	}
	s.witness = slices.Contains(s.witnesses(state, standalone), node)
	return s
}

// activeTunnels names the nodes of a Gateway's active tunnel endpoints, sorted.
func activeTunnels(g *v1beta1.Gateway) []string {
	var out []string
	for _, e := range g.Status.ActiveEndpoints {
		if e != nil && e.EffectiveType() == v1beta1.EndpointTunnel {
			out = append(out, e.NodeName)
		}
	}
	if e := g.Status.ActiveEndpoint; len(out) == 0 && e != nil {
		out = append(out, e.NodeName)
	}
	slices.Sort(out)
	return out
}

// witnesses are the exposed gateways, and with manifests, which may differ from node to node, all gateways; where there
// is none of these the first gateway, or the first node.
func (s *Scope) witnesses(state topology.State, standalone bool) []string {
	var chosen, gateways []string
	for region, name := range s.actor {
		gateways = append(gateways, name)
		if standalone || s.exposed[region] {
			chosen = append(chosen, name)
		}
	}
	switch {
	case len(chosen) > 0:
		return chosen
	case len(gateways) > 0:
		return []string{slices.Min(gateways)}
	}
	first := ""
	for _, n := range state.Nodes {
		if n != nil && n.Name != "" && (first == "" || n.Name < first) {
			first = n.Name
		}
	}
	return []string{first}
}

// Names says whether the node names a problem of the source's or the planner's.
func (s *Scope) Names(p topology.Problem) bool {
	kind, name, _ := strings.Cut(p.Object, "/")
	region := ""
	switch kind {
	case "ConfigMap":
	case "Gateway":
		if _, known := s.exposed[name]; known {
			region = name
		}
	case "Node", "TunnelEndpoint":
		if name == s.node || p.Reason == topology.ReasonAddressThrown { // thrown by this very node
			return true
		}
		region = s.regionOf[name]
	default:
		return true // a file, the API server: this node's own access to them
	}
	switch {
	case region == "":
		return s.witness
	case region == s.region:
		return true
	case s.actor[s.region] != s.node:
		return s.actor[region] == "" && s.witness
	case s.actor[region] == "" && s.witness:
		return true
	case s.exposed[s.region] && !s.exposed[region]:
		return true // the gateway that the others' tunnels lead to sees more of them than they do
	}
	// What this gateway dials, or is dialled by.
	return (s.exposed[s.region] || s.exposed[region]) && kind != "Node"
}
