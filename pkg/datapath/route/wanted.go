package route

import (
	"errors"
	"fmt"
	"math"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/ravencni/raven/pkg/datapath"
	"github.com/ravencni/raven/pkg/datapath/host"
	"github.com/ravencni/raven/pkg/datapath/rtnl"
	"github.com/ravencni/raven/pkg/topology"
)

// metric6 is the priority of IPv6 routes; the kernel's own default, named since an unnamed one is no key.
const metric6 = 1024

// metricClosed is the priority of the unreachable twin that stands behind each route of table 9027 that leaves by a
// device. The kernel takes a device's routes away with it, when it vanishes, goes down or loses the address that they
// name as source; without a twin look-ups would then fall through to main's default route, and packets for another
// region would leave in the clear until someone repairs it. It is the largest that there is, so every other route wins.
const metricClosed = math.MaxUint32

// wanted computes the rules and routes of a plan. A prefix that has no usable way out becomes unreachable in table
// 9027, so that nothing leaves in the clear by the default route, and is left out of 9028, where main decides. A prefix
// that leaves by a device is unreachable, too, as soon as its route has gone with the device.
func wanted(plan *topology.Plan, h datapath.Host) (*state, error) {
	want := &state{routes: map[uint32][]rtnl.Route{}}
	if plan.Role != topology.RoleMember && plan.Role != topology.RoleGateway {
		return want, nil
	}
	b := builder{plan: plan, host: h, hops: map[string]topology.NextHop{}, ways: map[wayKey]way{}}
	for _, n := range plan.NextHops {
		b.hops[n.ID] = n
	}
	if err := b.findSources(); err != nil {
		b.errs = append(b.errs, err)
	}
	b.findDevices()
	for _, family := range families {
		remote, inRegion := b.family(family)
		if len(remote) > 0 {
			want.routes[datapath.TableRemote] = append(want.routes[datapath.TableRemote], remote...)
			want.rules = append(want.rules, rule(family, datapath.TableRemote, ""))
		}
		// Without a tunnel device nothing comes out of one, and a rule without `iif` would catch the gateway's own traffic.
		if tunnels := h.Incoming(); len(inRegion) > 0 && len(tunnels) > 0 {
			want.routes[datapath.TableInRegion] = append(want.routes[datapath.TableInRegion], inRegion...)
			for _, d := range tunnels {
				want.rules = append(want.rules, rule(family, datapath.TableInRegion, d.Name))
			}
		}
	}
	return want, errors.Join(b.errs...)
}

// rule leads to a table. Both tables hang at one priority, where the kernel asks the older rule first; the order does
// not matter, since no prefix of one table lies in a prefix of the other but for throws, which fall through.
func rule(family uint8, table uint32, incoming string) rtnl.Rule {
	return rtnl.Rule{
		Family: family, Priority: datapath.RulePriority, Table: table, Protocol: datapath.RouteProtocol, Incoming: incoming,
	}
}

type builder struct {
	plan    *topology.Plan
	host    datapath.Host
	hops    map[string]topology.NextHop
	overlay int // index of raven0
	main    *host.MainTable
	source4 netip.Addr
	source6 netip.Addr
	// ways are the next hops resolved so far: a plan has far fewer of them than prefixes.
	ways map[wayKey]way
	errs []error
}

type wayKey struct {
	hop    string
	family uint8
}

// way is a route but for its prefix, or why there is none.
type way struct {
	route rtnl.Route
	err   error
}

// findSources picks the addresses that local senders use towards other regions: the node's own, or where that stands in
// another region too, one of the local pods' range, such as the bridge's.
func (b *builder) findSources() error {
	b.source4, b.source6 = b.plan.NodeIP4.Unmap(), b.plan.NodeIP6
	var errs []error
	for _, s := range []*netip.Addr{&b.source4, &b.source6} {
		if s.IsValid() && !b.plan.NodeIPConflicts {
			continue
		}
		found, err := host.SourceIn(b.plan.LocalPrefixes, s == &b.source4)
		errs = append(errs, err)
		*s = found
	}
	return errors.Join(errs...)
}

func (b *builder) findDevices() {
	if b.plan.Overlay != nil {
		index, err := deviceIndex(datapath.OverlayDevice)
		if err != nil {
			b.errs = append(b.errs, err)
		}
		b.overlay = index
	}
	for _, n := range b.plan.NextHops {
		if n.Kind == topology.KindDirect {
			main, err := host.ReadMain()
			if err != nil {
				b.errs = append(b.errs, err)
			}
			b.main = main
			return
		}
	}
}

// family computes the routes of one family. Throws stand first, and what forwards before what only refuses, so that a
// repair first brings back what carries traffic.
func (b *builder) family(family uint8) (remote, inRegion []rtnl.Route) {
	ours := func(a netip.Addr) bool { return a.IsValid() && rtnl.Family(a.Unmap()) == family }
	for _, p := range b.plan.Prefixes {
		if !ours(p.Prefix.Addr()) {
			continue
		}
		r, ok := b.route(p)
		if !ok && p.Scope == topology.ScopeInRegion {
			continue
		}
		if p.Scope == topology.ScopeInRegion {
			inRegion = append(inRegion, r)
		} else {
			remote = append(remote, r)
		}
	}
	if len(remote) == 0 {
		return nil, inRegion // nothing to fall through
	}
	throws := make([]rtnl.Route, 0, len(b.plan.Throws)+2*len(remote))
	thrown := make(map[netip.Prefix]bool, len(b.plan.Throws))
	for _, a := range b.plan.Throws {
		if !ours(a) {
			continue
		}
		p := netip.PrefixFrom(a.Unmap().WithZone(""), a.Unmap().BitLen())
		if !thrown[p] {
			thrown[p] = true
			throws = append(throws, base(p, unix.RTN_THROW))
		}
	}
	all := throws
	for _, r := range remote {
		if !thrown[r.Prefix] {
			all = append(all, r)
		}
	}
	for _, r := range all[len(throws):] {
		if r.Type == unix.RTN_UNICAST {
			closed := base(r.Prefix, unix.RTN_UNREACHABLE)
			closed.Metric = metricClosed
			all = append(all, closed)
		}
	}
	return all, inRegion
}

// route turns one prefix into a kernel route; ok is false where its next hop is unusable, which is reported once per
// next hop and family.
func (b *builder) route(p topology.Prefix) (r rtnl.Route, ok bool) {
	family := rtnl.Family(p.Prefix.Addr())
	key := wayKey{p.NextHop, family}
	w, known := b.ways[key]
	if !known {
		w.route, w.err = b.resolve(p.NextHop, family)
		b.ways[key] = w
		if w.err != nil {
			b.errs = append(b.errs, fmt.Errorf("next hop %s: %w; its %s prefixes of other regions are unreachable, those of "+
				"this region are left to the main table", p.NextHop, w.err, rtnl.FamilyName(family)))
		}
	}
	if w.err != nil {
		return base(p.Prefix, unix.RTN_UNREACHABLE), false
	}
	w.route.Prefix = p.Prefix.Masked()
	return w.route, true
}

func base(p netip.Prefix, typ uint8) rtnl.Route {
	r := rtnl.Route{Prefix: p.Masked(), Type: typ, Protocol: datapath.RouteProtocol}
	if p.Addr().Is6() {
		r.Metric = metric6
	}
	return r
}
