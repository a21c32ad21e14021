package source

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ravencni/raven/pkg/apis/raven/v1beta1"
)

// The trim functions drop what neither planner nor election nor proxy read, so that ten thousand nodes fit into the memory of a
// small machine and a heartbeat is no change. They may take parts of their argument over.

func trimMeta(m metav1.ObjectMeta) metav1.ObjectMeta {
	return metav1.ObjectMeta{Name: m.Name, UID: m.UID, Generation: m.Generation, Labels: m.Labels}
}

func trimNode(n *corev1.Node) *corev1.Node {
	out := &corev1.Node{ObjectMeta: trimMeta(n.ObjectMeta)}
	out.Generation = 0
	out.Spec.PodCIDR, out.Spec.PodCIDRs = n.Spec.PodCIDR, n.Spec.PodCIDRs
	for _, a := range n.Status.Addresses {
		if a.Type == corev1.NodeInternalIP {
			out.Status.Addresses = append(out.Status.Addresses, a)
		}
	}
	out.Status.DaemonEndpoints = n.Status.DaemonEndpoints // the kubelet's port, for the proxy
	for _, c := range n.Status.Conditions {
		if c.Type == corev1.NodeReady {
			// The heartbeat and the wording change by themselves; the status and its transition do not.
			out.Status.Conditions = append(out.Status.Conditions, corev1.NodeCondition{
				Type: c.Type, Status: c.Status, LastTransitionTime: c.LastTransitionTime,
			})
		}
	}
	return out
}

func trimGateway(g *v1beta1.Gateway) *v1beta1.Gateway {
	out := &v1beta1.Gateway{ObjectMeta: trimMeta(g.ObjectMeta), Spec: g.Spec, Status: g.Status}
	if v, ok := g.Annotations[v1beta1.AnnotationExtraSourceCIDRs]; ok {
		out.Annotations = map[string]string{v1beta1.AnnotationExtraSourceCIDRs: v}
	}
	return out
}

func trimEndpoint(e *v1beta1.TunnelEndpoint) *v1beta1.TunnelEndpoint {
	out := &v1beta1.TunnelEndpoint{ObjectMeta: trimMeta(e.ObjectMeta), Status: e.Status}
	if v, ok := e.Annotations[v1beta1.AnnotationRotateKey]; ok {
		out.Annotations = map[string]string{v1beta1.AnnotationRotateKey: v}
	}
	// What another node says of its own health is for people; here it decides nothing.
	out.Status.Peers, out.Status.Problems = nil, nil
	out.Status.PeersUp, out.Status.KeyRequest = "", ""
	out.Status.Datapath, out.Status.DatapathReason = "", ""
	return out
}

// trimConfig returns the data of one of our ConfigMaps.
func trimConfig(c *corev1.ConfigMap) map[string]string {
	if c.Data == nil {
		return map[string]string{}
	}
	return c.Data
}
