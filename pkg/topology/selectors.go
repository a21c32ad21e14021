package topology

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/ravencni/raven/pkg/apis/raven/v1beta1"
)

// Selectors finds the Gateways that select a node, for those who follow changes of single nodes; AssignNodes does the
// same for all nodes at once.
type Selectors struct {
	names []string
	index *selectorIndex
}

// NewSelectors prepares the selectors of the Gateways, and tells which of them cannot be evaluated.
func NewSelectors(gateways []*v1beta1.Gateway) (*Selectors, []Problem) {
	var p problems
	unique := uniqueGateways(gateways, &p)
	s := &Selectors{names: make([]string, 0, len(unique)), index: newSelectorIndex(unique, &p)}
	for _, gw := range unique {
		s.names = append(s.names, gw.Name)
	}
	return s, p.sorted()
}

// GatewayOf returns the Gateway that the node belongs to, the first by name of those that select it; "": none.
func (s *Selectors) GatewayOf(n *corev1.Node) string {
	if claims := s.index.match(n, nil); len(claims) > 0 {
		return s.names[claims[0]]
	}
	return ""
}
