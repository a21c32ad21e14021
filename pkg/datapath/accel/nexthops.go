package accel

import (
	"net/netip"

	"github.com/ravencni/raven/pkg/datapath"
	"github.com/ravencni/raven/pkg/datapath/accel/device"
	"github.com/ravencni/raven/pkg/topology"
)

// surroundings is what the kernel says about the devices and neighbours that next hops use.
type surroundings struct {
	devices map[int]device.Device
	overlay device.Device // zero where there is none
	host    datapath.Host
	// onLink finds the device that reaches an on-link address; 0 where it is not on-link.
	onLink func(netip.Addr) int
}

// nexthopsOf renders the plan's next hops by ID. Unreachable ones are left out: what has no entry takes the stack, which
// answers with an ICMP error. One whose device is missing or down, or whose neighbour is unknown, is not healthy.
func nexthopsOf(plan *topology.Plan, around surroundings) map[string]nexthop {
	out := make(map[string]nexthop, len(plan.NextHops))
	for _, nh := range plan.NextHops {
		n := nexthop{Mtu: uint16(max(0, min(nh.MTU, 0xffff)))}
		var dev device.Device
		ready := true
		switch nh.Kind {
		case topology.KindOverlay:
			n.Kind, dev = kindOverlay, around.overlay
			n.Flags, n.Dmac = nexthopEthernet, macOf(nh.MAC)
		case topology.KindDirect:
			n.Kind, dev = kindDirect, around.devices[around.onLink(nh.Underlay)]
			n.Via = addressOf(nh.Underlay)
		case topology.KindTunnel:
			tun := around.host.TunnelTo(nh.Node)
			n.Kind, dev = kindTunnel, around.devices[tun.Index]
			if tun.Ethernet {
				n.Flags, n.Dmac = nexthopEthernet, macOf(nh.MAC)
				ready = len(nh.MAC) == len(n.Dmac)
			}
		default:
			continue
		}
		n.Ifindex, n.Smac = uint32(dev.Index), macOf(dev.MAC)
		if dev.Index != 0 && dev.Up && ready {
			n.Flags |= nexthopHealthy
		}
		out[nh.ID] = n
	}
	return out
}
