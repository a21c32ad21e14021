package rtnl

import (
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
)

// MAC is a comparable Ethernet address.
type MAC [6]byte

func (m MAC) String() string { return net.HardwareAddr(m[:]).String() }

// Neighbour is an entry of a device's neighbour table (family AF_INET, AF_INET6) or of its forwarding database
// (AF_BRIDGE). It is comparable.
type Neighbour struct {
	Family uint8
	Device int
	// State is NUD_PERMANENT and the like.
	State uint16
	// Addr is the neighbour's address, or the remote VTEP of a forwarding entry.
	Addr netip.Addr
	MAC  MAC
	// Other is true where a dumped forwarding entry has its own port, VNI or lower device.
	Other bool
}

// RawNeighbour is a dumped neighbour with the message that names it exactly.
type RawNeighbour struct {
	Neighbour
	// Payload deletes this very entry as a RTM_DELNEIGH.
	Payload []byte
}

const (
	// struct ndmsg: family, pad (3 bytes), ifindex (4), state (2), flags, type.
	neighbourHeaderBytes = unix.SizeofNdMsg
	// NDA_PROTOCOL of linux/neighbour.h, which golang.org/x/sys/unix does not name.
	attrNeighbourProtocol = 12
)

// Neighbours dumps the entries of one device; family is AF_INET, AF_INET6 or AF_BRIDGE.
func (c *Conn) Neighbours(family uint8, device int) ([]RawNeighbour, error) {
	req := append([]byte{family}, make([]byte, neighbourHeaderBytes-1)...)
	req = AppendUint32(req, unix.NDA_IFINDEX, uint32(device))
	payloads, err := c.Dump(unix.RTM_GETNEIGH, req)
	if err != nil {
		return nil, fmt.Errorf("list neighbours (family %d) of device %d: %w", family, device, err)
	}
	out := make([]RawNeighbour, 0, len(payloads))
	for _, p := range payloads {
		if n, ok := parseNeighbour(p); ok && n.Family == family && n.Device == device {
			out = append(out, RawNeighbour{Neighbour: n, Payload: p})
		}
	}
	return out, nil
}

// Payload encodes the entry for RTM_NEWNEIGH with an owner's protocol number.
func (n Neighbour) Payload(protocol uint8) []byte {
	b := make([]byte, 0, 64)
	b = append(b, n.Family, 0, 0, 0)
	b = native.AppendUint32(b, uint32(n.Device))
	b = native.AppendUint16(b, n.State)
	var flags uint8
	if n.Family == unix.AF_BRIDGE {
		flags = unix.NTF_SELF
	}
	b = append(b, flags, 0)
	b = AppendAttribute(b, unix.NDA_DST, n.Addr.AsSlice())
	b = AppendAttribute(b, unix.NDA_LLADDR, n.MAC[:])
	if n.Family != unix.AF_BRIDGE {
		b = AppendAttribute(b, attrNeighbourProtocol, []byte{protocol})
	}
	return b
}

func parseNeighbour(p []byte) (n Neighbour, ok bool) {
	if len(p) < neighbourHeaderBytes {
		return Neighbour{}, false
	}
	n = Neighbour{Family: p[0], Device: int(native.Uint32(p[4:])), State: native.Uint16(p[8:])}
	for a := range Attributes(p[neighbourHeaderBytes:]) {
		switch a.Type {
		case unix.NDA_DST:
			n.Addr = a.Addr()
		case unix.NDA_LLADDR:
			if len(a.Value) == len(n.MAC) {
				n.MAC = MAC(a.Value)
			}
		case unix.NDA_PORT, unix.NDA_VNI, unix.NDA_SRC_VNI:
			n.Other = true
		case unix.NDA_IFINDEX:
			n.Other = n.Other || n.Family == unix.AF_BRIDGE
		}
	}
	return n, true
}
