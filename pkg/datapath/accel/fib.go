package accel

import (
	"net/netip"

	"github.com/ravencni/raven/pkg/topology"
)

// leaf is what a prefix should say: a scope and, for remote and in-region ones, a next hop by ID.
type leaf struct {
	scope   scope
	nexthop string
}

// holePrefix makes the IDs of next hops that stand for "the main table decides"; no planned ID begins like it.
const holePrefix = "throw/"

// fibOf renders the plan's prefixes, and adds to nexthops what the holes among them need. Prefixes whose next hop is not
// in nexthops are left out.
//
// A host of Plan.Throws inside a remote prefix falls through to the main table; its entry has a next hop that is never
// healthy, so that packets to it take the stack, and has the device of the prefix around it, so that packets from it are
// judged as the others of that prefix are.
func fibOf(plan *topology.Plan, nexthops map[string]nexthop) map[netip.Prefix]leaf {
	out := make(map[netip.Prefix]leaf, len(plan.Prefixes)+len(plan.LocalPrefixes)+2)
	var lengths [2][129]bool // by family
	for _, p := range plan.Prefixes {
		if _, ok := nexthops[p.NextHop]; !ok {
			continue
		}
		l := leaf{scope: scopeRemote, nexthop: p.NextHop}
		if p.Scope == topology.ScopeInRegion {
			l.scope = scopeInRegion
		}
		out[p.Prefix.Masked()] = l
		lengths[family(p.Prefix.Addr())][p.Prefix.Bits()] = true
	}
	for _, host := range plan.Throws {
		around, ok := longest(out, host, &lengths[family(host)])
		if !ok || around.scope != scopeRemote {
			continue
		}
		id := holePrefix + around.nexthop
		hole := nexthops[around.nexthop]
		hole.Flags &^= nexthopHealthy
		nexthops[id] = hole
		out[netip.PrefixFrom(host, host.BitLen())] = leaf{scope: scopeRemote, nexthop: id}
	}
	for _, p := range plan.LocalPrefixes {
		out[p.Masked()] = leaf{scope: scopeLocal}
	}
	for _, host := range []netip.Addr{plan.NodeIP4, plan.NodeIP6} {
		if host.IsValid() {
			out[netip.PrefixFrom(host, host.BitLen())] = leaf{scope: scopeHost}
		}
	}
	return out
}

// longest finds the longest prefix that holds addr. The lengths in use are few.
func longest(fib map[netip.Prefix]leaf, addr netip.Addr, lengths *[129]bool) (leaf, bool) {
	for bits := addr.BitLen(); bits >= 0; bits-- {
		if !lengths[bits] {
			continue
		}
		if l, ok := fib[netip.PrefixFrom(addr, bits).Masked()]; ok {
			return l, true
		}
	}
	return leaf{}, false
}

func family(a netip.Addr) int {
	if a.Is4() {
		return 0
	}
	return 1
}

// split renders the FIB's entries for the two maps. Prefixes whose next hop has no slot are left out.
func split(fib map[netip.Prefix]leaf, slot map[string]uint32) (map[fib4Key]fibEntry, map[fib6Key]fibEntry) {
	four, six := make(map[fib4Key]fibEntry, len(fib)), make(map[fib6Key]fibEntry)
	for p, l := range fib {
		e := fibEntry{Scope: l.scope}
		if l.nexthop != "" {
			s, ok := slot[l.nexthop]
			if !ok {
				continue
			}
			e.Nexthop = s
		}
		if p.Addr().Is4() {
			four[fib4Key{Prefixlen: uint32(p.Bits()), Addr: p.Addr().As4()}] = e
		} else {
			six[fib6Key{Prefixlen: uint32(p.Bits()), Addr: p.Addr().As16()}] = e
		}
	}
	return four, six
}
