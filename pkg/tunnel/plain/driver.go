package plain

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ravencni/raven/pkg/datapath/gro"
	"github.com/ravencni/raven/pkg/topology"
	"github.com/ravencni/raven/pkg/tunnel"
	"github.com/ravencni/raven/pkg/tunnel/link"
)

const (
	// Name of the driver in configuration and Plan.
	Name = "plain"
	// DefaultDevice is the name of the tunnel device.
	DefaultDevice = "raven-plain0"
	// VNI is the VXLAN network identifier, next to raven0's 200.
	VNI = 201
)

// Options configure a Driver.
type Options struct {
	// AllowUnencrypted must be true: whoever reads the wide-area link reads all cross-region traffic.
	AllowUnencrypted bool
	// Device names the tunnel device; empty means raven-plain0.
	Device string
	// Logger of events worth a line; nil means slog's default.
	Logger *slog.Logger
}

// Driver joins gateways by VXLAN. It implements tunnel.Driver.
type Driver struct {
	device string
	log    *slog.Logger
	// peers of the last Apply, for Status.
	peers []peer
}

var _ tunnel.Driver = (*Driver)(nil)

// New makes a driver; it touches nothing yet.
func New(opts Options) (*Driver, error) {
	if !opts.AllowUnencrypted {
		return nil, errors.New("the plain driver sends cross-region traffic unencrypted: choose wireguard, or where the link is " +
			"encrypted already allow it explicitly (AllowUnencrypted)")
	}
	if opts.Device == "" {
		opts.Device = DefaultDevice
	}
	if opts.Logger == nil {
		opts.Logger = slog.Default()
	}
	return &Driver{device: opts.Device, log: opts.Logger.With("driver", Name)}, nil
}

// Name is plain.
func (d *Driver) Name() string { return Name }

// PublicKey is empty: there is no key.
func (d *Driver) PublicKey(context.Context) (string, error) { return "", nil }

// Apply brings the device, its FDB and its neighbours to plan. A plan without a tunnel, or with another driver's,
// removes the device.
func (d *Driver) Apply(_ context.Context, plan *topology.Plan) (tunnel.Result, error) {
	if plan.Tunnel == nil || plan.Tunnel.Driver != "" && plan.Tunnel.Driver != Name {
		d.peers = nil
		changes, err := link.Delete(d.device, "vxlan")
		return tunnel.Result{Changes: changes}, err
	}
	d.peers = wantedPeers(plan)
	l, changes, err := d.ensureDevice(plan)
	result := tunnel.Result{Changes: changes}
	if err != nil {
		// What stands may well carry traffic still.
		if l, findErr := link.Find(d.device); findErr == nil && l != nil && l.Type() == "vxlan" {
			result.Device = d.deviceOf(l, plan)
		}
		return result, err
	}
	result.Device = d.deviceOf(l, plan)
	var errs []error
	for _, p := range d.peers {
		errs = append(errs, p.err)
	}
	n, err := link.Apply(l, link.Want{MTU: plan.Tunnel.MTU, Addresses: link.NodeAddresses(plan)})
	result.Changes += n
	if errors.Is(err, unix.EADDRINUSE) {
		err = fmt.Errorf("%w: UDP port %d is held by another program (ss -lunp 'sport = %d' names it); end that program, or give "+
			"this gateway's endpoint another port", err, plan.Tunnel.ListenPort, plan.Tunnel.ListenPort)
	}
	errs = append(errs, err)
	merged, err := gro.Off(d.device)
	errs = append(errs, err)
	if merged {
		result.Changes++
	}
	n, err = applyNeighbours(l, d.peers)
	result.Changes += n
	return result, errors.Join(append(errs, err)...)
}

func (d *Driver) deviceOf(l netlink.Link, plan *topology.Plan) tunnel.Device {
	device := tunnel.Device{Name: d.device, Index: l.Attrs().Index, Ethernet: true, MTU: plan.Tunnel.MTU}
	if own := d.outerAddress(); own.Is4() {
		device.VXLAN = tunnel.VXLAN{VNI: VNI, Address: own}
	}
	return device
}

