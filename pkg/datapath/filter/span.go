package filter

import (
	"net/netip"
	"slices"

	"github.com/ravencni/raven/pkg/topology"
)

// span is a range of addresses of one family, both ends included.
type span struct{ first, last netip.Addr }

func (s span) compare(o span) int {
	if c := s.first.Compare(o.first); c != 0 {
		return c
	}
	return s.last.Compare(o.last)
}

// owner says whose an address is.
type owner int

const (
	ownerRemote owner = iota
	ownerInRegion
	ownerLocal
)

// claim is a prefix and whose it is.
type claim struct {
	prefix netip.Prefix
	owner  owner
}

// claims lists the prefixes of a plan. Where one prefix has two owners the nearer one stands: the planner leaves such
// prefixes out as conflicts, so this only keeps the sets disjoint whatever comes in.
func claims(plan *topology.Plan) []claim {
	nearest := make(map[netip.Prefix]owner, len(plan.Prefixes)+len(plan.LocalPrefixes))
	add := func(p netip.Prefix, o owner) {
		if !p.IsValid() {
			return
		}
		p = p.Masked()
		if old, ok := nearest[p]; !ok || o > old {
			nearest[p] = o
		}
	}
	for _, p := range plan.Prefixes {
		if p.Scope == topology.ScopeInRegion {
			add(p.Prefix, ownerInRegion)
		} else {
			add(p.Prefix, ownerRemote)
		}
	}
	for _, p := range plan.LocalPrefixes {
		add(p, ownerLocal)
	}
	out := make([]claim, 0, len(nearest))
	for p, o := range nearest {
		out = append(out, claim{p, o})
	}
	return out
}

// flatten turns prefixes, which may lie in one another, into disjoint spans by owner, so that a look-up in the spans
// gives what a longest-prefix match over the prefixes gives. Neighbouring spans are not merged: one more prefix is then
// one more span, and not a change of others. The input is reordered.
func flatten(cs []claim) map[owner][]span {
	slices.SortFunc(cs, func(a, b claim) int {
		if c := a.prefix.Addr().Compare(b.prefix.Addr()); c != 0 {
			return c
		}
		return a.prefix.Bits() - b.prefix.Bits()
	})
	out := make(map[owner][]span)
	// open holds the prefixes that contain the current one, outermost first, each of another owner than the next; from is
	// where the part of it that is not yet given out begins, and is invalid once nothing is left.
	type entry struct {
		claim
		from netip.Addr
	}
	var open []entry
	emit := func(e *entry, last netip.Addr) {
		if e.from.IsValid() && !last.Less(e.from) {
			out[e.owner] = append(out[e.owner], span{e.from, last})
		}
	}
	closeTop := func() {
		top := &open[len(open)-1]
		last := lastAddr(top.prefix)
		emit(top, last)
		open = open[:len(open)-1]
		if len(open) > 0 {
			open[len(open)-1].from = last.Next()
		}
	}
	for _, c := range cs {
		for len(open) > 0 && !open[len(open)-1].prefix.Overlaps(c.prefix) {
			closeTop()
		}
		if len(open) > 0 {
			parent := &open[len(open)-1]
			if parent.owner == c.owner {
				continue // covered
			}
			if first := c.prefix.Addr(); parent.from.Less(first) {
				emit(parent, first.Prev())
			}
		}
		open = append(open, entry{c, c.prefix.Addr()})
	}
	for len(open) > 0 {
		closeTop()
	}
	for o := range out {
		slices.SortFunc(out[o], span.compare)
	}
	return out
}

// lastAddr is the highest address of a prefix.
func lastAddr(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := range b {
		switch keep := p.Bits() - 8*i; {
		case keep <= 0:
			b[i] = 0xff
		case keep < 8:
			b[i] |= 0xff >> keep
		}
	}
	a, _ := netip.AddrFromSlice(b) // 4 or 16 bytes, as they came
	return a
}
