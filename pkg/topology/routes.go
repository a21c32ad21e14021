package topology

import (
	"cmp"
	"net/netip"
	"slices"
)

// fillPrefixes plans what leads where: the other regions' prefixes, and on the gateway those of its own members for
// what comes out of a tunnel. Where there is no way to a region its prefixes are unreachable: packets for another
// region must never leave in the clear by the default route.
func (p *projection) fillPrefixes() {
	total := 0
	for _, n := range p.nodes {
		total += n.routes
	}
	p.plan.Prefixes = make([]Prefix, 0, total)
	for _, w := range p.ways {
		p.fillRegion(w)
	}
	if p.plan.Role == RoleGateway {
		for _, n := range p.home.nodes {
			if n != p.self {
				p.fillMember(n)
			}
		}
	}
	if len(p.plan.Prefixes) == 0 {
		p.plan.Prefixes = nil
	}
	slices.SortFunc(p.plan.Prefixes, func(a, b Prefix) int {
		return cmp.Or(a.Prefix.Compare(b.Prefix), cmp.Compare(a.Scope, b.Scope))
	})
	slices.SortFunc(p.plan.NextHops, func(a, b NextHop) int { return cmp.Compare(a.ID, b.ID) })
	if p.plan.Tunnel != nil {
		for i := range p.plan.Tunnel.Peers {
			slices.SortFunc(p.plan.Tunnel.Peers[i].Prefixes, netip.Prefix.Compare)
		}
	}
}

// fillRegion adds the prefixes of another region.
func (p *projection) fillRegion(w way) {
	prefixes := p.reachable(w.far)
	if len(prefixes) == 0 {
		p.addRelay(w, nil)
		return
	}
	id := "region/" + w.far.name
	switch {
	case p.home.active == nil || !p.self.underlay.IsValid():
		p.add(prefixes, ScopeRemote, NextHop{ID: id, Kind: KindUnreachable})
	case p.plan.Role == RoleMember:
		p.addNeighbour(prefixes, ScopeRemote, id, p.home.active, p.farHop(w))
	case w.via == nil:
		p.add(prefixes, ScopeRemote, NextHop{ID: id, Kind: KindUnreachable})
	default:
		mtu := p.routeMTU(p.tunnelHop(p.home, w.via, w.far), hasIPv6(prefixes))
		next := NextHop{ID: id, Kind: KindTunnel, Node: w.via.active.name, MTU: mtu}
		if p.config.Driver == DriverPlain {
			// Its device carries Ethernet frames, so the peer is a neighbour on it.
			next.Underlay, next.MAC = w.via.active.underlay, VTEPMAC(w.via.active.underlay)
		}
		p.add(prefixes, ScopeRemote, next)
		p.addRelay(w, prefixes)
	}
}

// farHop is the narrowest place beyond this region's gateway; without a limit where no way leads on from there.
func (p *projection) farHop(w way) hop {
	if w.via == nil {
		return hop{maxMTU, p.self}
	}
	return p.tunnelHop(p.home, w.via, w.far)
}

// addRelay hands a region's prefixes to the peer that leads there.
func (p *projection) addRelay(w way, prefixes []netip.Prefix) {
	if p.plan.Tunnel == nil || w.via == nil {
		return
	}
	peer := p.plan.Tunnel.peer(w.via.name)
	if peer == nil {
		return
	}
	peer.Prefixes = append(peer.Prefixes, prefixes...)
	if w.via != w.far {
		peer.Relays = append(peer.Relays, w.far.name)
	}
}

// fillMember adds, on a gateway, the prefixes of another node of the region.
func (p *projection) fillMember(n *node) {
	prefixes := n.routed
	if len(p.kept) > 0 {
		prefixes = slices.DeleteFunc(slices.Clone(prefixes), p.coversKept)
	}
	if len(prefixes) > 0 {
		p.addNeighbour(prefixes, ScopeInRegion, "node/"+n.name, n, hop{maxMTU, n})
	}
}

// addNeighbour adds prefixes that lead to another node of the region, over raven0 or, where this node is asked to and
// both have an address of the prefixes' family, straight over the link. beyond limits the rest of the way.
func (p *projection) addNeighbour(prefixes []netip.Prefix, scope Scope, id string, to *node, beyond hop) {
	if !p.local.Direct {
		p.add(prefixes, scope, p.overlayHop(id, to, beyond, hasIPv6(prefixes)))
		return
	}
	// A next hop has one address, so each family gets its own; the underlay's has the plain name.
	for _, ip6 := range []bool{false, true} {
		family := ofFamily(prefixes, ip6)
		if len(family) == 0 {
			continue
		}
		name := id
		if ip6 != p.self.underlay.Is6() {
			name += familySuffix(ip6)
		}
		own, address := p.self.underlayOf(ip6), to.underlayOf(ip6)
		if !own.IsValid() || !address.IsValid() {
			p.add(family, scope, p.overlayHop(name, to, beyond, ip6))
			continue
		}
		mtu := p.routeMTU(between(p.self, to, 0).least(beyond), ip6)
		p.add(family, scope, NextHop{ID: name, Kind: KindDirect, Node: to.name, Underlay: address, MTU: mtu})
	}
}

func (p *projection) overlayHop(id string, to *node, beyond hop, ip6 bool) NextHop {
	mtu := p.routeMTU(between(p.self, to, vxlanCost(to.underlay.Is6())).least(beyond), ip6)
	return NextHop{ID: id, Kind: KindOverlay, Node: to.name, Underlay: to.underlay, MAC: VTEPMAC(to.underlay), MTU: mtu}
}

func familySuffix(ip6 bool) string {
	if ip6 {
		return "/ipv6"
	}
	return "/ipv4"
}

func (p *projection) add(prefixes []netip.Prefix, scope Scope, next NextHop) {
	p.plan.NextHops = append(p.plan.NextHops, next)
	for _, prefix := range prefixes {
		p.plan.Prefixes = append(p.plan.Prefixes, Prefix{Prefix: prefix, Scope: scope, NextHop: next.ID})
	}
}

// reachable lists a region's prefixes without single addresses that this node must reach outside the tunnel.
func (p *projection) reachable(r *region) []netip.Prefix {
	size := 0
	for _, n := range r.nodes {
		size += n.routes
	}
	out := make([]netip.Prefix, 0, size)
	for _, n := range r.nodes {
		for _, prefix := range n.routed {
			if _, thrown := p.thrown[prefix.Addr()]; thrown && prefix.IsSingleIP() {
				p.problems.add(nodeObject(n.name), ReasonAddressThrown,
					"address %s stays outside the tunnels on node %s, which must reach that very address without them", prefix.Addr(), p.self.name)
				continue
			}
			if !p.coversKept(prefix) {
				out = append(out, prefix)
			}
		}
	}
	return out
}

// coversKept tells whether a route for the prefix would take the node's own pods away.
func (p *projection) coversKept(prefix netip.Prefix) bool {
	return slices.ContainsFunc(p.kept, func(own netip.Prefix) bool { return contains(prefix, own) })
}

func hasIPv6(prefixes []netip.Prefix) bool {
	return slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Addr().Is6() })
}

func ofFamily(prefixes []netip.Prefix, ip6 bool) []netip.Prefix {
	var out []netip.Prefix
	for _, p := range prefixes {
		if p.Addr().Is6() == ip6 {
			out = append(out, p)
		}
	}
	return out
}
