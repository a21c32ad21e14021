// Package v1alpha1 is the older served version of the raven.openyurt.io API. Its schema is the very same superset as
// v1beta1's, since users' manifests mix the two.
//
// +kubebuilder:object:generate=true
// +groupName=raven.openyurt.io
package v1alpha1
