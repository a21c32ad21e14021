// Package device lists network devices with the properties that acceleration decides by.
package device

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/ravencni/raven/pkg/datapath/rtnl"
)

// OwnNamespace asks for the devices of the network namespace that the connection was opened in.
const OwnNamespace = -1

// skipStats is RTEXT_FILTER_SKIP_STATS of linux/rtnetlink.h: counters make up most of a device's message.
const skipStats = 1 << 3

// Attributes of IFLA_XDP, from linux/if_link.h.
const (
	xdpAttached  = 2 // IFLA_XDP_ATTACHED
	xdpProgramID = 4 // IFLA_XDP_PROG_ID
)

// Device is one network device.
type Device struct {
	Name  string
	Index int
	// Kind is the driver's word, such as veth, bridge or vxlan; empty for hardware.
	Kind string
	// MAC is nil where the device has no Ethernet address.
	MAC net.HardwareAddr
	// MTU in bytes.
	MTU int
	// Up is the administrative state.
	Up bool
	// Master is the index of the device that this one is enslaved to, or 0.
	Master int
	// Peer is the index of a veth's other end, in the namespace PeerNamespace.
	Peer int
	// PeerNamespace is the id that this namespace knows the peer's namespace by, or OwnNamespace.
	PeerNamespace int
	// XDP is true where an XDP program is attached; XDPProgram is its id, 0 where several modes are in use.
	XDP        bool
	XDPProgram uint32
}

// List returns the devices of a namespace: OwnNamespace, or an id as Device.PeerNamespace has it.
func List(c *rtnl.Conn, namespace int) ([]Device, error) {
	payload := make([]byte, unix.SizeofIfInfomsg)
	payload = rtnl.AppendUint32(payload, unix.IFLA_EXT_MASK, skipStats)
	if namespace != OwnNamespace {
		payload = rtnl.AppendUint32(payload, unix.IFLA_TARGET_NETNSID, uint32(namespace))
	}
	messages, err := c.Dump(unix.RTM_GETLINK, payload)
	if err != nil {
		return nil, fmt.Errorf("list network devices: %w", err)
	}
	devices := make([]Device, 0, len(messages))
	for _, m := range messages {
		if d, ok := parse(m); ok {
			devices = append(devices, d)
		}
	}
	return devices, nil
}

// Get returns one device of the connection's own namespace; the error is unix.ENODEV where there is none.
func Get(c *rtnl.Conn, index int) (Device, error) {
	payload := make([]byte, unix.SizeofIfInfomsg)
	binary.NativeEndian.PutUint32(payload[4:], uint32(index))
	message, err := c.Get(unix.RTM_GETLINK, rtnl.AppendUint32(payload, unix.IFLA_EXT_MASK, skipStats))
	if err != nil {
		return Device{}, fmt.Errorf("look at device %d: %w", index, err)
	}
	d, ok := parse(message)
	if !ok {
		return Device{}, fmt.Errorf("look at device %d: the kernel's answer is cut short", index)
	}
	return d, nil
}

func parse(m []byte) (Device, bool) {
	if len(m) < unix.SizeofIfInfomsg {
		return Device{}, false
	}
	d := Device{
		Index:         int(int32(binary.NativeEndian.Uint32(m[4:]))),
		Up:            binary.NativeEndian.Uint32(m[8:])&unix.IFF_UP != 0,
		PeerNamespace: OwnNamespace,
	}
	for a := range rtnl.Attributes(m[unix.SizeofIfInfomsg:]) {
		switch a.Type {
		case unix.IFLA_IFNAME:
			d.Name = a.Text()
		case unix.IFLA_ADDRESS:
			if len(a.Value) == 6 {
				d.MAC = net.HardwareAddr(a.Value)
			}
		case unix.IFLA_MTU:
			d.MTU = int(a.Uint32())
		case unix.IFLA_MASTER:
			d.Master = int(a.Uint32())
		case unix.IFLA_LINK:
			d.Peer = int(a.Uint32())
		case unix.IFLA_LINK_NETNSID:
			d.PeerNamespace = int(int32(a.Uint32()))
		case unix.IFLA_LINKINFO:
			for info := range rtnl.Attributes(a.Value) {
				if info.Type == unix.IFLA_INFO_KIND {
					d.Kind = info.Text()
				}
			}
		case unix.IFLA_XDP:
			for x := range rtnl.Attributes(a.Value) {
				switch x.Type {
				case xdpAttached:
					d.XDP = len(x.Value) > 0 && x.Value[0] != 0
				case xdpProgramID:
					d.XDPProgram = x.Uint32()
				}
			}
		}
	}
	return d, true
}

// Addresses returns the addresses of both families in a namespace, by device index.
func Addresses(c *rtnl.Conn, namespace int) (map[int][]netip.Addr, error) {
	payload := make([]byte, unix.SizeofIfAddrmsg)
	if namespace != OwnNamespace {
		payload = rtnl.AppendUint32(payload, unix.IFA_TARGET_NETNSID, uint32(namespace))
	}
	messages, err := c.Dump(unix.RTM_GETADDR, payload)
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	addrs := make(map[int][]netip.Addr)
	for _, m := range messages {
		if len(m) < unix.SizeofIfAddrmsg {
			continue
		}
		var addr netip.Addr
		for a := range rtnl.Attributes(m[unix.SizeofIfAddrmsg:]) {
			switch a.Type {
			case unix.IFA_LOCAL:
				addr = a.Addr()
			case unix.IFA_ADDRESS:
				// With a peer address IFA_ADDRESS is the peer's and IFA_LOCAL our own; IPv6 often has only the former.
				if !addr.IsValid() {
					addr = a.Addr()
				}
			}
		}
		if index := int(binary.NativeEndian.Uint32(m[4:])); addr.IsValid() {
			addrs[index] = append(addrs[index], addr)
		}
	}
	return addrs, nil
}
