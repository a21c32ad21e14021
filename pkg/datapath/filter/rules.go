package filter

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/google/nftables"

	"github.com/ravencni/raven/pkg/datapath"
	"github.com/ravencni/raven/pkg/topology"
)

// Names of the counters. Those of drops that the BPF programs make, too, are theirs (bpf/include/reasons.h); the programs
// pass what a foreign destination has to the stack, and so to this table.
const (
	CounterSpoofedSource      = "spoofed_source"
	CounterWrongRegionSource  = "wrong_region_source"
	CounterForeignDestination = "foreign_destination"
	CounterVXLANStranger      = "vxlan_stranger"
	CounterVXLANFromPod       = "vxlan_from_pod"
)

var counterNames = []string{
	CounterSpoofedSource, CounterWrongRegionSource, CounterForeignDestination, CounterVXLANStranger, CounterVXLANFromPod,
}

// ruleSpec is a rule as it should be. The comment is for people who list the table.
type ruleSpec struct {
	comment string
	exprs   match
}

// chainSpec is a chain as it should be; hook is nil for a chain that is only jumped to.
type chainSpec struct {
	name     string
	kind     nftables.ChainType
	hook     *nftables.ChainHook
	priority nftables.ChainPriority
	rules    []ruleSpec
}

func (c *chainSpec) add(comment string, parts ...match) {
	c.rules = append(c.rules, ruleSpec{comment, join(parts...)})
}

// roles is what the rules depend on; all else is in the sets.
type roles struct {
	overlay string   // raven0, or empty
	tunnels []string // tunnel devices, on a gateway; a * at the end stands for any rest
	perPeer []string // those of them that lead to one peer only, and that routes lead into
	gateway bool
	direct  bool // in-region packets may come and go by the underlay without VXLAN
	strict  bool // a local source must come from the device that its route names
	// nodes are this node's own addresses where they are planned, so that its own packets keep them.
	nodes []netip.Addr
}

func rolesOf(plan *topology.Plan, host datapath.Host, strict bool) roles {
	r := roles{gateway: plan.Role == topology.RoleGateway, strict: strict}
	if plan.Overlay != nil {
		r.overlay = datapath.OverlayDevice
	}
	if r.gateway {
		if host.Tunnel.Name != "" {
			r.tunnels = []string{host.Tunnel.Name}
		}
		for _, d := range host.TunnelPerPeer {
			// All by one pattern, so that the number of rules does not grow with the peers.
			if all := pattern(d.Name); !slices.Contains(r.perPeer, all) {
				r.perPeer = append(r.perPeer, all)
			}
		}
		r.tunnels = append(r.tunnels, r.perPeer...)
		for _, d := range host.Also {
			name := d.Name
			if d.Peer != "" {
				name = pattern(name)
			}
			if !slices.Contains(r.tunnels, name) {
				r.tunnels = append(r.tunnels, name)
			}
		}
		slices.Sort(r.tunnels) // whichever of two drivers the traffic goes by
	}
	r.direct = slices.ContainsFunc(plan.NextHops, func(n topology.NextHop) bool { return n.Kind == topology.KindDirect })
	for _, a := range []netip.Addr{plan.NodeIP4, plan.NodeIP6} {
		if a.IsValid() && !plan.NodeIPConflicts {
			r.nodes = append(r.nodes, a)
		}
	}
	return r
}

// pattern matches all devices that are named like one but for the number at the end.
func pattern(device string) string { return strings.TrimRight(device, "0123456789") + "*" }

// devices are Raven's own, in order.
func (r roles) devices() []string {
	if r.overlay == "" {
		return r.tunnels
	}
	return append([]string{r.overlay}, r.tunnels...)
}

// wantedChains makes the chains of the table. Which chains there are never changes, only their rules do. The order of
// rules is by cost: a packet that is not Raven's leaves prerouting after a comparison of ports, two of names and one
// look-up. (A match of the family costs next to nothing, and lets the nft tool print the addresses by name.)
func (r roles) wantedChains() []chainSpec {
	out := []chainSpec{
		r.prerouting(family4), r.outer(family4), r.fromOverlay(family4), r.fromTunnel(family4), r.toRemote(family4),
		r.prerouting(family6), r.outer(family6), r.fromOverlay(family6), r.fromTunnel(family6), r.toRemote(family6),
		r.innerRefused(), r.destinationRefused(), r.output(), r.input(), r.forward(), r.forwardedOuter(), r.translated(), r.postrouting(), r.clamp(), r.nat(), r.keepSource(), r.lastNAT(),
	}
	return out
}

