package topology

import "slices"

// maxNamed bounds how many claimants of each side a Conflict names: a prefix that covers everyone's is one mistake, and
// naming ten thousand victims helps nobody to find it.
const maxNamed = 16

// name remembers a rival for the report.
func (g *group) name(r *claim) {
	if len(g.conflict) < maxNamed && !slices.Contains(g.conflict, r) {
		g.conflict = append(g.conflict, r)
	}
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
	return append(out, nodeObject(c.node.name).String(), gatewayObject(c.node.region.name).String())
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
