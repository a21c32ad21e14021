package ipsec

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

const (
	// charonDevice is what kernel-libipsec calls its device in a namespace that has none.
	charonDevice = "ipsec0"
	// outsideDevice is the enclave's way out, which the relay serves.
	outsideDevice = "outside"
	// outsideMTU in bytes carries charon's largest packet: 1400 bytes that it reads at most, 37 of ESP (RFC 4303 with an
	// AEAD cipher), 8 of UDP and 40 of IPv6.
	outsideMTU = 1500
	// rulePriority precedes charon's own rule at 220, so that its routes, which it makes whatever it is told, are never
	// looked at.
	rulePriority = 100
)

// insideAddresses are charon's own in the enclave. Nobody outside sees them, and no peer can have them: the dummy address
// of RFC 7600 and one of the discard-only range of RFC 6666.
var insideAddresses = []netip.Addr{netip.MustParseAddr("192.0.0.8"), netip.MustParseAddr("100::1")}

// enclave is a network namespace for charon alone. charon's userspace ESP refuses a tunnel unless it finds a local
// address in each range of its own side, and lays routes that nobody asked for: in here it finds the addresses, and its
// routes lead nobody astray.
type enclave struct {
	*thread
	fd int
	nl *netlink.Handle
	// outside is the TUN device's file; the relay owns it.
	outside int
	// decoy keeps a device with the name of the one that left.
	decoy int
}

// newEnclave makes the namespace, with the calling process's thread count one higher for as long as it is open.
func newEnclave() (*enclave, error) {
	e := &enclave{fd: -1, outside: -1, decoy: -1}
	var err error
	if e.thread, err = newThread(e.enter); err == nil {
		err = e.furnish()
	}
	if err != nil {
		return nil, errors.Join(err, e.close())
	}
	return e, nil
}

func (e *enclave) enter() error {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("make a network namespace for charon: %w", err)
	}
	fd, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open charon's network namespace: %w", err)
	}
	e.fd = fd
	e.nl, err = netlink.NewHandleAt(netns.NsHandle(fd), unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("open rtnetlink in charon's network namespace: %w", err)
	}
	return nil
}

// furnish makes the way out.
func (e *enclave) furnish() (err error) {
	if e.outside, err = e.tun(outsideDevice); err != nil {
		return err
	}
	l, err := e.nl.LinkByName(outsideDevice)
	if err != nil {
		return fmt.Errorf("find the way out of charon's namespace: %w", err)
	}
	if err := errors.Join(e.nl.LinkSetMTU(l, outsideMTU), e.nl.LinkSetTxQLen(l, queueLength)); err != nil {
		return fmt.Errorf("set MTU and queue of the way out of charon's namespace: %w", err)
	}
	for _, a := range insideAddresses {
		if err := e.addAddress(l, a); err != nil {
			return err
		}
	}
	if err := e.nl.LinkSetUp(l); err != nil {
		return fmt.Errorf("set up the way out of charon's namespace: %w", err)
	}
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		all := &net.IPNet{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)}
		if family == unix.AF_INET6 {
			all = &net.IPNet{IP: net.IPv6zero, Mask: net.CIDRMask(0, 128)}
		}
		if err := e.nl.RouteReplace(&netlink.Route{LinkIndex: l.Attrs().Index, Dst: all, Scope: netlink.SCOPE_LINK}); err != nil {
			return fmt.Errorf("lead charon's packets out of its namespace: %w", err)
		}
		rule := netlink.NewRule()
		rule.Family, rule.Priority, rule.Table = family, rulePriority, unix.RT_TABLE_MAIN
		if err := e.nl.RuleAdd(rule); err != nil {
			return fmt.Errorf("put a rule before charon's own: %w", err)
		}
	}
	return nil
}

// tun makes a TUN device in the enclave and returns its file.
func (e *enclave) tun(name string) (fd int, err error) {
	err = e.do(func() error {
		fd, err = openTUN(name)
		return err
	})
	return fd, err
}

func openTUN(name string) (int, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return -1, fmt.Errorf("open /dev/net/tun for device %s: %w; load the kernel module tun, or give the container this device",
			name, err)
	}
	ifr, err := unix.NewIfreq(name)
	if err == nil {
		ifr.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr)
	}
	if err != nil {
		return -1, errors.Join(fmt.Errorf("make the TUN device %s: %w", name, err), unix.Close(fd))
	}
	return fd, nil
}

func (e *enclave) addAddress(l netlink.Link, a netip.Addr) error {
	addr := &netlink.Addr{
		IPNet: &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(a.BitLen(), a.BitLen())}, Flags: unix.IFA_F_NOPREFIXROUTE,
	}
	if a.Is6() {
		addr.Flags |= unix.IFA_F_NODAD
	}
	if err := e.nl.AddrAdd(l, addr); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("add address %s in charon's namespace: %w", a, err)
	}
	return nil
}

// releaseDevice moves charon's TUN device to the namespace host under another name, and leaves a device of the old name
// behind, which charon lays its routes to. The device arrives there down.
func (e *enclave) releaseDevice(host int, name string) error {
	l, err := e.nl.LinkByName(charonDevice)
	if err != nil {
		return fmt.Errorf("find charon's device: %w", err)
	}
	if err := e.nl.LinkSetDown(l); err != nil {
		return fmt.Errorf("set charon's device down: %w", err)
	}
	if err := e.nl.LinkSetName(l, name); err != nil {
		return fmt.Errorf("name charon's device %s: %w", name, err)
	}
	if err := e.nl.LinkSetNsFd(l, host); err != nil {
		return fmt.Errorf("move charon's device to this host as %s: %w", name, err)
	}
	if e.decoy, err = e.tun(charonDevice); err != nil {
		return err
	}
	if l, err = e.nl.LinkByName(charonDevice); err == nil {
		err = e.nl.LinkSetUp(l)
	}
	if err != nil {
		return fmt.Errorf("set up the device that charon lays its routes to: %w", err)
	}
	return nil
}

// setAddresses makes want, beside charon's own, the addresses that charon finds, and returns the number of writes.
func (e *enclave) setAddresses(want []netip.Addr) (changes int, err error) {
	l, err := e.nl.LinkByName(charonDevice)
	if err != nil {
		return 0, fmt.Errorf("find the device for charon's addresses: %w", err)
	}
	have, err := e.nl.AddrList(l, netlink.FAMILY_ALL)
	if err != nil {
		return 0, fmt.Errorf("list charon's addresses: %w", err)
	}
	missing := slices.Clone(want)
	for i := range have {
		a, _ := netip.AddrFromSlice(have[i].IP)
		if a = a.Unmap(); a.IsLinkLocalUnicast() {
			continue
		}
		if k := slices.Index(missing, a); k >= 0 {
			missing = slices.Delete(missing, k, k+1)
			continue
		}
		if err := e.nl.AddrDel(l, &have[i]); err != nil {
			return changes, fmt.Errorf("remove address %s in charon's namespace: %w", a, err)
		}
		changes++
	}
	for _, a := range missing {
		if err := e.addAddress(l, a); err != nil {
			return changes, err
		}
		changes++
	}
	return changes, nil
}

// close ends the namespace once nothing else is in it.
func (e *enclave) close() error {
	if e.thread != nil {
		e.end()
	}
	if e.nl != nil {
		e.nl.Close()
	}
	var errs []error
	for _, fd := range []int{e.decoy, e.outside, e.fd} {
		if fd >= 0 {
			errs = append(errs, os.NewSyscallError("close", unix.Close(fd)))
		}
	}
	return errors.Join(errs...)
}
