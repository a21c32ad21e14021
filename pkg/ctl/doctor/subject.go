package doctor

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/vishvananda/netlink"

	"github.com/ravencni/raven/pkg/agent/local"
	"github.com/ravencni/raven/pkg/agent/snapshot"
	"github.com/ravencni/raven/pkg/apis/raven/v1beta1"
	"github.com/ravencni/raven/pkg/datapath"
	"github.com/ravencni/raven/pkg/datapath/host"
	"github.com/ravencni/raven/pkg/topology"
	"github.com/ravencni/raven/pkg/tunnel"
	"github.com/ravencni/raven/pkg/tunnel/wireguard"
)

// Options say where to look.
type Options struct {
	// Node names this node where no agent tells; empty: the host's name.
	Node     string
	StateDir string
	// CNIConfig and CNIBinaries are the container runtime's folders.
	CNIConfig, CNIBinaries string
}

// Subject is a node that is looked at.
type Subject struct {
	Options
	// Report is what the agent says; nil: none answers, and NoAgent says why.
	Report  *local.Report
	NoAgent error
	// State is the last good input; nil where there is none. Saved is when it was written.
	State *topology.State
	Saved time.Time
	// Plan is the agent's, or without an agent one made of State; nil: nothing is known.
	Plan *topology.Plan
	// Host holds the devices as they are now; HostErr says what was not found.
	Host    datapath.Host
	HostErr error
	// Accelerated: the programs should run.
	Accelerated bool
}

// Look gathers what the checks need. It never fails: what is missing is what the checks tell about.
func Look(ctx context.Context, o Options) *Subject {
	s := &Subject{Options: o}
	if s.Node == "" {
		s.Node = os.Getenv("NODE_NAME")
	}
	if s.Node == "" {
		s.Node, _ = os.Hostname() // without a name the plan is empty, and a check says so
	}
	s.Report, s.NoAgent = local.Ask(ctx, local.SocketPath(o.StateDir))
	if in, saved, err := snapshot.Read(o.StateDir); err == nil {
		s.State, s.Saved = &in.State, saved
		if s.Report == nil {
			s.Plan = compile(in.State, s.Node, in.Throws)
		}
	}
	if s.Report != nil {
		s.Node, s.Plan = s.Report.Node, s.Report.Plan
		s.Accelerated = s.Report.Datapath == v1beta1.DatapathAccelerated
	} else if entries, err := os.ReadDir(datapath.PinRoot); err == nil && len(entries) > 0 {
		s.Accelerated = true
	}
	if s.Plan != nil && s.Plan.Role != topology.RoleNone {
		s.Host, s.HostErr = host.Resolve(s.Plan, s.tunnelDevice())
		s.Host.TunnelPerPeer = s.perPeer()
	}
	return s
}

// compile makes the plan that an agent would make that starts now.
func compile(state topology.State, node string, throws []netip.Addr) *topology.Plan {
	mtu := 0
	for _, n := range state.Nodes {
		if n != nil && n.Name == node {
			// Not known where the device is gone; the plan then takes the published one.
			mtu, _ = host.UnderlayMTU(addressesOf(n)...)
		}
	}
	return topology.Compile(state, node, topology.Local{UnderlayMTU: mtu, Throws: throws})
}

func addressesOf(n *corev1.Node) []netip.Addr {
	var out []netip.Addr
	for _, a := range n.Status.Addresses {
		if ip, err := netip.ParseAddr(a.Address); err == nil && a.Type == corev1.NodeInternalIP {
			out = append(out, ip.Unmap())
		}
	}
	return out
}

// tunnelDevice finds the driver's device as it is now; the zero value where there is none.
func (s *Subject) tunnelDevice() tunnel.Device {
	if s.Plan.Tunnel == nil {
		return tunnel.Device{}
	}
	d := tunnel.Device{Name: s.tunnelName()}
	if s.Report != nil {
		d.Ethernet = s.Report.Host.Tunnel.Ethernet
	}
	l, err := netlink.LinkByName(d.Name)
	if err != nil {
		return tunnel.Device{}
	}
	d.Index, d.MTU = l.Attrs().Index, l.Attrs().MTU
	return d
}

// perPeer finds the devices, as they are now, of a driver that has one for each peer.
func (s *Subject) perPeer() (found []tunnel.Device) {
	if s.Report == nil || s.Plan.Tunnel == nil {
		return nil
	}
	for _, d := range s.Report.Host.TunnelPerPeer {
		if l, err := netlink.LinkByName(d.Name); err == nil {
			d.Index, d.MTU = l.Attrs().Index, l.Attrs().MTU
			found = append(found, d)
		}
	}
	return found
}

// tunnelName is the name that the tunnel device should have; empty where that is not known.
func (s *Subject) tunnelName() string {
	if s.Report != nil && s.Report.Host.Tunnel.Name != "" {
		return s.Report.Host.Tunnel.Name
	}
	if s.Plan != nil && s.Plan.Tunnel != nil && s.Plan.Tunnel.Driver == topology.DriverWireGuard {
		return wireguard.DefaultDevice
	}
	return ""
}

// addressOf is an address of another node, of the family of this node's underlay.
func (s *Subject) addressOf(node string) (netip.Addr, error) {
	if s.State == nil {
		return netip.Addr{}, errors.New("no snapshot of the cluster's objects is on disk")
	}
	want4 := s.Plan.NodeIP4.IsValid()
	for _, n := range s.State.Nodes {
		if n == nil || n.Name != node {
			continue
		}
		for _, a := range addressesOf(n) {
			if a.Is4() == want4 {
				return a, nil
			}
		}
	}
	return netip.Addr{}, fmt.Errorf("the snapshot has no address of node %s", node)
}
