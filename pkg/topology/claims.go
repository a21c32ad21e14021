package topology

import (
	"cmp"
	"net/netip"
	"slices"
)

// class of a claim to addresses, by its authority: a claim gives way to one of a lower class.
type class uint8

const (
	// classService: a service range of the cluster.
	classService class = iota
	// classOuter: an address that packets of the tunnels themselves go to.
	classOuter
	// classPod: a node's pod prefix.
	classPod
	// classAddress: a node's own address.
	classAddress
	// classExtra: a prefix of the annotation extra-allowed-source-cidrs.
	classExtra
	classes
)

// claim says that a prefix leads to a node.
type claim struct {
	prefix netip.Prefix
	class  class
	// node is nil for services; for outer addresses it is the gateway that packets go to.
	node *node
	// out is true where the claim is left out of every Plan.
	out bool
}

// group is all claims to one prefix: forest.claims[from:to], ordered by class, then by region and node.
type group struct {
	prefix netip.Prefix
	// bounds of the classes: class c is claims[bounds[c]:bounds[c+1]].
	bounds [classes + 1]int32
	// parent is the index of the smallest group that contains this one; -1 for none.
	parent int32
	// tooWide is true where pod claims of this group are out because they cover what others hold.
	tooWide bool
	// conflict collects who else claims addresses of claims that are out.
	conflict []*claim
}

// forest orders claims by containment: prefixes contain one another or have nothing in common, so that sorting them
// by address and length and keeping a stack of open ones finds every overlap in O(n log n).
type forest struct {
	claims []claim
	groups []group
}

func newForest(claims []claim) *forest {
	slices.SortFunc(claims, compareClaims)
	f := &forest{claims: claims, groups: make([]group, 0, len(claims))}
	open := int32(-1)
	for i := 0; i < len(claims); {
		g := group{prefix: claims[i].prefix}
		g.bounds[0] = int32(i)
		for c := range classes {
			for i < len(claims) && claims[i].class == c && claims[i].prefix == g.prefix {
				i++
			}
			g.bounds[c+1] = int32(i)
		}
		for open >= 0 && !contains(f.groups[open].prefix, g.prefix) {
			open = f.groups[open].parent
		}
		g.parent = open
		f.groups = append(f.groups, g)
		open = int32(len(f.groups) - 1)
	}
	return f
}

func compareClaims(a, b claim) int {
	if c := a.prefix.Compare(b.prefix); c != 0 {
		return c
	}
	if c := cmp.Compare(a.class, b.class); c != 0 || a.node == nil || b.node == nil {
		return c
	}
	return cmp.Or(cmp.Compare(a.node.region.name, b.node.region.name), cmp.Compare(a.node.name, b.node.name))
}

func contains(wide, narrow netip.Prefix) bool {
	return wide.Bits() <= narrow.Bits() && wide.Contains(narrow.Addr())
}

// of returns the group's claims of a class.
func (f *forest) of(g *group, c class) []claim {
	return f.claims[g.bounds[c]:g.bounds[c+1]]
}

// each calls visit with every pair of groups of which outer contains inner, each group paired with itself as well.
func (f *forest) each(visit func(outer, inner *group)) {
	for i := range f.groups {
		inner := &f.groups[i]
		visit(inner, inner)
		for j := inner.parent; j >= 0; j = f.groups[j].parent {
			visit(&f.groups[j], inner)
		}
	}
}

// rival relations: whose claims a claim can conflict with.
func anyone(_, _ *claim) bool      { return true }
func otherNode(a, b *claim) bool   { return a.node != b.node }
func otherRegion(a, b *claim) bool { return a.node.region != b.node.region }

// rival finds a claim among others that stands in the way of c. Looking at the first and the last is enough: they are
// ordered by region and node, and a node claims a prefix once a class.
func rival(c *claim, others []claim, relation func(a, b *claim) bool) *claim {
	if len(others) == 0 {
		return nil
	}
	for _, o := range []*claim{&others[0], &others[len(others)-1]} {
		if relation(c, o) {
			return o
		}
	}
	return nil
}