// prerouting tells packets apart before conntrack sees them. IPv4's is the base chain and hands IPv6 over. VXLAN comes
// first, so that none is taken that another region sends through the tunnel to a node's address.
func (r roles) prerouting(f family) chainSpec {
	c := chainSpec{name: "prerouting" + f.suffix}
	if f.suffix == "4" {
		c = chainSpec{name: "prerouting", kind: nftables.ChainTypeFilter, hook: nftables.ChainHookPrerouting, priority: *nftables.ChainPriorityRaw}
		c.add("", family6.is(), goTo("prerouting6"))
	}
	c.add("", udpTo(datapath.OverlayPort), goTo("outer"+f.suffix))
	if r.overlay != "" {
		c.add("", iifIs(r.overlay), goTo("from_overlay"+f.suffix))
	}
	for _, t := range r.tunnels {
		c.add("", iifIs(t), goTo("from_tunnel"+f.suffix))
	}
	c.add("", f.is(), f.dstIn(setRemote), goTo("to_remote"+f.suffix))
	return c
}

// outer admits VXLAN from members of the region, by the devices that lead to them.
func (r roles) outer(f family) chainSpec {
	c := chainSpec{name: "outer" + f.suffix}
	c.add("VXLAN of the region needs no conntrack", iifInUnderlays(false), f.is(), f.srcIn(setMembers), notrackAccept())
	c.add("not a member of the region", iifInUnderlays(false), dropAs(CounterVXLANStranger))
	c.add("not a member of the region", iifIs("lo"), dropAs(CounterVXLANStranger))
	c.add("VXLAN made by a pod, here or in another region", dropAs(CounterVXLANFromPod))
	return c
}

// fromOverlay judges inner packets out of raven0: on a gateway they come from its region and go to others, on a member
// they come from other regions, or in the gateway's own name, where another region asked a NodePort of the gateway that leads to
// a pod of the member.
func (r roles) fromOverlay(f family) chainSpec {
	c := chainSpec{name: "from_overlay" + f.suffix}
	if r.gateway {
		c.add("", f.is(), f.srcNotIn(setInRegion), goTo("inner_refused"))
		c.add("transit: policy is decided at its ends", f.is(), f.dstIn(setRemote), notrackAccept())
	} else {
		c.add("", f.is(), f.srcIn(setRemote), accept())
		c.add("NodePort of the gateway, masqueraded", f.is(), f.srcIn(setMembers), accept())
		c.add("", goTo("inner_refused"))
	}
	return c
}

// fromTunnel judges packets out of a tunnel: they come from other regions, and go to this one, to this node itself (whose
// NodePorts are among its addresses) or on to another region. Whatever else they are for, this gateway is no router to
// it: a peer that was broken into gets no way into the LAN or the internet of this site.
func (r roles) fromTunnel(f family) chainSpec {
	c := chainSpec{name: "from_tunnel" + f.suffix}
	c.add("", f.is(), f.srcNotIn(setRemote), goTo("inner_refused"))
	for _, t := range r.perPeer {
		// A device that serves several peers knows what may come from each. Here the routes say it: they lead each prefix to
		// the one device of its peer.
		c.add("source of another peer", iifIs(t), notReverseDevice(), goTo("inner_refused"))
	}
	c.add("transit: policy is decided at its ends", f.is(), f.dstIn(setInRegion), notrackAccept())
	c.add("relay", f.is(), f.dstIn(setRemote), notrackAccept())
	c.add("pods of this node and extra sources", f.is(), f.dstIn(setLocal), accept())
	c.add("this node", ownDestination(), accept())
	c.add("", goTo("destination_refused"))
	return c
}

// innerRefused drops what came out of one of Raven's devices with a source that may not come from there. Packets of link
// scope (multicast reports that the kernel loops back, for one) stay on the link and carry nothing between regions.
func (r roles) innerRefused() chainSpec {
	c := chainSpec{name: "inner_refused"}
	c.addLinkScope()
	c.add("source may not come from this device", dropAs(CounterWrongRegionSource))
	return c
}

// destinationRefused drops what came out of a tunnel for a destination that the plan does not lead to by this node.
func (r roles) destinationRefused() chainSpec {
	c := chainSpec{name: "destination_refused"}
	c.addLinkScope()
	c.add("no router for other regions", dropAs(CounterForeignDestination))
	return c
}

