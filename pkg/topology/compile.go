package topology

import (
	"net/netip"
	"slices"
)

// Compile computes what the node named self should hold. It is pure: it reads no clock and no environment, changes
// nothing of its input, takes any input without panic, and gives deeply equal Plans for equal inputs, whatever the
// order of the objects. docs/design/planner.md explains its choices.
func Compile(state State, self string, local Local) *Plan {
	m := newModel(state)
	plan := &Plan{Node: self, Role: RoleNone}
	switch n := m.nodes[self]; {
	case n != nil && m.config.EnableTunnel:
		if local.UnderlayMTU > 0 {
			n.mtu = min(local.UnderlayMTU, maxMTU)
		}
		p := projection{model: m, self: n, home: n.region, local: local, plan: plan}
		p.fill()
	case self != "" && !m.exists(self):
		m.problems.add(nodeObject(self), ReasonNodeNotFound,
			"this node has no Node object, so it is in no region: check the agent's --node-name")
	}
	plan.Problems = m.problems.sorted()
	plan.Conflicts = m.conflicts
	return plan
}

func (m *model) exists(name string) bool {
	_, ok := m.known[name]
	return ok
}

// projection is the cluster seen from one node.
type projection struct {
	*model
	self  *node
	home  *region
	local Local
	plan  *Plan
	// ways to the other regions, sorted by region.
	ways []way
	// thrown are the addresses that this node reaches by its main table.
	thrown map[netip.Addr]struct{}
	// kept are own pod prefixes that are left out of L3: what covers one of them must not stand in Raven's tables here,
	// or the node would lose its own pods.
	kept []netip.Prefix
}

// way says how another region is reached.
type way struct {
	far *region
	// via is the region whose gateway is home's peer for it; nil: no way.
	via *region
}

func (p *projection) fill() {
	plan := p.plan
	plan.Region = p.home.name
	plan.NodeIP4, plan.NodeIP6 = p.self.ip4, p.self.ip6
	plan.NodeIPConflicts = p.self.addressOut
	plan.Role = RoleMember
	if p.home.active == p.self {
		plan.Role = RoleGateway
	}
	p.findWays()
	p.fillLocalPrefixes()
	p.fillOverlay()
	if plan.Role == RoleGateway {
		p.fillTunnel()
	}
	p.fillThrows()
	p.fillPrefixes()
}

func (p *projection) findWays() {
	p.ways = make([]way, 0, len(p.regions))
	var apart []string
	for _, r := range p.regions {
		if r == p.home {
			continue
		}
		w := way{far: r, via: p.via(p.home, r)}
		if w.via == nil && p.home.active != nil && r.end.usable {
			apart = append(apart, r.name)
		}
		p.ways = append(p.ways, w)
	}
	if len(apart) > 0 {
		p.problems.add(gatewayObject(p.home.name), ReasonNoRelay,
			"%d regions, %s the first, cannot be dialled either, and no exposed gateway relays to them: expose one with a publicIP",
			len(apart), apart[0])
	}
}

// fillLocalPrefixes lists all pod prefixes of the node, those left out of L3 included: its pods use them as sources
// whether other regions can answer or not. A single address that is left out is no range that pods live in, but more
// likely another host's.
func (p *projection) fillLocalPrefixes() {
	var local []netip.Prefix
	for _, pod := range p.self.pods {
		routed := slices.Contains(p.self.routed, pod)
		if !routed && pod.IsSingleIP() {
			continue
		}
		if !routed {
			p.kept = append(p.kept, pod)
		}
		local = append(local, pod)
	}
	for _, e := range p.self.extras {
		if slices.Contains(p.self.routed, e) {
			local = append(local, e)
		}
	}
	slices.SortFunc(local, netip.Prefix.Compare)
	p.plan.LocalPrefixes = local
}

// fillOverlay plans raven0. It stays while the region has no gateway, so that a lost election does not take the device
// away and bring it back; only its neighbours go.
func (p *projection) fillOverlay() {
	if !p.self.underlay.IsValid() {
		return
	}
	o := &Overlay{
		MTU:      p.deviceMTU(hop{p.self.mtu, p.self}.less(vxlanCost(p.self.underlay.Is6()))),
		MAC:      VTEPMAC(p.self.underlay),
		Underlay: p.self.underlay,
	}
	for _, n := range p.home.nodes {
		if n == p.self || !n.underlay.IsValid() {
			continue
		}
		if n.underlay.Is4() == p.self.underlay.Is4() {
			o.Members = append(o.Members, n.underlay)
		}
		if p.self == p.home.active || n == p.home.active {
			o.Neighbours = append(o.Neighbours, Neighbour{Node: n.name, Underlay: n.underlay, MAC: VTEPMAC(n.underlay)})
		}
	}
	o.Members = sortedAddrs(o.Members)
	p.plan.Overlay = o
}
