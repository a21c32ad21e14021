// Package host finds out about this node's own devices, addresses and main routing table what an apply pass needs to
// know before the appliers run. It only reads.
package host

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ravencni/raven/pkg/datapath"
	"github.com/ravencni/raven/pkg/topology"
	"github.com/ravencni/raven/pkg/tunnel"
)

// tunnelPrefix begins the names of the devices that drivers make (raven-wg0, raven-ipsec0...).
const tunnelPrefix = "raven-"

// Ours reports whether a device of this name is made by Raven.
func Ours(name string) bool {
	return name == datapath.OverlayDevice || strings.HasPrefix(name, tunnelPrefix)
}

// Resolve finds the underlay devices for a plan: the one that holds the node's address, and those by which the main
// table's routes to the other members of the region leave. tun is passed on. A plan without a node address (RoleNone)
// has no underlay and gives no error.
func Resolve(plan *topology.Plan, tun tunnel.Device) (datapath.Host, error) {
	found := datapath.Host{Tunnel: tun}
	node := nodeAddresses(plan)
	if len(node) == 0 {
		return found, nil
	}
	devices, err := listDevices()
	if err != nil {
		return found, err
	}
	if found.Underlay, err = devices.holding(node, tun.Name); err != nil {
		return found, err
	}
	found.Underlays = []datapath.Link{found.Underlay}
	if (plan.Overlay == nil || len(plan.Overlay.Members) == 0) && plan.Tunnel == nil {
		return found, nil
	}
	main, err := ReadMain()
	if err != nil {
		return found, err
	}
	if plan.Overlay != nil {
		found.Underlays = devices.leadingTo(main, plan.Overlay.Members, tun.Name, found.Underlay)
	}
	if plan.Tunnel != nil {
		found.Outers = devices.leadingTo(main, outerAddresses(plan.Tunnel), tun.Name)
	}
	return found, nil
}

// outerAddresses are where the tunnel's packets go to and come from: peers that are dialled, and, by the default routes,
// those that dial.
func outerAddresses(t *topology.Tunnel) []netip.Addr {
	addrs := []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()}
	for _, p := range t.Peers {
		if p.Endpoint.IsValid() {
			addrs = append(addrs, p.Endpoint.Addr())
		}
	}
	return addrs
}

// leadingTo lists the devices by which routes to addrs leave, and those of always, sorted by name. Devices of Raven's
// and the one named except are left out.
func (d *devices) leadingTo(main *MainTable, addrs []netip.Addr, except string, always ...datapath.Link) []datapath.Link {
	indices := map[int]bool{}
	for _, addr := range addrs {
		for _, hop := range main.Lookup(addr) {
			indices[hop.Device] = true
		}
	}
	found := slices.Clone(always)
	for _, link := range d.links {
		if indices[link.Index] && !slices.Contains(always, link) && !Ours(link.Name) && link.Name != except {
			found = append(found, link)
		}
	}
	slices.SortFunc(found, func(a, b datapath.Link) int { return strings.Compare(a.Name, b.Name) })
	return found
}

// UnderlayMTU returns the MTU in bytes of the device that holds addrs, the smallest where several do; for the planner's
// Local, before there is a plan. Invalid addresses are skipped.
func UnderlayMTU(addrs ...netip.Addr) (int, error) {
	devices, err := listDevices()
	if err != nil {
		return 0, err
	}
	mtu := 0
	for _, addr := range addrs {
		if !addr.IsValid() {
			continue
		}
		link, err := devices.holding([]netip.Addr{addr}, "")
		if err != nil {
			return 0, err
		}
		if mtu == 0 || link.MTU < mtu {
			mtu = link.MTU
		}
	}
	if mtu == 0 {
		return 0, fmt.Errorf("find the underlay's MTU: the node has no address")
	}
	return mtu, nil
}

// nodeAddresses lists the node's own addresses, the one that decides the underlay first.
func nodeAddresses(plan *topology.Plan) []netip.Addr {
	var addrs []netip.Addr
	if plan.Overlay != nil && plan.Overlay.Underlay.IsValid() {
		addrs = append(addrs, plan.Overlay.Underlay)
	}
	for _, a := range []netip.Addr{plan.NodeIP4, plan.NodeIP6} {
		if a.IsValid() {
			addrs = append(addrs, a)
		}
	}
	return addrs
}

type devices struct {
	links []datapath.Link
	// holder is the device of each address that stands on a device not made by Raven.
	holder map[netip.Addr][]int
}

func listDevices() (*devices, error) {
	links, err := consistent(netlink.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list network devices: %w", err)
	}
	addrs, err := Addresses(unix.AF_UNSPEC)
	if err != nil {
		return nil, err
	}
	d := &devices{holder: map[netip.Addr][]int{}}
	for _, l := range links {
		d.links = append(d.links, datapath.Link{Name: l.Attrs().Name, Index: l.Attrs().Index, MTU: l.Attrs().MTU})
	}
	for _, a := range addrs {
		if addr, ok := netip.AddrFromSlice(a.IP); ok {
			d.holder[addr.Unmap()] = append(d.holder[addr.Unmap()], a.LinkIndex)
		}
	}
	return d, nil
}

// holding returns the device of the first of addrs that any device holds, devices of Raven's and the one named except
// left out.
func (d *devices) holding(addrs []netip.Addr, except string) (datapath.Link, error) {
	for _, addr := range addrs {
		for _, index := range d.holder[addr.Unmap()] {
			at := slices.IndexFunc(d.links, func(l datapath.Link) bool { return l.Index == index })
			if at >= 0 && !Ours(d.links[at].Name) && d.links[at].Name != except {
				return d.links[at], nil
			}
		}
	}
	return datapath.Link{}, fmt.Errorf("find the underlay device: no device holds the node's address %v; "+
		"compare the Node's InternalIP with `ip address`", addrs)
}

// SourceIn returns an address of this host, on any device, that lies in one of the prefixes; invalid where there is
// none. Of several it is the lowest, so that the choice is stable.
func SourceIn(prefixes []netip.Prefix, is4 bool) (netip.Addr, error) {
	family := unix.AF_INET6
	if is4 {
		family = unix.AF_INET
	}
	addrs, err := Addresses(family)
	if err != nil {
		return netip.Addr{}, err
	}
	var best netip.Addr
	for _, a := range addrs {
		addr, ok := netip.AddrFromSlice(a.IP)
		addr = addr.Unmap()
		if !ok || addr.IsLinkLocalUnicast() || a.Flags&(unix.IFA_F_TENTATIVE|unix.IFA_F_DEPRECATED) != 0 {
			continue
		}
		inside := slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Contains(addr) })
		if inside && (!best.IsValid() || addr.Less(best)) {
			best = addr
		}
	}
	return best, nil
}

// Addresses lists the addresses of all devices; family is AF_INET, AF_INET6 or AF_UNSPEC for both.
func Addresses(family int) ([]netlink.Addr, error) {
	addrs, err := consistent(func() ([]netlink.Addr, error) { return netlink.AddrList(nil, family) })
	if err != nil {
		return nil, fmt.Errorf("list addresses of network devices: %w", err)
	}
	return addrs, nil
}

// listAttempts bounds how often a list that changed while it was read is read again.
const listAttempts = 10

// consistent repeats list while the kernel says that what it lists changed meanwhile, as pods' devices do.
func consistent[T any](list func() ([]T, error)) (out []T, err error) {
	for range listAttempts {
		if out, err = list(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			return out, err
		}
	}
	return nil, err
}
