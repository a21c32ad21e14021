package lab

import (
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// connect makes a veth between two hosts and sets both ends up. Their addresses stay the same over a reboot, as those of
// real cards do.
func connect(a *Host, aName string, b *Host, bName string) error {
	veth := &netlink.Veth{
		LinkAttrs: netlink.NewLinkAttrs(), PeerName: bName, PeerNamespace: netlink.NsFd(int(b.net.Fd())),
		PeerHardwareAddr: macOf(b, bName),
	}
	veth.Name, veth.HardwareAddr = aName, macOf(a, aName)
	if err := a.nl.LinkAdd(veth); err != nil {
		return fmt.Errorf("make a veth %s@%s - %s@%s: %w", aName, a.Name, bName, b.Name, err)
	}
	return errors.Join(a.Up(aName), b.Up(bName))
}

// Connect makes a veth between two hosts of the lab and sets both ends up.
func (l *Lab) Connect(a, aName, b, bName string) error {
	return connect(l.Host(a), aName, l.Host(b), bName)
}

// unplug removes the host's cards at once; with its namespace they would vanish too, but later.
func (h *Host) unplug() error {
	links, err := h.nl.LinkList()
	if err != nil {
		return fmt.Errorf("list the devices of %s: %w", h.Name, err)
	}
	for _, link := range links {
		if link.Type() == "veth" {
			if e := h.nl.LinkDel(link); e != nil {
				err = errors.Join(err, fmt.Errorf("remove %s from %s: %w", link.Attrs().Name, h.Name, e))
			}
		}
	}
	return err
}

// Up sets a device up. Duplicate address detection is off on it, so that its link-local address serves at once.
func (h *Host) Up(dev string) error {
	link, err := h.Link(dev)
	if err != nil {
		return err
	}
	if err := h.Sysctl("net/ipv6/conf/"+dev+"/accept_dad", "0"); err != nil {
		return err
	}
	if err := h.nl.LinkSetUp(link); err != nil {
		return fmt.Errorf("set %s up on %s: %w", dev, h.Name, err)
	}
	return nil
}

// macOf makes a card's address from its host and name.
func macOf(h *Host, dev string) net.HardwareAddr {
	sum := fnv.New32a()
	io.WriteString(sum, h.Name+"/"+dev) // never fails
	return sum.Sum(net.HardwareAddr{2, 0})
}

// Link finds a device by name.
func (h *Host) Link(dev string) (netlink.Link, error) {
	link, err := h.nl.LinkByName(dev)
	if err != nil {
		return nil, fmt.Errorf("find device %s on %s: %w", dev, h.Name, err)
	}
	return link, nil
}

// AddBridge makes a Linux bridge, without spanning tree, and sets it up.
func (h *Host) AddBridge(name string) error {
	br := &netlink.Bridge{LinkAttrs: netlink.NewLinkAttrs()}
	br.Name = name
	if err := h.nl.LinkAdd(br); err != nil {
		return fmt.Errorf("make bridge %s on %s: %w", name, h.Name, err)
	}
	return h.Up(name)
}

// Enslave makes dev a port of a bridge.
func (h *Host) Enslave(dev, bridge string) error {
	port, err := h.Link(dev)
	if err != nil {
		return err
	}
	br, err := h.Link(bridge)
	if err != nil {
		return err
	}
	if err := h.nl.LinkSetMasterByIndex(port, br.Attrs().Index); err != nil {
		return fmt.Errorf("make %s a port of %s on %s: %w", dev, bridge, h.Name, err)
	}
	return nil
}

// AddAddr gives dev an address with its prefix length. Duplicate address detection is off for it, so that it can be
// used at once.
func (h *Host) AddAddr(dev string, p netip.Prefix) error {
	link, err := h.Link(dev)
	if err != nil {
		return err
	}
	a := &netlink.Addr{IPNet: ipNet(p)}
	if p.Addr().Is6() {
		a.Flags = unix.IFA_F_NODAD
	}
	if err := h.nl.AddrAdd(link, a); err != nil {
		return fmt.Errorf("add address %s to %s on %s: %w", p, dev, h.Name, err)
	}
	return nil
}

// AddRoute adds a route in the main table: dst by dev, through via where that is valid.
func (h *Host) AddRoute(dst netip.Prefix, via netip.Addr, dev string) error {
	link, err := h.Link(dev)
	if err != nil {
		return err
	}
	r := &netlink.Route{LinkIndex: link.Attrs().Index, Dst: ipNet(dst)}
	if via.IsValid() {
		r.Gw = via.AsSlice()
	} else {
		r.Scope = netlink.SCOPE_LINK
	}
	if err := h.nl.RouteAdd(r); err != nil {
		return fmt.Errorf("add route %s via %s dev %s on %s: %w", dst, via, dev, h.Name, err)
	}
	return nil
}

// Sysctl sets a value below /proc/sys, such as net/ipv4/ip_forward.
func (h *Host) Sysctl(name, value string) error {
	return h.Do(func() error {
		if err := os.WriteFile("/proc/sys/"+name, []byte(value), 0); err != nil {
			return fmt.Errorf("set sysctl %s=%s on %s: %w", name, value, h.Name, err)
		}
		return nil
	})
}

// ReadSysctl reads a value below /proc/sys.
func (h *Host) ReadSysctl(name string) (value string, err error) {
	err = h.Do(func() error {
		b, err := os.ReadFile("/proc/sys/" + name)
		value = strings.TrimSpace(string(b))
		return err
	})
	if err != nil {
		return "", fmt.Errorf("read sysctl %s on %s: %w", name, h.Name, err)
	}
	return value, nil
}

// forward makes the host a router for both families.
func (h *Host) forward() error {
	return errors.Join(h.Sysctl("net/ipv4/ip_forward", "1"), h.Sysctl("net/ipv6/conf/all/forwarding", "1"))
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// host is the prefix of one address.
func host(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

// at is the address with its network's prefix length.
func at(a netip.Addr, network netip.Prefix) netip.Prefix { return netip.PrefixFrom(a, network.Bits()) }

// first is the first usable address of a network: its router.
func first(network netip.Prefix) netip.Addr { return network.Masked().Addr().Next() }
