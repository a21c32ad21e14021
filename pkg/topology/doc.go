// Package topology is the pure planner: from the cluster's objects and the name of this node it computes one Plan,
// which routes, neighbours, tunnel peers, BPF maps and nft sets are all made from.
package topology
