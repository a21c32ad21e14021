// Package link brings what every tunnel device has in common (MTU, queue, the node's addresses, up) to the planned
// state, and makes no write where it is there already.
package link

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ravencni/raven/pkg/topology"
)

// Want is the state of a device that Apply establishes.
type Want struct {
	// MTU in bytes; 0 leaves it alone.
	MTU int
	// TxQueueLen in packets; 0 leaves it alone.
	TxQueueLen int
	// Addresses to carry, each as a /32 or /128 of global scope without a prefix route. Any other address but an IPv6
	// link-local one is removed.
	Addresses []netip.Addr
}

// NodeAddresses lists the addresses that a tunnel device of the plan's node carries, so that source selection and a
// loose rp_filter find one there.
func NodeAddresses(plan *topology.Plan) []netip.Addr {
	var addresses []netip.Addr
	for _, a := range []netip.Addr{plan.NodeIP4, plan.NodeIP6} {
		if a.IsValid() {
			addresses = append(addresses, a.Unmap())
		}
	}
	return addresses
}

// Find returns the device called name, or nil where there is none.
func Find(name string) (netlink.Link, error) {
	l, err := netlink.LinkByName(name)
	if _, missing := errors.AsType[netlink.LinkNotFoundError](err); missing {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look up device %s: %w", name, err)
	}
	return l, nil
}

// Delete removes the device called name and returns the number of writes; an absent device is no error. It refuses a
// device whose link type is none of kinds, since it is not Raven's.
func Delete(name string, kinds ...string) (changes int, err error) {
	l, err := Find(name)
	if err != nil || l == nil {
		return 0, err
	}
	if !slices.Contains(kinds, l.Type()) {
		return 0, fmt.Errorf("device %s is of type %s and not one that Raven made: it stays; rename or delete it", name, l.Type())
	}
	if err := netlink.LinkDel(l); err != nil && !errors.Is(err, unix.ENODEV) {
		return 0, fmt.Errorf("delete device %s: %w", name, err)
	}
	return 1, nil
}

// Apply establishes want on l, whose attributes must be fresh, and returns the number of writes. One address that the
// kernel refuses does not keep the rest from being done. The device comes up last.
func Apply(l netlink.Link, want Want) (changes int, err error) {
	attrs := l.Attrs()
	var errs []error
	write := func(what string, err error) {
		if err != nil {
			errs = append(errs, fmt.Errorf("%s device %s: %w", what, attrs.Name, err))
			return
		}
		changes++
	}
	if want.MTU != 0 && attrs.MTU != want.MTU {
		write(fmt.Sprintf("set MTU %d on", want.MTU), netlink.LinkSetMTU(l, want.MTU))
	}
	if want.TxQueueLen != 0 && attrs.TxQLen != want.TxQueueLen {
		write(fmt.Sprintf("set a queue of %d packets on", want.TxQueueLen), netlink.LinkSetTxQLen(l, want.TxQueueLen))
	}
	n, err := applyAddresses(l, want.Addresses)
	changes += n
	errs = append(errs, err)
	if attrs.Flags&net.FlagUp == 0 {
		write("set up", netlink.LinkSetUp(l))
	}
	return changes, errors.Join(errs...)
}

// addressFlags of an address of ours; the kernel adds IFA_F_PERMANENT. A node's address is unique already, so that
// duplicate address detection would only delay it.
const addressFlags = unix.IFA_F_NOPREFIXROUTE | unix.IFA_F_NODAD

func applyAddresses(l netlink.Link, want []netip.Addr) (changes int, err error) {
	name := l.Attrs().Name
	have, err := Addresses(l)
	if err != nil {
		return 0, err
	}
	var errs []error
	missing := slices.Clone(want)
	for i := range have {
		ip, ok := netip.AddrFromSlice(have[i].IP)
		if !ok || ip.Is6() && !ip.Is4In6() && ip.IsLinkLocalUnicast() {
			continue // the kernel's own
		}
		if ip = ip.Unmap(); slices.Contains(missing, ip) && asPlanned(have[i]) {
			missing = slices.DeleteFunc(missing, func(a netip.Addr) bool { return a == ip })
			continue
		}
		if err := netlink.AddrDel(l, &have[i]); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
			errs = append(errs, fmt.Errorf("remove address %s from device %s: %w", have[i].IPNet, name, err))
			continue
		}
		changes++
	}
	for _, ip := range missing {
		addr := &netlink.Addr{IPNet: hostNet(ip), Flags: unix.IFA_F_NOPREFIXROUTE, Scope: int(netlink.SCOPE_UNIVERSE)}
		if ip.Is6() {
			addr.Flags = addressFlags
		}
		err := netlink.AddrAdd(l, addr)
		if ip.Is6() && errors.Is(err, unix.EACCES) {
			err = fmt.Errorf("%w: IPv6 is switched off there; set net.ipv6.conf.%s.disable_ipv6 to 0", err, name)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("add address %s to device %s: %w", addr.IPNet, name, err))
			continue
		}
		changes++
	}
	return changes, errors.Join(errs...)
}

// Addresses lists the addresses of l, again where another writer disturbed the listing.
func Addresses(l netlink.Link) ([]netlink.Addr, error) {
	addrs, err := Undisturbed(func() ([]netlink.Addr, error) { return netlink.AddrList(l, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, fmt.Errorf("list addresses of device %s: %w", l.Attrs().Name, err)
	}
	return addrs, nil
}

// Undisturbed repeats a netlink listing that a concurrent change made inconsistent, a few times at most.
func Undisturbed[T any](list func() ([]T, error)) (items []T, err error) {
	for range 5 {
		if items, err = list(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			return items, err
		}
	}
	return nil, err
}

func asPlanned(a netlink.Addr) bool {
	ones, bits := a.Mask.Size()
	return ones == bits && a.Scope == int(netlink.SCOPE_UNIVERSE) && a.Flags&unix.IFA_F_NOPREFIXROUTE != 0
}

func hostNet(ip netip.Addr) *net.IPNet {
	return &net.IPNet{IP: ip.AsSlice(), Mask: net.CIDRMask(ip.BitLen(), ip.BitLen())}
}
