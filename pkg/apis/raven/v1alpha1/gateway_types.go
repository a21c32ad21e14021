package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/ravencni/raven/pkg/apis/raven/v1beta1"
)

// GroupVersion is raven.openyurt.io/v1alpha1.
var GroupVersion = schema.GroupVersion{Group: "raven.openyurt.io", Version: "v1alpha1"}

// Gateway has the same fields as v1beta1.Gateway.
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster,shortName=gw
// +kubebuilder:subresource:status
// +kubebuilder:printcolumn:name="Exposed",type=string,JSONPath=`.spec.exposeType`,description="How other regions reach this gateway; empty: it dials out"
// +kubebuilder:printcolumn:name="Tunnel node",type=string,JSONPath=`.status.activeEndpoint.nodeName`,description="The active tunnel endpoint"
// +kubebuilder:printcolumn:name="Public IP",type=string,JSONPath=`.status.activeEndpoint.publicIP`,priority=1,description="The address at which the active tunnel endpoint is seen"
// +kubebuilder:printcolumn:name="Nodes",type=integer,JSONPath=`.status.nodeCount`,description="Member nodes, ready or not"
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`,priority=1
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type Gateway struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   v1beta1.GatewaySpec   `json:"spec,omitempty"`
	Status v1beta1.GatewayStatus `json:"status,omitempty"`
}

// GatewayList is a list of Gateways.
// +kubebuilder:object:root=true
type GatewayList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Gateway `json:"items"`
}

// AddToScheme registers the types of this package with a scheme.
func AddToScheme(s *runtime.Scheme) error {
	s.AddKnownTypes(GroupVersion, &Gateway{}, &GatewayList{})
	metav1.AddToGroupVersion(s, GroupVersion)
	return nil
}
