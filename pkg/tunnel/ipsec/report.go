package ipsec

import (
	"net/netip"
	"time"
)

// Report is the daemon's word about everything.
type Report struct {
	// Problem says why charon does not run or does not answer; empty: it does.
	Problem string `json:"problem,omitempty"`
	// Restarts counts how often charon had to be started again.
	Restarts int `json:"restarts"`
	// ESP is what encrypts: ESPKernel or ESPUserspace.
	ESP ESP `json:"esp"`
	// Peers by node.
	Peers map[string]PeerReport `json:"peers"`
}

// PeerReport is how one peer is.
type PeerReport struct {
	// Up: traffic can flow.
	Up bool `json:"up"`
	// Waiting: the peer has to dial, and does not at the moment.
	Waiting bool `json:"waiting"`
	// Endpoint is where its packets come from; invalid where nothing runs.
	Endpoint netip.AddrPort `json:"endpoint,omitzero"`
	// Established is when the two agreed on their keys last.
	Established time.Time `json:"established,omitzero"`
	// RxBytes and TxBytes of inner packets.
	RxBytes uint64 `json:"rxBytes"`
	TxBytes uint64 `json:"txBytes"`
	// Cause is why it is not up, where charon said so.
	Cause string `json:"cause,omitempty"`
}
