package topology

import (
	"net/netip"
	"slices"
)

// maxNamed bounds how many claimants of each side a Conflict names: a prefix that covers everyone's is one mistake, and
// naming ten thousand victims helps nobody to find it.
const maxNamed = 16

// resolve decides which claims are routed, and fills every node's routed list.
//
// What means two things is left out on every node, but no more than that. A claim loses to one with more authority:
// service ranges before pod prefixes, these before node addresses, and the annotation's extra prefixes last. Among
// equals, the same prefix twice loses both times, and of two that contain one another the wider loses, since it claims
// what others hold. So the survivors of different nodes never overlap, and a single wrong prefix, however wide, costs
// itself alone. A claim that is out already does not put others out, except that a node's address marks its network as
// used whether it is routed or not.
func (m *model) resolve() {
	f := newForest(m.claims())
	m.settleOuter(f)
	m.settlePods(f)
	m.settleAddresses(f)
	m.settleExtras(f)
	m.reportConflicts(f)
	m.fillRouted(f)
}

// claims lists everything that the nodes in L3 want to be reached at.
func (m *model) claims() []claim {
	size := len(m.config.ServiceCIDRs)
	for _, r := range m.regions {
		size += len(r.end.outer)
		for _, n := range r.nodes {
			size += len(n.pods) + len(n.extras) + 2
		}
	}
	out := make([]claim, 0, size)
	for _, p := range m.config.ServiceCIDRs {
		out = append(out, claim{prefix: p, class: classService})
	}
	for _, r := range m.regions {
		for _, a := range r.end.outer {
			out = append(out, claim{prefix: hostPrefix(a), class: classOuter, node: r.active})
		}
		for _, n := range r.nodes {
			if n.underlay.IsValid() {
				out = n.claims(out)
			}
		}
	}
	return out
}

func (n *node) claims(out []claim) []claim {
	if n.ip4.IsValid() && !n.shared4 {
		out = append(out, claim{prefix: hostPrefix(n.ip4), class: classAddress, node: n})
	}
	if n.ip6.IsValid() && !n.shared6 {
		out = append(out, claim{prefix: hostPrefix(n.ip6), class: classAddress, node: n})
	}
	for _, p := range n.pods {
		if n.hasFamily(p) {
			out = append(out, claim{prefix: p, class: classPod, node: n})
		}
	}
	for _, p := range n.extras {
		if n.hasFamily(p) {
			out = append(out, claim{prefix: p, class: classExtra, node: n})
		}
	}
	return out
}

// putOut leaves out the claims of the group's class c for which others hold a rival.
func (f *forest) putOut(g *group, c class, others []claim, relation func(a, b *claim) bool) {
	if len(others) == 0 {
		return
	}
	claims := f.of(g, c)
	for i := range claims {
		if r := rival(&claims[i], others, relation); r != nil {
			claims[i].out = true
			g.name(r)
		}
	}
}

// name remembers a rival for the report.
func (g *group) name(r *claim) {
	if len(g.conflict) < maxNamed && !slices.Contains(g.conflict, r) {
		g.conflict = append(g.conflict, r)
	}
}

// survivors of a class in a group. A class of one group is out as a whole or in part: where several nodes claim the
// same prefix all are out, so that at most one remains.
func (f *forest) survivors(g *group, c class) []claim {
	claims := f.of(g, c)
	if len(claims) == 1 && !claims[0].out {
		return claims
	}
	return nil
}

func (m *model) settlePods(f *forest) {
	f.each(func(outer, inner *group) {
		f.putOut(inner, classPod, f.of(outer, classService), anyone)
		f.putOut(outer, classPod, f.of(inner, classPod), otherNode)
		if outer != inner {
			f.putOut(outer, classPod, f.of(inner, classService), anyone)
		}
	})
}

func (m *model) settleAddresses(f *forest) {
	if !m.config.ForwardNodeIP {
		for i := range f.claims {
			if c := &f.claims[i]; c.class == classAddress {
				c.out = true
				c.node.addressOut = true
			}
		}
		return
	}
	f.each(func(outer, inner *group) {
		f.putOut(inner, classAddress, f.of(outer, classService), anyone)
		f.putOut(inner, classAddress, f.survivors(outer, classPod), otherNode)
		if outer == inner {
			f.putOut(inner, classAddress, f.of(outer, classAddress), otherNode)
		}
	})
	for i := range f.claims {
		if c := &f.claims[i]; c.class == classAddress && c.out {
			c.node.addressOut = true
		}
	}
}

