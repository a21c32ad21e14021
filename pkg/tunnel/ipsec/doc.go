// Package ipsec is the tunnel driver for IPsec. strongSwan's charon negotiates (IKEv2) and, where the kernel has no ESP,
// also encrypts, in a process of its own that outlives the agent: RunDaemon holds charon, keeps its connections as the
// driver wants them, and answers on a control socket.
package ipsec
