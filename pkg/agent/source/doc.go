// Package source delivers the cluster's objects to the planner, from a folder of manifests or from an API server.
package source