// outerAddress is the node's own address that it speaks with the peers by, as far as there is a route to one.
func (d *Driver) outerAddress() netip.Addr {
	for _, p := range d.peers {
		if p.err != nil {
			continue
		}
		if routes, err := netlink.RouteGet(p.outer.AsSlice()); err == nil && len(routes) > 0 {
			if own, ok := netip.AddrFromSlice(routes[0].Src); ok {
				return own.Unmap()
			}
		}
	}
	return netip.Addr{}
}

// ensureDevice returns the VXLAN device. Its port and its outer family are fixed when it is made, so that a device with
// others is made anew.
func (d *Driver) ensureDevice(plan *topology.Plan) (l netlink.Link, changes int, err error) {
	want := &netlink.Vxlan{
		LinkAttrs: netlink.LinkAttrs{Name: d.device, HardwareAddr: ownMAC(plan), MTU: plan.Tunnel.MTU},
		VxlanId:   VNI,
		Port:      plan.Tunnel.ListenPort,
	}
	if overIPv6(plan) {
		if !plan.NodeIP6.IsValid() {
			return nil, 0, errors.New("the peers' endpoints are IPv6 and this node has no IPv6 address: see its Node object's InternalIP")
		}
		want.SrcAddr = plan.NodeIP6.AsSlice() // a local IPv6 address is what makes a VXLAN device speak IPv6
	}
	l, err = link.Find(d.device)
	if err != nil {
		return nil, 0, err
	}
	if have, ok := l.(*netlink.Vxlan); l != nil && (!ok || !sameVXLAN(have, want)) {
		if changes, err = link.Delete(d.device, "vxlan"); err != nil {
			return nil, changes, err
		}
		l = nil
	}
	if l == nil {
		if err := netlink.LinkAdd(want); err != nil {
			return nil, changes, fmt.Errorf("make the VXLAN device %s: %w", d.device, err)
		}
		changes++
		if l, err = link.Find(d.device); err == nil && l == nil {
			err = fmt.Errorf("device %s vanished just after it was made", d.device)
		}
		return l, changes, err
	}
	if l.Attrs().HardwareAddr.String() != want.HardwareAddr.String() {
		if err := netlink.LinkSetHardwareAddr(l, want.HardwareAddr); err != nil {
			return nil, changes, fmt.Errorf("set address %s on %s: %w", want.HardwareAddr, d.device, err)
		}
		changes++
	}
	return l, changes, nil
}

func sameVXLAN(have, want *netlink.Vxlan) bool {
	return have.VxlanId == want.VxlanId && have.Port == want.Port && have.Learning == want.Learning &&
		have.SrcAddr.Equal(want.SrcAddr)
}

// Status reports the peers of the last Apply, sorted by node. VXLAN has no handshake: a peer is up when frames for it
// would leave, and whether they arrive only traffic can tell.
func (d *Driver) Status(context.Context) ([]tunnel.PeerStatus, error) {
	l, err := link.Find(d.device)
	if err != nil {
		return nil, err
	}
	all := make([]tunnel.PeerStatus, 0, len(d.peers))
	for _, p := range d.peers {
		all = append(all, d.statusOf(p, l))
	}
	slices.SortStableFunc(all, func(a, b tunnel.PeerStatus) int { return cmp.Compare(a.Node, b.Node) })
	return all, nil
}

func (d *Driver) statusOf(p peer, l netlink.Link) tunnel.PeerStatus {
	s := tunnel.PeerStatus{Node: p.node, State: tunnel.StateDown}
	switch {
	case p.err != nil:
		s.Message = p.err.Error()
	case l == nil:
		s.Message = fmt.Sprintf("the device %s is gone, and is made again in the next pass", d.device)
	case l.Attrs().Flags&net.FlagUp == 0:
		s.Message = fmt.Sprintf("the device %s is down", d.device)
	default:
		if _, err := netlink.RouteGet(p.outer.AsSlice()); err != nil {
			s.Message = fmt.Sprintf("no route to %s: %v", p.outer, err)
			return s
		}
		s.State = tunnel.StateUp
	}
	return s
}

// Cleanup removes the device.
func (d *Driver) Cleanup(context.Context) error {
	d.peers = nil
	_, err := link.Delete(d.device, "vxlan")
	return err
}
