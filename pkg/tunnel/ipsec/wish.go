package ipsec

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/ravencni/raven/pkg/topology"
)

// desired translates a plan. What is wrong with a peer costs only that peer, or only its endpoint.
func desired(plan *topology.Plan, secret string) (want Desired, errs []error) {
	want = Desired{Node: plan.Node, Port: plan.Tunnel.ListenPort, PSK: secret, Addresses: standIns(plan)}
	seen := map[string]bool{plan.Node: true}
	for _, p := range plan.Tunnel.Peers {
		name := fmt.Sprintf("region %s (node %s)", p.Region, p.Node)
		if p.Node == "" || seen[p.Node] {
			errs = append(errs, fmt.Errorf("peer %s is left out: its node is named before, is this one, or has no name", name))
			continue
		}
		seen[p.Node] = true
		peer := DesiredPeer{Node: p.Node, Endpoint: unmapped(p.Endpoint), Prefixes: p.Prefixes}
		if err := checkEndpoint(peer.Endpoint); err != nil {
			errs = append(errs, fmt.Errorf("peer %s is not dialled: %w", name, err))
			peer.Endpoint = netip.AddrPort{}
		}
		// The end that cannot be dialled dials, and of two that can, the one with the lower name.
		peer.Dial = peer.Endpoint.IsValid() && (p.KeepaliveSeconds > 0 || plan.Node < p.Node)
		want.Peers = append(want.Peers, peer)
	}
	slices.SortFunc(want.Peers, func(a, b DesiredPeer) int {
		if a.Node < b.Node {
			return -1
		}
		return 1
	})
	return want, errs
}

func unmapped(ep netip.AddrPort) netip.AddrPort {
	if !ep.IsValid() {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(ep.Addr().Unmap().WithZone(""), ep.Port())
}

func checkEndpoint(ep netip.AddrPort) error {
	a := ep.Addr()
	switch {
	case !ep.IsValid():
		return nil
	case ep.Port() == 0:
		return fmt.Errorf("its endpoint %s has no port", ep)
	case a.IsUnspecified(), a.IsMulticast(), a == netip.AddrFrom4([4]byte{255, 255, 255, 255}), slices.Contains(insideAddresses, a):
		return fmt.Errorf("its endpoint %s is not the address of a host", ep)
	}
	return nil
}

// standIns picks an address for each prefix that a peer may have for this end's: those of its region, and those that it
// relays. Of the latter the outer addresses of tunnels are left out: they would be charon's own, and no longer lead out.
func standIns(plan *topology.Plan) []netip.Addr {
	outer := map[netip.Addr]bool{}
	for _, a := range plan.Throws {
		outer[a.Unmap()] = true
	}
	for _, p := range plan.Tunnel.Peers {
		if p.Endpoint.IsValid() {
			outer[p.Endpoint.Addr().Unmap()] = true
		}
	}
	own := slices.Clone(plan.LocalPrefixes)
	for _, a := range []netip.Addr{plan.NodeIP4, plan.NodeIP6} {
		if a.IsValid() {
			own = append(own, netip.PrefixFrom(a.Unmap(), a.Unmap().BitLen()))
		}
	}
	chosen := map[netip.Addr]bool{}
	for _, p := range plan.Prefixes {
		if p.Scope == topology.ScopeInRegion {
			own = append(own, p.Prefix) // other nodes of the region are among the throws for the sake of VXLAN
			continue
		}
		if a := first(p.Prefix); !outer[a] {
			chosen[a] = true
		} else if next := a.Next(); p.Prefix.Contains(next) && !outer[next] {
			chosen[next] = true
		}
	}
	for _, p := range own {
		chosen[first(p)] = true
	}
	delete(chosen, netip.Addr{})
	out := make([]netip.Addr, 0, len(chosen))
	for a := range chosen {
		out = append(out, a)
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return out
}

// first is the lowest address of a prefix that a host may have.
func first(p netip.Prefix) netip.Addr {
	a := p.Masked().Addr()
	if p.IsValid() && !p.IsSingleIP() {
		return a.Next()
	}
	return a
}
