package filter

import (
	"github.com/google/nftables"
)

// masqueradeMark is the bit by which kube-proxy asks for a masquerade (its default --iptables-masquerade-bit, 14).
const masqueradeMark = 1 << 14

// postrouting finds the SYNs, on forwarded and own connections alike.
func (r roles) postrouting() chainSpec {
	c := chainSpec{name: "postrouting", kind: nftables.ChainTypeFilter, hook: nftables.ChainHookPostrouting, priority: *nftables.ChainPriorityMangle}
	c.add("", tcpSYN(), goTo("clamp"))
	return c
}

// clamp lowers the MSS of connections between regions, in both directions: the routes of table 9027 carry the MTU, and
// the kernel takes the smaller one of the routes to the destination and back to the source.
func (r roles) clamp() chainSpec {
	c := chainSpec{name: "clamp"}
	for _, d := range r.devices() {
		c.add("", oifIs(d), clampMSS())
		c.add("", iifIs(d), clampMSS())
	}
	if r.direct {
		for _, f := range []family{family4, family6} {
			c.add("", f.is(), f.dstIn(setRemote), clampMSS())
			c.add("", f.is(), f.srcIn(setRemote), clampMSS())
		}
	}
	return c
}

// nat comes just before srcnat (100), where kube-proxy and CNIs masquerade; conntrack asks it once per connection.
func (r roles) nat() chainSpec {
	c := chainSpec{name: "nat", kind: nftables.ChainTypeNAT, hook: nftables.ChainHookPostrouting, priority: *nftables.ChainPriorityNATSource - 1}
	for _, d := range r.devices() {
		c.add("", oifIs(d), goTo("keep_source"))
		c.add("", iifIs(d), goTo("keep_source"))
	}
	if r.direct {
		for _, f := range []family{family4, family6} {
			c.add("", f.is(), f.dstIn(setRemote), oifInUnderlays(), goTo("keep_source"))
			c.add("", f.is(), f.srcIn(setRemote), iifInUnderlays(false), goTo("keep_source"))
		}
	}
	return c
}

// lastNAT comes just after srcnat, when nobody has translated: what this host sends by Raven's devices from another of
// its addresses, such as one that was chosen for a Service's address by the default route of a second card, leaves as
// the node that the regions know. Any other source would be refused there.
func (r roles) lastNAT() chainSpec {
	c := chainSpec{name: "last_nat", kind: nftables.ChainTypeNAT, hook: nftables.ChainHookPostrouting, priority: *nftables.ChainPriorityNATSource + 1}
	for _, a := range r.nodes {
		f := family4
		if a.Is6() {
			f = family6
		}
		for _, d := range r.devices() {
			c.add("this node by another address", oifIs(d), f.is(), ownSource(), f.sourceBecomes(a))
		}
		if r.direct {
			c.add("this node by another address", f.is(), f.dstIn(setRemote), oifInUnderlays(), ownSource(), f.sourceBecomes(a))
		}
	}
	return c
}

// keepSource keeps the source of what is planned, unless kube-proxy needs the masquerade, as a NodePort does.
func (r roles) keepSource() chainSpec {
	c := chainSpec{name: "keep_source"}
	c.add("kube-proxy wants a masquerade", markHas(masqueradeMark), accept())
	for _, f := range []family{family4, family6} {
		for _, set := range []string{setLocal, setRemote, setInRegion} {
			c.add("", f.is(), f.srcIn(set), f.keepSource())
		}
		for _, a := range r.nodes {
			if a.Is4() == (f.suffix == "4") {
				c.add("this node", f.is(), f.srcIs(a), f.keepSource())
			}
		}
	}
	return c
}
