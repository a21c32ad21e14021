// Package datapath defines the contract of the appliers that bring this node's kernel to the planned state; each
// applier lives in a package of its own below this one.
package datapath

import (
	"context"
	"slices"

	"github.com/ravencni/raven/pkg/datapath/accel/pintree"
	"github.com/ravencni/raven/pkg/topology"
	"github.com/ravencni/raven/pkg/tunnel"
)

// Names and numbers that Raven owns in the kernel; docs/contract.md lists them for users.
const (
	// OverlayDevice is the VXLAN device between the nodes of one region.
	OverlayDevice = "raven0"
	// OverlayVNI is its VXLAN network identifier.
	OverlayVNI = 200
	// OverlayPort is its UDP port.
	OverlayPort = 4472
	// RulePriority is the priority of every ip rule of ours.
	RulePriority = 100
	// TableRemote holds the other regions' prefixes.
	TableRemote = 9027
	// TableInRegion holds, on a gateway, the own region's prefixes; only packets out of a tunnel device look there.
	TableInRegion = 9028
	// RouteProtocol marks every rule, route and neighbour of ours (rtnetlink's rtm_protocol; 114 is 'r', unassigned in
	// the kernel's rt_protos).
	RouteProtocol = 114
	// StateDir holds keys, snapshot and recorded sysctls.
	StateDir = pintree.StateDir
	// PinRoot is the folder of pinned BPF objects; the ABI version is a folder below it.
	PinRoot = pintree.Root
)

// Host is what an Apply pass found out about this node's devices before the appliers ran.
type Host struct {
	// Underlay is the device that holds the node's address (never one of ours).
	Underlay Link
	// Underlays are all devices by which main-table routes to the members of the region leave, Underlay included,
	// sorted by name.
	Underlays []Link
	// Outers are the devices by which the tunnel's own packets come and go: those of the main table's default routes and
	// of its routes to the peers' endpoints, sorted by name. Empty without a tunnel.
	Outers []Link
	// Tunnel is the driver's device; its zero value means there is none, or one for each peer.
	Tunnel tunnel.Device
	// TunnelPerPeer are the devices of a driver that has one for each peer, sorted by name.
	TunnelPerPeer []tunnel.Device
	// Also are the devices of a driver that the region switches to or from: what peers send by it is taken, and nothing is
	// led into them.
	Also []tunnel.Device
}

// Incoming are all devices that other regions' packets come out of.
func (h Host) Incoming() []tunnel.Device { return slices.Concat(h.Tunnels(), h.Also) }

// Tunnels are all devices of the driver.
func (h Host) Tunnels() []tunnel.Device {
	if h.Tunnel.Name != "" {
		return append([]tunnel.Device{h.Tunnel}, h.TunnelPerPeer...)
	}
	return h.TunnelPerPeer
}

// TunnelTo is the device that leads to a peer's node; the zero value where there is none.
func (h Host) TunnelTo(node string) tunnel.Device {
	for _, d := range h.TunnelPerPeer {
		if d.Peer == node {
			return d
		}
	}
	return h.Tunnel
}

// Link names a network device.
type Link struct {
	Name  string
	Index int
	// MTU in bytes.
	MTU int
}

// Applier brings one part of the kernel to the state that a Plan wants: it lists what is there, diffs, writes the
// difference, and touches only what Raven owns. A second Apply with the same arguments makes no write. All methods act
// in the network namespace of the calling thread.
type Applier interface {
	// Name of the part, in lower case, for logs and metric labels: sysctl, overlay, route, filter, accel.
	Name() string
	// Apply returns the number of writes it made. One bad item costs only itself: the others are applied, and the
	// errors come back joined. An empty Plan (RoleNone) removes everything that the applier owns.
	Apply(ctx context.Context, plan *topology.Plan, host Host) (changes int, err error)
	// Cleanup removes everything the applier ever made and restores what it changed; it needs no Plan and succeeds
	// when there is nothing left.
	Cleanup(ctx context.Context) error
}
