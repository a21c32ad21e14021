package route

import (
	"errors"
	"fmt"
	"net"

	"golang.org/x/sys/unix"

	"github.com/ravencni/raven/pkg/datapath"
	"github.com/ravencni/raven/pkg/datapath/rtnl"
	"github.com/ravencni/raven/pkg/datapath/sysctl"
	"github.com/ravencni/raven/pkg/topology"
)

// resolve makes the route, but for its prefix, that a next hop stands for in one family.
func (b *builder) resolve(id string, family uint8) (rtnl.Route, error) {
	n, ok := b.hops[id]
	if !ok {
		return rtnl.Route{}, errors.New("it is not in the plan")
	}
	r := rtnl.Route{Type: unix.RTN_UNICAST, Protocol: datapath.RouteProtocol, MTU: uint32(max(n.MTU, 0)), Source: b.source4}
	if family == unix.AF_INET6 {
		r.Metric, r.Source = metric6, b.source6
	}
	switch n.Kind {
	case topology.KindOverlay:
		return b.viaOverlay(r, n, family)
	case topology.KindDirect:
		return b.viaUnderlay(r, n, family)
	case topology.KindTunnel:
		return b.viaTunnel(r, n, family)
	case topology.KindUnreachable:
		return rtnl.Route{Type: unix.RTN_UNREACHABLE, Protocol: r.Protocol, Metric: r.Metric}, nil
	}
	return rtnl.Route{}, fmt.Errorf("its kind %q is unknown", n.Kind)
}

// viaOverlay leads to a neighbour's VTEP over raven0.
func (b *builder) viaOverlay(r rtnl.Route, n topology.NextHop, family uint8) (rtnl.Route, error) {
	if b.overlay == 0 {
		return r, fmt.Errorf("device %s is absent", datapath.OverlayDevice)
	}
	return viaVTEP(r, datapath.OverlayDevice, b.overlay, n, family)
}

// viaVTEP names a gateway on a VXLAN device: the node's IPv4 address for IPv4, the link-local address made from its
// MAC for IPv6, and for IPv4 between nodes that have IPv6 addresses only. `onlink` stands in for the connected route
// that the device does not have.
func viaVTEP(r rtnl.Route, device string, index int, n topology.NextHop, family uint8) (rtnl.Route, error) {
	underlay := n.Underlay.Unmap()
	if !underlay.IsValid() {
		return r, errors.New("it has no address")
	}
	r.Device = index
	if family == unix.AF_INET && underlay.Is4() {
		r.Gateway, r.OnLink = underlay, true
		return r, nil
	}
	if err := sysctl.IPv6On(device); err != nil {
		return r, err
	}
	mac := n.MAC
	if len(mac) == 0 {
		mac = topology.VTEPMAC(underlay)
	}
	r.Gateway = topology.LinkLocalFromMAC(mac)
	return r, nil
}

// viaUnderlay leads to a neighbour on the wire itself. IPv6 prefixes of a neighbour known by its IPv4 address go over
// the overlay: IPv6 has no next hop of the other family.
func (b *builder) viaUnderlay(r rtnl.Route, n topology.NextHop, family uint8) (rtnl.Route, error) {
	underlay := n.Underlay.Unmap()
	if family == unix.AF_INET6 && underlay.Is4() {
		if o := b.plan.Overlay; o != nil && (r.MTU == 0 || int(r.MTU) > o.MTU) {
			r.MTU = uint32(o.MTU)
		}
		n.MAC = nil // made from the address
		return b.viaOverlay(r, n, family)
	}
	if b.main != nil {
		for _, hop := range b.main.Lookup(underlay) {
			if hop.OnLink {
				r.Device, r.Gateway, r.OnLink = hop.Device, underlay, true
				return r, nil
			}
		}
	}
	return r, fmt.Errorf("%s is not on-link by the main table, as forwarding without encapsulation needs; "+
		"switch `direct` off for this node", underlay)
}

// viaTunnel leads into the driver's device for the peer. One that takes bare IP packets finds the peer by itself, or leads
// to no other; on one that carries Ethernet the gateway is the peer's VTEP, for which the driver keeps a neighbour.
func (b *builder) viaTunnel(r rtnl.Route, n topology.NextHop, family uint8) (rtnl.Route, error) {
	tun := b.host.TunnelTo(n.Node)
	if tun.Index == 0 {
		return r, errors.New("there is no tunnel device")
	}
	if tun.Ethernet {
		return viaVTEP(r, tun.Name, tun.Index, n, family)
	}
	r.Device = tun.Index
	if family == unix.AF_INET {
		r.Scope = unix.RT_SCOPE_LINK
		return r, nil
	}
	return r, sysctl.IPv6On(tun.Name)
}

// deviceIndex is 0 with an error where there is no such device.
func deviceIndex(name string) (int, error) {
	dev, err := net.InterfaceByName(name)
	if err != nil {
		return 0, fmt.Errorf("look up device %s: %w", name, err)
	}
	return dev.Index, nil
}
