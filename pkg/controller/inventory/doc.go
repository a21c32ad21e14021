// Package inventory holds what the controller knows of the cluster, and tells which Gateways a change touches.
//
// Each Set or Delete takes one object as a watch delivered it and returns the names of the Gateways whose status may
// have to change for it, so that a change of one node costs one Gateway's work, not the cluster's. Objects that are
// handed in are kept and never changed.
package inventory
