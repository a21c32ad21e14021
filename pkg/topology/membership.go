package topology

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/ravencni/raven/pkg/apis/raven/v1beta1"
)

// Membership says which nodes form which region.
type Membership struct {
	// Members of each Gateway by its name, sorted by node name.
	Members map[string][]*corev1.Node
	// GatewayOf a node, by the node's name; absent where the node is in no region.
	GatewayOf map[string]string
	// Nodes sorted by name; of several objects with one name, one.
	Nodes []*corev1.Node
	// Problems: invalid selectors, nodes that two Gateways claim, objects that share a name.
	Problems []Problem
}

// AssignNodes finds the region of every node: Gateway.spec.nodeSelector decides, or where it is absent or empty the
// label raven.openyurt.io/gateway=<name of the Gateway>. (An empty selector would take every node of the cluster into
// one region, which nobody means.) A node that several Gateways select belongs to the first of them by name, so that a
// new Gateway cannot silently split a region that sorts before it; all of them are reported.
func AssignNodes(gateways []*v1beta1.Gateway, nodes []*corev1.Node) Membership {
	var p problems
	m := assign(uniqueGateways(gateways, &p), uniqueNodes(nodes, &p), &p)
	m.Problems = p.sorted()
	return m
}

// assign wants both slices sorted by name and free of duplicates.
func assign(gateways []*v1beta1.Gateway, nodes []*corev1.Node, p *problems) Membership {
	index := newSelectorIndex(gateways, p)
	m := Membership{
		Members:   make(map[string][]*corev1.Node, len(gateways)),
		GatewayOf: make(map[string]string, len(nodes)),
		Nodes:     nodes,
	}
	var claims []int
	for _, n := range nodes {
		claims = index.match(n, claims[:0])
		if len(claims) == 0 {
			continue
		}
		home := gateways[claims[0]].Name
		m.GatewayOf[n.Name] = home
		m.Members[home] = append(m.Members[home], n)
		for _, i := range claims[1:] {
			reportTwoGateways(p, n.Name, home, gateways[i].Name)
		}
	}
	return m
}

func reportTwoGateways(p *problems, node, home, other string) {
	const advice = "; it belongs to the first by name: make the selectors or labels disjoint"
	p.add(nodeObject(node), ReasonNodeInTwoGateways, "selected by Gateway %s and Gateway %s%s", home, other, advice)
	p.add(gatewayObject(home), ReasonNodeInTwoGateways, "Node %s is selected by Gateway %s too%s", node, other, advice)
	p.add(gatewayObject(other), ReasonNodeInTwoGateways, "Node %s is selected by Gateway %s too%s", node, home, advice)
}

// selectorIndex finds the Gateways that select a node without trying each Gateway on each node: a selector that demands
// key=value is tried on nodes with that label only.
type selectorIndex struct {
	byLabel map[string]map[string][]int // key -> value -> gateways
	rest    []int
	// selectors by gateway; nil where the label that led here is all there is to match.
	selectors []labels.Selector
}

func newSelectorIndex(gateways []*v1beta1.Gateway, p *problems) *selectorIndex {
	x := &selectorIndex{byLabel: make(map[string]map[string][]int, 1), selectors: make([]labels.Selector, len(gateways))}
	for i, gw := range gateways {
		want := gw.Spec.NodeSelector
		if want == nil || len(want.MatchLabels)+len(want.MatchExpressions) == 0 {
			x.addLabel(v1beta1.LabelGateway, gw.Name, i)
			continue
		}
		selector, err := metav1.LabelSelectorAsSelector(want)
		if err != nil {
			p.add(gatewayObject(gw.Name), ReasonInvalidSelector,
				"spec.nodeSelector selects no node: %v: correct it or remove it to select by the label %s=%s",
				err, v1beta1.LabelGateway, gw.Name)
			continue
		}
		if len(want.MatchLabels) == 0 {
			x.rest = append(x.rest, i)
			x.selectors[i] = selector
			continue
		}
		key := firstKey(want.MatchLabels)
		x.addLabel(key, want.MatchLabels[key], i)
		if len(want.MatchLabels)+len(want.MatchExpressions) > 1 {
			x.selectors[i] = selector
		}
	}
	return x
}

func firstKey(m map[string]string) string {
	first, found := "", false
	for k := range m {
		if !found || k < first {
			first, found = k, true
		}
	}
	return first
}

func (x *selectorIndex) addLabel(key, value string, gateway int) {
	values := x.byLabel[key]
	if values == nil {
		values = make(map[string][]int)
		x.byLabel[key] = values
	}
	values[value] = append(values[value], gateway)
}

// match appends the gateways that select the node, ascending.
func (x *selectorIndex) match(n *corev1.Node, out []int) []int {
	for key, values := range x.byLabel {
		value, ok := n.Labels[key]
		if !ok {
			continue
		}
		for _, i := range values[value] {
			if s := x.selectors[i]; s == nil || s.Matches(labels.Set(n.Labels)) {
				out = append(out, i)
			}
		}
	}
	for _, i := range x.rest {
		if x.selectors[i].Matches(labels.Set(n.Labels)) {
			out = append(out, i)
		}
	}
	slices.Sort(out)
	return out
}
