package plain

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/ravencni/raven/pkg/topology"
)

// peer is a planned peer in VXLAN's terms.
type peer struct {
	region, node string
	// underlay is the peer's own address, which its device carries too.
	underlay netip.Addr
	// mac is the address of the peer's device, made from underlay.
	mac net.HardwareAddr
	// outer is where the encapsulated frames go.
	outer netip.Addr
	// err says why the peer cannot be reached; the rest is then unset.
	err error
}

// wantedPeers translates the plan's peers. One that VXLAN cannot reach has its reason in err.
func wantedPeers(plan *topology.Plan) []peer {
	ipv6 := overIPv6(plan)
	byMAC := map[string]string{}
	wanted := make([]peer, 0, len(plan.Tunnel.Peers))
	for _, pl := range plan.Tunnel.Peers {
		p := peer{region: pl.Region, node: pl.Node}
		if err := p.resolve(plan, pl, ipv6, byMAC); err != nil {
			err = fmt.Errorf("peer region %s (node %s) is left out: %w", pl.Region, pl.Node, err)
			p = peer{region: pl.Region, node: pl.Node, err: err}
		}
		wanted = append(wanted, p)
	}
	return wanted
}

func (p *peer) resolve(plan *topology.Plan, pl topology.Peer, ipv6 bool, byMAC map[string]string) error {
	p.outer = pl.Endpoint.Addr().Unmap()
	switch {
	case !pl.Endpoint.IsValid():
		return errors.New("it has no address to dial, being behind a NAT; the plain driver needs an open address at both " +
			"ends: use wireguard")
	case p.outer.IsUnspecified(), p.outer.IsMulticast():
		return fmt.Errorf("its endpoint %s is not the address of a host", pl.Endpoint)
	case int(pl.Endpoint.Port()) != plan.Tunnel.ListenPort:
		return fmt.Errorf("its endpoint %s has another port than this node's %d; VXLAN uses one port at both ends: give both "+
			"gateways the same", pl.Endpoint, plan.Tunnel.ListenPort)
	case p.outer.Is6() != ipv6:
		return fmt.Errorf("its endpoint %s is of another family than the other peers'; a VXLAN device speaks one", pl.Endpoint)
	}
	i := slices.IndexFunc(plan.NextHops, func(n topology.NextHop) bool {
		return n.Kind == topology.KindTunnel && n.Node == pl.Node && n.Underlay.IsValid()
	})
	if i < 0 {
		return errors.New("its node address is not known: see that the Node object has an InternalIP")
	}
	p.underlay = plan.NextHops[i].Underlay.Unmap()
	p.mac = topology.VTEPMAC(p.underlay)
	if own := ownMAC(plan); own.String() == p.mac.String() {
		return fmt.Errorf("its node address %s is this node's own; the plain driver needs different ones", p.underlay)
	}
	if other := byMAC[p.mac.String()]; other != "" {
		return fmt.Errorf("its node address %s is node %s's too; the plain driver needs different ones", p.underlay, other)
	}
	byMAC[p.mac.String()] = pl.Node
	return nil
}

// overIPv6 tells which family the outer packets have: a VXLAN device speaks one, so IPv4 where any peer has it.
func overIPv6(plan *topology.Plan) bool {
	dialled := false
	for _, pl := range plan.Tunnel.Peers {
		if pl.Endpoint.IsValid() {
			if pl.Endpoint.Addr().Unmap().Is4() {
				return false
			}
			dialled = true
		}
	}
	return dialled
}

// ownMAC is the address of this node's device, by the same rule as the peers'.
func ownMAC(plan *topology.Plan) net.HardwareAddr { return topology.VTEPMAC(ownUnderlay(plan)) }

func ownUnderlay(plan *topology.Plan) netip.Addr {
	switch {
	case plan.Overlay != nil && plan.Overlay.Underlay.IsValid():
		return plan.Overlay.Underlay
	case plan.NodeIP4.IsValid():
		return plan.NodeIP4
	default:
		return plan.NodeIP6
	}
}
