package topology

import (
	"net"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// InternalIPs returns the first usable InternalIP of each family, as the kubelet lists its primary address first, and
// the texts that are no address that a host can have.
func InternalIPs(obj *corev1.Node) (ip4, ip6 netip.Addr, bad []string) {
	for i := range obj.Status.Addresses {
		a := &obj.Status.Addresses[i]
		if a.Type != corev1.NodeInternalIP {
			continue
		}
		ip, err := netip.ParseAddr(a.Address)
		switch ip = ip.Unmap(); {
		case err != nil || !isHostAddress(ip):
			bad = append(bad, a.Address)
		case ip.Is4() && !ip4.IsValid():
			ip4 = ip
		case ip.Is6() && !ip6.IsValid():
			ip6 = ip
		}
	}
	return ip4, ip6, bad
}

// readAddresses finds the node's addresses and reports unusable ones.
func (m *model) readAddresses(n *node) {
	var bad []string
	n.ip4, n.ip6, bad = InternalIPs(n.obj)
	for _, text := range bad {
		m.problems.add(nodeObject(n.name), ReasonMalformedAddress,
			"InternalIP %q is not an address that a host can have: correct the kubelet's --node-ip", text)
	}
	if !n.ip4.IsValid() && !n.ip6.IsValid() {
		m.problems.add(nodeObject(n.name), ReasonNoInternalIP,
			"the node has no usable InternalIP and is left out of L3: set the kubelet's --node-ip")
	}
}

// isHostAddress tells whether other hosts can send unicast packets to ip beyond their own link.
func isHostAddress(ip netip.Addr) bool {
	return ip.IsValid() && ip.Zone() == "" && !ip.IsUnspecified() && !ip.IsLoopback() && !ip.IsMulticast() &&
		!ip.IsLinkLocalUnicast() && ip != netip.AddrFrom4([4]byte{255, 255, 255, 255})
}

// addresses of the node, IPv4 first.
func (n *node) addresses() []netip.Addr {
	out := make([]netip.Addr, 0, 2)
	for _, a := range []netip.Addr{n.ip4, n.ip6} {
		if a.IsValid() {
			out = append(out, a)
		}
	}
	return out
}

// chooseUnderlays gives each node of the region its place in the overlay, or reports why it has none. A VXLAN device
// sends over one family, and each member talks with the gateway, so the gateway decides: IPv4 where it has it.
func (m *model) chooseUnderlays(r *region) {
	m.findSharedAddresses(r)
	if r.active != nil {
		r.underlay6 = !r.active.ip4.IsValid()
	}
	macs := make(map[[6]byte]*node)
	for _, n := range gatewayFirst(r) {
		if r.active == nil {
			n.underlay = n.anyUnderlay()
			continue
		}
		n.underlay = n.underlayOf(r.underlay6)
		if !n.underlay.IsValid() {
			m.reportNoUnderlay(r, n)
			continue
		}
		if !r.underlay6 {
			continue // unique addresses have unique MACs
		}
		mac := [6]byte(VTEPMAC(n.underlay))
		if other := macs[mac]; other != nil {
			m.problems.add(nodeObject(n.name), ReasonVTEPCollision,
				"address %s has the same VTEP MAC %s as %s of Node %s; the node is left out of L3: give it another address",
				n.underlay, net.HardwareAddr(mac[:]), other.underlay, other.name)
			n.underlay = netip.Addr{}
			continue
		}
		macs[mac] = n
	}
}

func (m *model) reportNoUnderlay(r *region, n *node) {
	if n.shared4 || n.shared6 || len(n.addresses()) == 0 {
		return // reported already
	}
	family := "IPv4"
	if r.underlay6 {
		family = "IPv6"
	}
	m.problems.add(nodeObject(n.name), ReasonNodeFamilyMismatch,
		"the node has no %s InternalIP, which the gateway %s of region %s needs to reach it; it is left out of L3: give it one",
		family, r.active.name, r.name)
}

// underlayOf the family; invalid where the node has no such address to itself.
func (n *node) underlayOf(ip6 bool) netip.Addr {
	switch {
	case ip6 && !n.shared6:
		return n.ip6
	case !ip6 && !n.shared4:
		return n.ip4
	default:
		return netip.Addr{}
	}
}

// anyUnderlay serves while the region has no gateway to choose the family.
func (n *node) anyUnderlay() netip.Addr {
	if a := n.underlayOf(false); a.IsValid() {
		return a
	}
	return n.underlayOf(true)
}

// findSharedAddresses looks for addresses that two nodes of the region have. The active gateway keeps its own, so that
// a stray Node object cannot cut a region off; among the others the first by name does.
func (m *model) findSharedAddresses(r *region) {
	owner := make(map[netip.Addr]*node, len(r.nodes))
	taken := func(n *node, a netip.Addr) bool {
		if !a.IsValid() {
			return false
		}
		first := owner[a]
		if first == nil {
			owner[a] = n
			return false
		}
		const advice = "delete the Node object that is stale, or give one of them another address"
		m.problems.add(nodeObject(n.name), ReasonDuplicateNodeIP,
			"InternalIP %s is also that of Node %s in region %s, which keeps it: %s", a, first.name, r.name, advice)
		m.problems.add(nodeObject(first.name), ReasonDuplicateNodeIP,
			"InternalIP %s is also that of Node %s in region %s, which is left out: %s", a, n.name, r.name, advice)
		return true
	}
	for _, n := range gatewayFirst(r) {
		n.shared4 = taken(n, n.ip4)
		n.shared6 = taken(n, n.ip6)
		n.addressOut = n.shared4 || n.shared6
	}
}

// gatewayFirst lists the region's nodes by name, but the active gateway before all others.
func gatewayFirst(r *region) []*node {
	if r.active == nil {
		return r.nodes
	}
	out := make([]*node, 0, len(r.nodes))
	out = append(out, r.active)
	for _, n := range r.nodes {
		if n != r.active {
			out = append(out, n)
		}
	}
	return out
}

// sortedAddrs sorts in place and removes duplicates; nil where nothing is left.
func sortedAddrs(in []netip.Addr) []netip.Addr {
	if len(in) == 0 {
		return nil
	}
	slices.SortFunc(in, netip.Addr.Compare)
	return slices.Compact(in)
}
