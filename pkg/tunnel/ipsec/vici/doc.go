// Package vici speaks the Versatile IKE Control Interface, by which programs configure and watch strongSwan's charon:
// packets with a length in front on a Unix socket, which carry commands, their answers and events. The format is
// described in strongSwan's own documentation of the vici plugin.
package vici
