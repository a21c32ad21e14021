// Package agent is the node daemon's wiring: it takes the cluster's objects from a source, has the planner make a Plan
// of them, brings kernel and tunnels to that Plan, and reports how it went.
package agent
