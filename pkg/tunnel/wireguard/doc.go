// Package wireguard is the tunnel driver for WireGuard: the kernel's device, or where the kernel has none, the embedded
// userspace device in a process of its own that outlives the agent.
package wireguard
