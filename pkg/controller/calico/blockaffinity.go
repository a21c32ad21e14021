// Package calico reads what Calico's address manager assigned to nodes.
package calico

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// GroupVersion of Calico's CRDs.
var GroupVersion = schema.GroupVersion{Group: "crd.projectcalico.org", Version: "v1"}

// BlockAffinity is a prefix of pod addresses that belongs to a node; only the fields that Raven reads.
type BlockAffinity struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec BlockAffinitySpec `json:"spec,omitempty"`
}

// BlockAffinitySpec says which node has which prefix.
type BlockAffinitySpec struct {
	Node string `json:"node,omitempty"`
	CIDR string `json:"cidr,omitempty"`
	// State is pending, confirmed or pendingDeletion.
	State string `json:"state,omitempty"`
	// Deleted is "true" in an object that stands for none; Calico's type is a string.
	Deleted string `json:"deleted,omitempty"`
}

// Confirmed tells whether the prefix is in use.
func (b *BlockAffinity) Confirmed() bool {
	return b.Spec.State == "confirmed" && b.Spec.Deleted != "true"
}

// BlockAffinityList is a list of BlockAffinities.
type BlockAffinityList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []BlockAffinity `json:"items"`
}

// DeepCopyObject implements runtime.Object.
func (b *BlockAffinity) DeepCopyObject() runtime.Object {
	out := &BlockAffinity{TypeMeta: b.TypeMeta, Spec: b.Spec}
	b.ObjectMeta.DeepCopyInto(&out.ObjectMeta)
	return out
}

// DeepCopyObject implements runtime.Object.
func (l *BlockAffinityList) DeepCopyObject() runtime.Object {
	out := &BlockAffinityList{TypeMeta: l.TypeMeta, Items: make([]BlockAffinity, 0, len(l.Items))}
	l.ListMeta.DeepCopyInto(&out.ListMeta)
	for i := range l.Items {
		out.Items = append(out.Items, *l.Items[i].DeepCopyObject().(*BlockAffinity))
	}
	return out
}

// AddToScheme registers the types of this package.
func AddToScheme(s *runtime.Scheme) error {
	s.AddKnownTypes(GroupVersion, &BlockAffinity{}, &BlockAffinityList{})
	metav1.AddToGroupVersion(s, GroupVersion)
	return nil
}
