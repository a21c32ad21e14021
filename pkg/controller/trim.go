package controller

import (
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ravencni/raven/pkg/apis/raven/v1beta1"
	"github.com/ravencni/raven/pkg/controller/calico"
)

// The trim functions drop what the controller does not read before an object enters the cache, so that ten thousand
// nodes fit into its memory.

func trimMeta(m metav1.ObjectMeta) metav1.ObjectMeta {
	return metav1.ObjectMeta{Name: m.Name, Namespace: m.Namespace, UID: m.UID, ResourceVersion: m.ResourceVersion,
		Generation: m.Generation, Labels: m.Labels, DeletionTimestamp: m.DeletionTimestamp}
}

func trimRequest(object any) (any, error) {
	r, ok := object.(*certificatesv1.CertificateSigningRequest)
	if !ok {
		return object, nil // a tombstone
	}
	return &certificatesv1.CertificateSigningRequest{ObjectMeta: trimMeta(r.ObjectMeta)}, nil
}

func trimNode(object any) (any, error) {
	n, ok := object.(*corev1.Node)
	if !ok {
		return object, nil // a tombstone
	}
	out := &corev1.Node{ObjectMeta: trimMeta(n.ObjectMeta)}
	out.Spec.PodCIDR, out.Spec.PodCIDRs = n.Spec.PodCIDR, n.Spec.PodCIDRs
	for _, a := range n.Status.Addresses {
		if a.Type == corev1.NodeInternalIP {
			out.Status.Addresses = append(out.Status.Addresses, a)
		}
	}
	for _, c := range n.Status.Conditions {
		if c.Type == corev1.NodeReady {
			out.Status.Conditions = append(out.Status.Conditions, corev1.NodeCondition{Type: c.Type, Status: c.Status, Reason: c.Reason,
				LastTransitionTime: c.LastTransitionTime})
		}
	}
	return out, nil
}

func trimGateway(object any) (any, error) {
	gw, ok := object.(*v1beta1.Gateway)
	if !ok {
		return object, nil
	}
	extra, annotated := gw.Annotations[v1beta1.AnnotationExtraSourceCIDRs]
	gw.ObjectMeta = trimMeta(gw.ObjectMeta)
	if annotated {
		gw.Annotations = map[string]string{v1beta1.AnnotationExtraSourceCIDRs: extra}
	}
	return gw, nil
}

func trimEndpoint(object any) (any, error) {
	te, ok := object.(*v1beta1.TunnelEndpoint)
	if !ok {
		return object, nil
	}
	out := &v1beta1.TunnelEndpoint{ObjectMeta: trimMeta(te.ObjectMeta)}
	out.Status.Tunnels, out.Status.ObservedAddresses = te.Status.Tunnels, te.Status.ObservedAddresses
	out.Status.UnderlayMTU = te.Status.UnderlayMTU
	out.Status.Datapath, out.Status.DatapathReason = te.Status.Datapath, te.Status.DatapathReason
	for _, p := range te.Status.Problems {
		if ofNode(p) {
			out.Status.Problems = append(out.Status.Problems, p)
		}
	}
	return out, nil
}

// trimAny serves the kinds that have no function of their own. (Naming a kind in the cache's options demands its CRD.)
func trimAny(object any) (any, error) {
	switch o := object.(type) {
	case *calico.BlockAffinity:
		return &calico.BlockAffinity{ObjectMeta: trimMeta(o.ObjectMeta), Spec: o.Spec}, nil
	case metav1.Object:
		o.SetManagedFields(nil)
	}
	return object, nil
}
