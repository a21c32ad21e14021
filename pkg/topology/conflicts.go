package topology

import (
	"net/netip"
)

// resolve decides which claims are routed, and fills every node's routed list.
//
// What means two things is left out on every node, but no more than that. A claim loses to one with more authority:
// service ranges before pod prefixes, these before node addresses, and the annotation's extra prefixes last. Among
// equals, the same prefix twice loses both times, and of two that contain one another the wider loses, since it claims
// what others hold. So the survivors of different nodes never overlap, and a single wrong prefix, however wide, costs
// itself alone: once out, it has no say over claims of less authority.
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
			out = n.claims(out)
		}
	}
	return out
}

// claims of a node. One that is left out of L3 still has its addresses, so that nobody else's packets may be sent there.
func (n *node) claims(out []claim) []claim {
	leftOut := !n.underlay.IsValid()
	if n.ip4.IsValid() && !n.shared4 {
		out = append(out, claim{prefix: hostPrefix(n.ip4), class: classAddress, node: n, out: leftOut})
	}
	if n.ip6.IsValid() && !n.shared6 {
		out = append(out, claim{prefix: hostPrefix(n.ip6), class: classAddress, node: n, out: leftOut})
	}
	if leftOut {
		return out
	}
	for _, p := range n.pods {
		if p != hostPrefix(n.ip4) && p != hostPrefix(n.ip6) {
			out = append(out, claim{prefix: p, class: classPod, node: n})
		}
	}
	for _, p := range n.extras {
		out = append(out, claim{prefix: p, class: classExtra, node: n})
	}
	return out
}

// putOut leaves out the claims of the group's class c for which others hold a rival, and tells whether there were any.
func (f *forest) putOut(g *group, c class, others []claim, relation func(a, b *claim) bool) (any bool) {
	if len(others) == 0 {
		return false
	}
	claims := f.of(g, c)
	for i := range claims {
		if r := rival(&claims[i], others, relation); r != nil {
			claims[i].out, any = true, true
			g.name(r)
		}
	}
	return any
}

// standing are the pod claims of a group that others must respect: all, in L3 or not, since the pods are there; but
// none of a prefix that is out because it covers what others hold.
func (f *forest) standing(g *group) []claim {
	if g.tooWide {
		return nil
	}
	return f.of(g, classPod)
}

func (m *model) settlePods(f *forest) {
	f.each(func(outer, inner *group) {
		f.putOut(inner, classPod, f.of(outer, classService), anyone)
		covers := f.putOut(outer, classPod, f.of(inner, classPod), otherNode)
		covers = f.putOut(outer, classPod, f.of(inner, classService), anyone) || covers
		switch {
		case outer != inner:
			outer.tooWide = outer.tooWide || covers
		case f.putOut(inner, classPod, f.of(inner, classAddress), otherNode):
			outer.tooWide = true // a pod prefix that is nothing but another node's address
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
		f.putOut(inner, classAddress, f.standing(outer), otherNode)
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
		f.putOut(inner, classExtra, f.standing(outer), otherNode)
		f.putOut(outer, classExtra, f.standing(inner), otherRegion)
		f.putOut(outer, classExtra, f.of(inner, classAddress), otherRegion)
		f.putOut(outer, classExtra, f.of(inner, classExtra), otherRegion)
		if outer == inner {
			f.putOut(inner, classExtra, f.of(outer, classAddress), otherNode)
			f.putOut(inner, classExtra, f.of(outer, classPod), otherNode)
		}
	})
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
		m.ipv6 = m.ipv6 || c.prefix.Addr().Is6()
		if c.node.routed == nil {
			n := c.node.routes
			c.node.routed, slab = slab[:0:n], slab[n:]
		}
		c.node.routed = append(c.node.routed, c.prefix)
	}
}

func (c *claim) routed() bool { return !c.out && c.class >= classPod }
