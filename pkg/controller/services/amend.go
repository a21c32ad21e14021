package services

import (
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Amend changes of a Service what differs from the wanted one, leaves alone what is not ours (its addresses and node
// ports, others' labels and annotations), and tells whether anything differed.
func Amend(have, want *corev1.Service) bool {
	before := have.DeepCopy()
	amendMeta(&have.ObjectMeta, &want.ObjectMeta)
	have.Spec.Type, have.Spec.Selector = want.Spec.Type, nil
	if want.Spec.ExternalTrafficPolicy != "" {
		have.Spec.ExternalTrafficPolicy = want.Spec.ExternalTrafficPolicy
	}
	ports := slices.Clone(want.Spec.Ports)
	for i := range ports {
		for _, old := range before.Spec.Ports {
			if old.Name == ports[i].Name {
				ports[i].NodePort, ports[i].AppProtocol = old.NodePort, old.AppProtocol
			}
		}
	}
	have.Spec.Ports = ports
	return !equality.Semantic.DeepEqual(before, have)
}

// AmendSlice does the same with an EndpointSlice.
func AmendSlice(have, want *discoveryv1.EndpointSlice) bool {
	before := have.DeepCopy()
	amendMeta(&have.ObjectMeta, &want.ObjectMeta)
	have.Endpoints, have.Ports = want.Endpoints, want.Ports
	return !equality.Semantic.DeepEqual(before, have)
}

func amendMeta(have, want *metav1.ObjectMeta) {
	if have.Labels == nil {
		have.Labels = map[string]string{}
	}
	maps.Copy(have.Labels, want.Labels)
	if have.Annotations == nil {
		have.Annotations = map[string]string{}
	}
	maps.Copy(have.Annotations, want.Annotations)
	if len(want.OwnerReferences) > 0 {
		have.OwnerReferences = want.OwnerReferences
	}
}
