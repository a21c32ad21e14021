package topology

import (
	"cmp"
	"net/netip"
	"slices"
)

// KeepaliveSeconds keeps the mapping of a NAT or stateful firewall on the way open; 25 s is what WireGuard's manual
// wg(8) names as sensible for a wide variety of firewalls.
const KeepaliveSeconds = 25

// fillTunnel plans this gateway's peers: every region that it or the other side can dial directly, and at the relays
// the regions that they relay. A peer's prefixes are filled in with the routes.
func (p *projection) fillTunnel() {
	t := &Tunnel{Driver: p.config.Driver}
	t.ListenPort, t.Second = p.listenPort()
	cost := p.tunnelCost(p.home, p.home)
	for _, w := range p.ways {
		if w.via != w.far {
			continue
		}
		peer := Peer{Region: w.far.name, Node: w.far.active.name, PublicKey: w.far.end.key, Endpoint: w.far.end.dial}
		if !p.home.end.dialable() {
			peer.KeepaliveSeconds = KeepaliveSeconds
		}
		t.Peers = append(t.Peers, peer)
		cost = max(cost, p.tunnelCost(p.home, w.far))
	}
	t.MTU = p.deviceMTU(p.carried(hop{p.self.mtu, p.self}.less(cost)))
	p.plan.Tunnel = t
}

// peer of a region that is one; peers are sorted by region.
func (t *Tunnel) peer(region string) *Peer {
	i, found := slices.BinarySearchFunc(t.Peers, region, func(peer Peer, name string) int {
		return cmp.Compare(peer.Region, name)
	})
	if !found {
		return nil
	}
	return &t.Peers[i]
}

// fillThrows lists the hosts that must never be looked up in Raven's table.
func (p *projection) fillThrows() {
	var out []netip.Addr
	for _, a := range p.local.Throws {
		if a.IsValid() {
			out = append(out, a.Unmap().WithZone(""))
		}
	}
	for _, n := range p.home.nodes {
		if n != p.self {
			out = append(out, n.addresses()...)
		}
	}
	if p.plan.Tunnel != nil {
		for _, w := range p.ways {
			if w.via == w.far {
				out = append(out, w.far.end.outer...)
			}
		}
		out = append(out, p.observed()...)
	}
	p.plan.Throws = sortedAddrs(out)
	p.thrown = make(map[netip.Addr]struct{}, len(p.plan.Throws))
	for _, a := range p.plan.Throws {
		p.thrown[a] = struct{}{}
	}
}

// observed are the addresses that this node sees its peers' tunnel packets come from, and answers to.
func (p *projection) observed() []netip.Addr {
	te := p.endpoints[p.self.name]
	if te == nil {
		return nil
	}
	var out []netip.Addr
	for _, o := range te.Status.ObservedAddresses {
		if a, err := netip.ParseAddrPort(o.Address); err == nil {
			out = append(out, a.Addr().Unmap().WithZone(""))
		}
	}
	return out
}
