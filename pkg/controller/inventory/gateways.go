package inventory

import (
	"maps"

	"k8s.io/apimachinery/pkg/api/equality"

	"github.com/ravencni/raven/pkg/apis/raven/v1beta1"
	"github.com/ravencni/raven/pkg/topology"
)

// SetGateway takes a new or changed Gateway.
func (v *Inventory) SetGateway(gw *v1beta1.Gateway) []string {
	v.mu.Lock()
	defer v.mu.Unlock()
	old := v.gateways[gw.Name]
	v.gateways[gw.Name] = gw
	v.list(old, gw)
	touched := names{gw.Name: {}}
	if v.loaded && (old == nil || !equality.Semantic.DeepEqual(old.Spec.NodeSelector, gw.Spec.NodeSelector)) {
		v.reselect(old, gw, touched)
	}
	if node := holder(gw); node != holder(old) && v.exposed(node) {
		for peer, by := range v.observed {
			if by[node] != "" {
				maps.Copy(touched, v.listed[peer])
			}
		}
	}
	return touched.sorted()
}

// holder is the node with a Gateway's tunnels; "": none.
func holder(gw *v1beta1.Gateway) string {
	if gw == nil || gw.Status.ActiveEndpoint == nil {
		return ""
	}
	return gw.Status.ActiveEndpoint.NodeName
}

// DeleteGateway takes the end of a Gateway.
func (v *Inventory) DeleteGateway(name string) []string {
	v.mu.Lock()
	defer v.mu.Unlock()
	old := v.gateways[name]
	if old == nil {
		return nil
	}
	delete(v.gateways, name)
	v.list(old, nil)
	touched := names{}
	if v.loaded {
		v.reselect(old, nil, touched)
	}
	delete(touched, name)
	return touched.sorted()
}

// list keeps the index of candidates.
func (v *Inventory) list(old, gw *v1beta1.Gateway) {
	if old != nil {
		for i := range old.Spec.Endpoints {
			remove(v.listed, old.Spec.Endpoints[i].NodeName, old.Name)
		}
	}
	if gw != nil {
		for i := range gw.Spec.Endpoints {
			add(v.listed, gw.Spec.Endpoints[i].NodeName, gw.Name)
		}
	}
}

// reselect gives nodes their homes anew after a selector has changed: where it is or was one of the Gateway's own all
// nodes, else those with its label.
func (v *Inventory) reselect(old, gw *v1beta1.Gateway, touched names) {
	if hasSelector(old) || hasSelector(gw) {
		v.compileSelectors()
		for _, n := range v.nodes {
			v.settle(n, touched)
		}
		return
	}
	name := ""
	if gw != nil {
		name = gw.Name
	} else {
		name = old.Name
	}
	for node := range maps.Clone(v.labelled[name]) {
		v.settle(v.nodes[node], touched)
	}
}

func (v *Inventory) compileSelectors() {
	var custom []*v1beta1.Gateway
	for _, gw := range v.gateways {
		if hasSelector(gw) {
			custom = append(custom, gw)
		}
	}
	v.custom, _ = topology.NewSelectors(custom) // the planner's analysis reports the bad ones
}

// hasSelector tells whether a Gateway selects by more than the label of its name; an empty selector counts as none.
func hasSelector(gw *v1beta1.Gateway) bool {
	if gw == nil || gw.Spec.NodeSelector == nil {
		return false
	}
	return len(gw.Spec.NodeSelector.MatchLabels)+len(gw.Spec.NodeSelector.MatchExpressions) > 0
}
