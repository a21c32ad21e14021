package v1beta1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// GroupVersion is raven.openyurt.io/v1beta1.
var GroupVersion = schema.GroupVersion{Group: "raven.openyurt.io", Version: "v1beta1"}

// AddToScheme registers the types of this package with a scheme.
func AddToScheme(s *runtime.Scheme) error {
	s.AddKnownTypes(GroupVersion, &Gateway{}, &GatewayList{}, &TunnelEndpoint{}, &TunnelEndpointList{})
	metav1.AddToGroupVersion(s, GroupVersion)
	return nil
}
