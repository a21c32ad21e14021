// Package controller runs the control plane: it elects each Gateway's active endpoints, explains the outcome in its
// status, keeps the proxy's Services and DNS records, and removes what deleted nodes left behind.
//
// The feed fills the inventory from watches and queues the Gateways that a change touches. The gateway reconciler works
// out one Gateway's status from the inventory by the pure package election and writes it only where it differs. What
// needs a look at the whole cluster (conflicts of addresses) is worked out apart, at most once in a while.
package controller
