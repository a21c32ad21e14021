// Package v1beta1 holds the storage version of the raven.openyurt.io API.
//
// v1alpha1 is served beside it with the very same schema (conversion strategy None), so reading or writing through
// either version loses nothing.
//
// +kubebuilder:object:generate=true
// +groupName=raven.openyurt.io
package v1beta1
