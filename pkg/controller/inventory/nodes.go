package inventory

import (
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/ravencni/raven/pkg/apis/raven/v1beta1"
	"github.com/ravencni/raven/pkg/topology"
)

// SetNode takes a new or changed Node.
func (v *Inventory) SetNode(n *corev1.Node) []string {
	v.mu.Lock()
	defer v.mu.Unlock()
	old := v.nodes[n.Name]
	v.nodes[n.Name] = n
	if old == nil || old.Labels[v1beta1.LabelGateway] != n.Labels[v1beta1.LabelGateway] {
		if old != nil {
			remove(v.labelled, old.Labels[v1beta1.LabelGateway], n.Name)
		}
		add(v.labelled, n.Labels[v1beta1.LabelGateway], n.Name)
	}
	if !v.loaded || old != nil && sameNode(old, n) {
		return nil
	}
	touched := names{}
	v.settle(n, touched)
	if home := v.home[n.Name]; home != "" {
		touched[home] = struct{}{}
	}
	maps.Copy(touched, v.listed[n.Name])
	return touched.sorted()
}

// DeleteNode takes the end of a Node.
func (v *Inventory) DeleteNode(name string) []string {
	v.mu.Lock()
	defer v.mu.Unlock()
	old := v.nodes[name]
	if old == nil {
		return nil
	}
	delete(v.nodes, name)
	remove(v.labelled, old.Labels[v1beta1.LabelGateway], name)
	touched := names{}
	v.move(name, "", touched)
	maps.Copy(touched, v.listed[name])
	return touched.sorted()
}

// settle gives a node its home, and notes whom that touches.
func (v *Inventory) settle(n *corev1.Node, touched names) {
	home := v.custom.GatewayOf(n)
	if label := n.Labels[v1beta1.LabelGateway]; label != "" && (home == "" || label < home) {
		if gw := v.gateways[label]; gw != nil && !hasSelector(gw) {
			home = label
		}
	}
	v.move(n.Name, home, touched)
}

func (v *Inventory) move(node, home string, touched names) {
	old := v.home[node]
	if old == home {
		return
	}
	if old != "" {
		remove(v.members, old, node)
		touched[old] = struct{}{}
	}
	delete(v.home, node)
	if home != "" {
		add(v.members, home, node)
		v.home[node] = home
		touched[home] = struct{}{}
	}
	maps.Copy(touched, v.listed[node])
}

// sameNode tells whether two states of a Node mean the same to every Gateway. Heartbeats do.
func sameNode(a, b *corev1.Node) bool {
	return maps.Equal(a.Labels, b.Labels) && slices.Equal(topology.PodCIDRs(a), topology.PodCIDRs(b)) &&
		slices.Equal(a.Status.Addresses, b.Status.Addresses) && readiness(a) == readiness(b)
}

// readiness is the Ready condition without its heartbeat.
func readiness(n *corev1.Node) (c struct{ status, reason string }) {
	for i := range n.Status.Conditions {
		if k := &n.Status.Conditions[i]; k.Type == corev1.NodeReady {
			c.status, c.reason = string(k.Status), k.Reason
		}
	}
	return c
}