// addLinkScope accepts packets of link scope.
func (c *chainSpec) addLinkScope() {
	c.add("link scope", family4.is(), family4.dstWithin(netip.MustParsePrefix("224.0.0.0/4")), accept())
	c.add("link scope", family6.is(), family6.dstWithin(netip.MustParsePrefix("ff00::/8")), accept())
	c.add("link scope", family6.is(), family6.dstWithin(netip.MustParsePrefix("fe80::/10")), accept())
}

// toRemote judges packets from other devices towards other regions: only this node's pods may send them, and with kind
// direct the region's through their gateway. A stranger on the LAN cannot use a gateway as a router into the tunnel.
func (r roles) toRemote(f family) chainSpec {
	c := chainSpec{name: "to_remote" + f.suffix}
	if r.strict {
		c.add("pods of this node", f.is(), f.srcIn(setLocal), reverseDevice(), accept())
	} else {
		c.add("pods of this node", f.is(), f.srcIn(setLocal), iifInUnderlays(true), accept())
		c.add("extra sources", f.is(), f.srcIn(setLocal), reverseDevice(), accept())
	}
	if r.gateway && r.direct {
		c.add("transit without VXLAN", f.is(), f.srcIn(setInRegion), iifInUnderlays(false), notrackAccept())
	}
	c.add("not by tunnel", f.is(), f.dstIn(setThrows), accept())
	c.add("source is not of this node", dropAs(CounterSpoofedSource))
	return c
}

// output exempts the VXLAN that this host sends from conntrack, and with it from any masquerade.
func (r roles) output() chainSpec {
	c := chainSpec{name: "output", kind: nftables.ChainTypeFilter, hook: nftables.ChainHookOutput, priority: *nftables.ChainPriorityRaw}
	for _, f := range []family{family4, family6} {
		c.add("VXLAN of the region needs no conntrack", udpTo(datapath.OverlayPort), f.is(), f.dstIn(setMembers), notrackAccept())
	}
	return c
}

// input drops what reached the VXLAN port by a translation: it went past prerouting under another port.
func (r roles) input() chainSpec {
	c := chainSpec{name: "input", kind: nftables.ChainTypeFilter, hook: nftables.ChainHookInput, priority: *nftables.ChainPriorityMangle}
	c.add("VXLAN through a Service", udpTo(datapath.OverlayPort), destinationTranslated(), dropAs(CounterVXLANFromPod))
	return c
}

func (r roles) forward() chainSpec {
	c := chainSpec{name: "forward", kind: nftables.ChainTypeFilter, hook: nftables.ChainHookForward, priority: *nftables.ChainPriorityMangle}
	c.add("", udpTo(datapath.OverlayPort), goTo("forwarded_outer"))
	for _, d := range r.devices() {
		c.add("", oifIs(d), destinationTranslated(), goTo("translated"))
	}
	if r.direct {
		for _, f := range []family{family4, family6} {
			c.add("", f.is(), f.dstIn(setRemote), destinationTranslated(), goTo("translated"))
		}
	}
	return c
}

// translated judges the sources of what a Service sent to another region: prerouting saw it under the Service's address.
// A source that is not planned needs a masquerade, which comes later; a planned one must be a pod of this node.
func (r roles) translated() chainSpec {
	c := chainSpec{name: "translated"}
	for _, d := range r.devices() {
		c.add("", iifIs(d), accept())
	}
	c.add("an answer", replyDirection(), accept())
	c.add("kube-proxy wants a masquerade", markHas(masqueradeMark), accept())
	for _, f := range []family{family4, family6} {
		if r.strict {
			c.add("pods of this node", f.is(), f.srcIn(setLocal), reverseDevice(), accept())
			c.add("", f.is(), f.srcIn(setLocal), dropAs(CounterSpoofedSource))
		}
		c.add("", f.is(), f.srcIn(setInRegion), dropAs(CounterSpoofedSource))
		c.add("", f.is(), f.srcIn(setRemote), dropAs(CounterSpoofedSource))
	}
	return c
}

// forwardedOuter lets a node be the router between two subnets of its region, and nobody else's VXLAN through: behind
// this host's masquerade it would look like a member's.
func (r roles) forwardedOuter() chainSpec {
	c := chainSpec{name: "forwarded_outer"}
	for _, f := range []family{family4, family6} {
		c.add("between members", iifInUnderlays(false), f.is(), f.srcIn(setMembers), f.dstIn(setMembers), accept())
	}
	c.add("VXLAN made by a pod", dropAs(CounterVXLANFromPod))
	return c
}