// settleOuter takes single addresses that tunnel packets go to out of the tunnels: a packet to such an address would
// be wrapped into another one to the same address. Wider prefixes stay, since a throw route exempts the one address.
func (m *model) settleOuter(f *forest) {
	for i := range f.groups {
		g := &f.groups[i]
		outer := f.of(g, classOuter)
		if len(outer) == 0 {
			continue
		}
		for c := classPod; c < classes; c++ {
			inner := f.of(g, c)
			for k := range inner {
				inner[k].out = true
				m.problems.add(nodeObject(inner[k].node.name), ReasonAddressIsTunnelEndpoint,
					"address %s is where tunnel packets to region %s go, so it cannot be reached through a tunnel: if that gateway is behind a NAT set underNAT: true, else use the node's pod addresses",
					g.prefix.Addr(), outer[0].node.region.name)
			}
		}
	}
}

func (m *model) settleExtras(f *forest) {
	f.each(func(outer, inner *group) {
		f.putOut(inner, classExtra, f.of(outer, classService), anyone)
		f.putOut(outer, classExtra, f.of(inner, classService), anyone)
		// Of its own region a gateway may announce a summary, but not what another node holds.
		f.putOut(inner, classExtra, f.survivors(outer, classPod), otherNode)
		f.putOut(outer, classExtra, f.survivors(inner, classPod), otherRegion)
		f.putOut(outer, classExtra, f.of(inner, classAddress), otherRegion)
		f.putOut(outer, classExtra, f.of(inner, classExtra), otherRegion)
		if outer == inner {
			f.putOut(inner, classExtra, f.of(outer, classAddress), otherNode)
		}
	})
}

// reportConflicts makes a Conflict of each group with rivals and a Problem of each claim that lost.
func (m *model) reportConflicts(f *forest) {
	for i := range f.groups {
		g := &f.groups[i]
		if len(g.conflict) == 0 {
			continue
		}
		objects := make([]string, 0, 4)
		named := 0
		for k := g.bounds[classPod]; k < g.bounds[classes]; k++ {
			c := &f.claims[k]
			if !c.out {
				continue
			}
			m.reportClaim(g, c)
			if named++; named <= maxNamed {
				objects = c.objects(objects)
			}
		}
		for _, r := range g.conflict {
			objects = r.objects(objects)
		}
		slices.Sort(objects)
		m.conflicts = append(m.conflicts, Conflict{Prefix: g.prefix, Objects: slices.Compact(objects)})
	}
}

// objects appends the names of those who make the claim.
func (c *claim) objects(out []string) []string {
	if c.node == nil {
		return append(out, serviceObject)
	}
	return append(out, nodeObject(c.node.name), gatewayObject(c.node.region.name))
}

func (m *model) reportClaim(g *group, c *claim) {
	other := g.conflict[0]
	if other == c && len(g.conflict) > 1 {
		other = g.conflict[1]
	}
	rivalName := "a service range of the cluster"
	if other.node != nil {
		rivalName = "Node " + other.node.name + " of region " + other.node.region.name
	}
	switch c.class {
	case classAddress:
		m.problems.add(nodeObject(c.node.name), ReasonAddressConflict,
			"address %s is left out of L3 everywhere: %s belongs to %s; reach the node by name through the proxy, or give one of them another address",
			c.prefix.Addr(), other.prefix, rivalName)
	case classExtra:
		m.problems.add(gatewayObject(c.node.region.name), ReasonSubnetConflict,
			"extra source prefix %s is left out of L3 everywhere: %s belongs to %s; correct the annotation", c.prefix, other.prefix, rivalName)
	default:
		m.problems.add(nodeObject(c.node.name), ReasonSubnetConflict,
			"pod prefix %s is left out of L3 everywhere: %s belongs to %s; give the node another one", c.prefix, other.prefix, rivalName)
	}
}

// fillRouted hands each node the prefixes that survived, in order, all out of one allocation.
func (m *model) fillRouted(f *forest) {
	total := 0
	for i := range f.claims {
		if c := &f.claims[i]; c.routed() {
			c.node.routes++
			total++
		}
	}
	slab := make([]netip.Prefix, total)
	for i := range f.claims {
		c := &f.claims[i]
		if !c.routed() {
			continue
		}
		if c.node.routed == nil {
			n := c.node.routes
			c.node.routed, slab = slab[:0:n], slab[n:]
		}
		c.node.routed = append(c.node.routed, c.prefix)
	}
}

func (c *claim) routed() bool { return !c.out && c.class >= classPod }
