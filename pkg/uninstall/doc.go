// Package uninstall takes Raven off every node of a cluster: it ends the agents and has each node run the agent's own
// cleanup, before the objects that would be needed for it are deleted.
package uninstall
