package services

import (
	"slices"
	"strings"
)

// DNSKey is the key of the ConfigMap edge-tunnel-nodes.
const DNSKey = "tunnel-nodes"

// Record is a node as DNS may tell it.
type Record struct {
	Name string
	// Address is the node's own; empty: it has none.
	Address string
	// Exposed: the node is in the region of an exposed Gateway.
	Exposed bool
}

// Hosts writes the lines of a hosts file, sorted. With the proxy's address given, nodes outside the exposed Gateways'
// regions have that one; with none, every node has its own.
func Hosts(nodes []Record, proxy string) string {
	lines := make([]string, 0, len(nodes))
	for _, n := range nodes {
		address := n.Address
		if proxy != "" && !n.Exposed {
			address = proxy
		}
		if address != "" {
			lines = append(lines, address+"\t"+n.Name+"\n")
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "")
}
