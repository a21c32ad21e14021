// Package filter keeps the nft table "inet raven", and the few rules that must stand in the host's own FORWARD and INPUT
// chains, as the Plan wants them: admission, transit without conntrack, NAT exemption and the MSS clamp.
package filter
