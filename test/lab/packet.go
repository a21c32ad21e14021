package lab

import (
	"encoding/binary"
	"fmt"
	"net/netip"
)

// Packet is what the lab reads of a captured packet's outermost IP header and the transport header behind it.
type Packet struct {
	Src, Dst netip.Addr
	// Protocol is the IP protocol number (IPv6: of the first header that is no hop-by-hop, routing, fragment or
	// destination options header).
	Protocol uint8
	// SrcPort and DstPort of TCP and UDP; zero elsewhere and in later fragments.
	SrcPort, DstPort uint16
	// TTL or hop limit.
	TTL uint8
	// Length in bytes, from the IP header on.
	Length int
	// ICMPType of ICMP and ICMPv6.
	ICMPType uint8
	// Outgoing is true where the host sent the packet.
	Outgoing bool
	// Raw is the packet from the IP header on.
	Raw []byte
}

// IP protocol numbers.
const (
	ICMP   = 1
	TCP    = 6
	UDP    = 17
	ICMPv6 = 58
)

// String looks like tcpdump's line.
func (p Packet) String() string {
	switch p.Protocol {
	case TCP, UDP:
		name := map[uint8]string{TCP: "TCP", UDP: "UDP"}[p.Protocol]
		return fmt.Sprintf("%s > %s: %s, length %d", netip.AddrPortFrom(p.Src, p.SrcPort),
			netip.AddrPortFrom(p.Dst, p.DstPort), name, p.Length)
	case ICMP, ICMPv6:
		name := fmt.Sprintf("ICMP type %d", p.ICMPType)
		switch {
		case p.Protocol == ICMP && p.ICMPType == 8, p.Protocol == ICMPv6 && p.ICMPType == 128:
			name = "ICMP echo request"
		case p.Protocol == ICMP && p.ICMPType == 0, p.Protocol == ICMPv6 && p.ICMPType == 129:
			name = "ICMP echo reply"
		}
		return fmt.Sprintf("%s > %s: %s, ttl %d, length %d", p.Src, p.Dst, name, p.TTL, p.Length)
	default:
		return fmt.Sprintf("%s > %s: protocol %d, length %d", p.Src, p.Dst, p.Protocol, p.Length)
	}
}

// ParseIP reads a packet that begins with an IP header. Anything else gives false.
func ParseIP(b []byte) (Packet, bool) {
	if len(b) < 20 {
		return Packet{}, false
	}
	switch b[0] >> 4 {
	case 4:
		p := Packet{
			Src: netip.AddrFrom4([4]byte(b[12:16])), Dst: netip.AddrFrom4([4]byte(b[16:20])),
			Protocol: b[9], TTL: b[8], Length: int(binary.BigEndian.Uint16(b[2:])), Raw: b,
		}
		headers := int(b[0]&15) * 4
		if binary.BigEndian.Uint16(b[6:])&0x1fff == 0 && len(b) >= headers {
			p.transport(b[headers:])
		}
		return p, true
	case 6:
		if len(b) < 40 {
			return Packet{}, false
		}
		p := Packet{
			Src: netip.AddrFrom16([16]byte(b[8:24])), Dst: netip.AddrFrom16([16]byte(b[24:40])),
			Protocol: b[6], TTL: b[7], Length: int(binary.BigEndian.Uint16(b[4:])) + 40, Raw: b,
		}
		p.beyondExtensions(b[40:])
		return p, true
	}
	return Packet{}, false
}

func (p *Packet) beyondExtensions(b []byte) {
	const hopByHop, routing, fragment, destination = 0, 43, 44, 60
	for {
		length := 8
		switch p.Protocol {
		case hopByHop, routing, destination:
			if len(b) < 8 {
				return
			}
			length = int(b[1])*8 + 8
		case fragment:
			if len(b) < 8 {
				return
			}
			if binary.BigEndian.Uint16(b[2:])&0xfff8 != 0 { // not the first
				p.Protocol = b[0]
				return
			}
		default:
			p.transport(b)
			return
		}
		if len(b) < length {
			return
		}
		p.Protocol, b = b[0], b[length:]
	}
}

func (p *Packet) transport(b []byte) {
	switch {
	case (p.Protocol == TCP || p.Protocol == UDP) && len(b) >= 4:
		p.SrcPort, p.DstPort = binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
	case (p.Protocol == ICMP || p.Protocol == ICMPv6) && len(b) >= 1:
		p.ICMPType = b[0]
	}
}
