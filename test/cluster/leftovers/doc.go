// Package leftovers kills the owner of a control plane and looks for what it leaves: a package of its own, since it starts
// further control planes, so that it runs beside others.
package leftovers
