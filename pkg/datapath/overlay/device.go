package overlay

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ravencni/raven/pkg/datapath"
	"github.com/ravencni/raven/pkg/datapath/gro"
	"github.com/ravencni/raven/pkg/datapath/sysctl"
	"github.com/ravencni/raven/pkg/topology"
)

// addrGenMode keeps the kernel from making addresses of its own; addrGenNone is IN6_ADDR_GEN_MODE_NONE.
const (
	addrGenMode = "net/ipv6/conf/" + datapath.OverlayDevice + "/addr_gen_mode"
	addrGenNone = "1"
)

// find returns raven0, nil where there is none, and an error where a device of that name is not a VXLAN device and
// hence not Raven's.
func find() (*netlink.Vxlan, error) {
	l, err := netlink.LinkByName(datapath.OverlayDevice)
	if _, missing := errors.AsType[netlink.LinkNotFoundError](err); missing {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look up device %s: %w", datapath.OverlayDevice, err)
	}
	v, ok := l.(*netlink.Vxlan)
	if !ok {
		return nil, fmt.Errorf("device %s is of type %s and not one that Raven made: it stays; rename or delete it",
			datapath.OverlayDevice, l.Type())
	}
	return v, nil
}

func remove() (changes int, err error) {
	l, err := find()
	if err != nil || l == nil {
		return 0, err
	}
	if err := netlink.LinkDel(l); err != nil && !errors.Is(err, unix.ENODEV) {
		return 0, fmt.Errorf("delete device %s: %w", datapath.OverlayDevice, err)
	}
	return 1, nil
}

// ensureDevice makes raven0 exist with the planned attributes and up.
func ensureDevice(want *topology.Overlay) (link *netlink.Vxlan, changes int, err error) {
	have, err := find()
	if err != nil {
		return nil, 0, err
	}
	if have != nil && !sameDevice(have, want.Underlay) {
		n, err := remove()
		changes += n
		if err != nil {
			return nil, changes, err
		}
		have = nil
	}
	if have == nil {
		if err := netlink.LinkAdd(device(want)); err != nil {
			return nil, changes, fmt.Errorf("create device %s: %w", datapath.OverlayDevice, err)
		}
		changes++
		if have, err = find(); err != nil {
			return nil, changes, err
		}
		if have == nil {
			return nil, changes, fmt.Errorf("device %s vanished right after it was made", datapath.OverlayDevice)
		}
	}
	n, err := adjust(have, want)
	return have, changes + n, err
}

// device binds to no underlay device: the routing table of the underlay picks it, also after a link failed.
func device(want *topology.Overlay) *netlink.Vxlan {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = datapath.OverlayDevice
	attrs.MTU = want.MTU
	attrs.HardwareAddr = want.MAC
	return &netlink.Vxlan{
		LinkAttrs: attrs,
		VxlanId:   datapath.OverlayVNI,
		Port:      datapath.OverlayPort,
		SrcAddr:   want.Underlay.Unmap().AsSlice(),
		Learning:  false,
		// An IPv6 peer may send without the outer checksum (RFC 7348, section 5; RFC 6935): accept it. This end sends it.
		UDP6ZeroCSumRx: want.Underlay.Unmap().Is6(),
	}
}

// sameDevice compares what the kernel fixes when the device is made.
func sameDevice(v *netlink.Vxlan, underlay netip.Addr) bool {
	local, _ := netip.AddrFromSlice(v.SrcAddr)
	underlay = underlay.Unmap()
	return v.VxlanId == datapath.OverlayVNI && v.Port == datapath.OverlayPort && local.Unmap() == underlay &&
		!v.Learning && !v.FlowBased && !v.GBP && !v.Proxy && !v.RSC && !v.L2miss && !v.L3miss &&
		v.VtepDevIndex == 0 && len(v.Group) == 0 && v.UDP6ZeroCSumRx == underlay.Is6()
}

// adjust changes what can be changed in place. The address generation mode comes after the MTU, since IPv6 appears and
// vanishes with an MTU of 1280, and before the device is up, since that is when the kernel makes addresses.
func adjust(l *netlink.Vxlan, want *topology.Overlay) (changes int, err error) {
	attrs := l.Attrs()
	write := func(needed bool, what string, f func() error) {
		if err != nil || !needed {
			return
		}
		if e := f(); e != nil {
			err = fmt.Errorf("%s of device %s: %w", what, attrs.Name, e)
			return
		}
		changes++
	}
	write(attrs.MTU != want.MTU, "set the MTU", func() error { return netlink.LinkSetMTU(l, want.MTU) })
	write(!bytes.Equal(attrs.HardwareAddr, want.MAC), "set the MAC",
		func() error { return netlink.LinkSetHardwareAddr(l, want.MAC) })
	write(attrs.MasterIndex != 0, "drop the master", func() error { return netlink.LinkSetNoMaster(l) })
	mode, modeErr := sysctl.Read(addrGenMode)
	// Where the file is absent the device has no IPv6; IPv6On reports it.
	write(modeErr == nil && mode != addrGenNone, "set the IPv6 address generation",
		func() error { return sysctl.Write(addrGenMode, addrGenNone) })
	if err == nil {
		changed, groErr := gro.Off(attrs.Name)
		if err = groErr; changed {
			changes++
		}
	}
	write(attrs.Flags&net.FlagUp == 0, "set up", func() error { return netlink.LinkSetUp(l) })
	return changes, err
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
