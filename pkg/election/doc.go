// Package election decides which nodes of a region hold its tunnels and its proxies; it is pure, so time comes in as
// input.
package election
