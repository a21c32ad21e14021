package ipsec

import (
	"encoding/binary"
	"net/netip"
)

const (
	ip4Header = 20
	ip6Header = 40
	udpHeader = 8
	protoUDP  = 17
	// hopLimit of packets inside the enclave, which go one hop.
	hopLimit = 64
)

// parseUDP takes a whole, unfragmented UDP packet apart; payload is part of packet.
func parseUDP(packet []byte) (src, dst netip.AddrPort, payload []byte, ok bool) {
	if len(packet) < ip4Header {
		return src, dst, nil, false
	}
	var from, to netip.Addr
	var udp []byte
	switch packet[0] >> 4 {
	case 4:
		head := int(packet[0]&0xf) * 4
		total := int(binary.BigEndian.Uint16(packet[2:]))
		fragment := binary.BigEndian.Uint16(packet[6:]) & 0x3fff // more-fragments flag and offset
		if packet[9] != protoUDP || fragment != 0 || head < ip4Header || total > len(packet) || total < head+udpHeader {
			return src, dst, nil, false
		}
		from, to = netip.AddrFrom4([4]byte(packet[12:16])), netip.AddrFrom4([4]byte(packet[16:20]))
		udp = packet[head:total]
	case 6:
		if len(packet) < ip6Header+udpHeader || packet[6] != protoUDP {
			return src, dst, nil, false
		}
		total := ip6Header + int(binary.BigEndian.Uint16(packet[4:]))
		if total > len(packet) || total < ip6Header+udpHeader {
			return src, dst, nil, false
		}
		from, to = netip.AddrFrom16([16]byte(packet[8:24])), netip.AddrFrom16([16]byte(packet[24:40]))
		udp = packet[ip6Header:total]
	default:
		return src, dst, nil, false
	}
	length := int(binary.BigEndian.Uint16(udp[4:]))
	if length < udpHeader || length > len(udp) {
		return src, dst, nil, false
	}
	src = netip.AddrPortFrom(from, binary.BigEndian.Uint16(udp))
	dst = netip.AddrPortFrom(to, binary.BigEndian.Uint16(udp[2:]))
	return src, dst, udp[udpHeader:length], true
}

// headroom is what buildUDP may put before the payload.
const headroom = ip6Header + udpHeader

// buildUDP writes IP and UDP headers in front of the payload that begins at buffer[headroom], and returns the packet,
// which is part of buffer. Both addresses must be of one family.
func buildUDP(buffer []byte, src, dst netip.AddrPort) []byte {
	payload := buffer[headroom:]
	length := udpHeader + len(payload)
	udp := buffer[headroom-udpHeader:]
	binary.BigEndian.PutUint16(udp, src.Port())
	binary.BigEndian.PutUint16(udp[2:], dst.Port())
	binary.BigEndian.PutUint16(udp[4:], uint16(length))
	udp[6], udp[7] = 0, 0
	if src.Addr().Is4() {
		// Without a UDP checksum, which IPv4 allows: the outer packet's was checked already.
		packet := buffer[headroom-udpHeader-ip4Header:]
		from, to := src.Addr().As4(), dst.Addr().As4()
		copy(packet, []byte{0x45, 0, 0, 0, 0, 0, 0x40, 0, hopLimit, protoUDP, 0, 0})
		binary.BigEndian.PutUint16(packet[2:], uint16(ip4Header+length))
		copy(packet[12:], from[:])
		copy(packet[16:], to[:])
		binary.BigEndian.PutUint16(packet[10:], ^fold(sum(packet[:ip4Header])))
		return packet
	}
	packet := buffer[:]
	from, to := src.Addr().As16(), dst.Addr().As16()
	copy(packet, []byte{0x60, 0, 0, 0, 0, 0, protoUDP, hopLimit})
	binary.BigEndian.PutUint16(packet[4:], uint16(length))
	copy(packet[8:], from[:])
	copy(packet[24:], to[:])
	check := ^fold(sum(from[:]) + sum(to[:]) + uint64(length) + protoUDP + sum(udp[:length]))
	if check == 0 {
		check = 0xffff
	}
	binary.BigEndian.PutUint16(udp[6:], check)
	return packet
}

// sum adds 16-bit words as RFC 1071 does, not folded yet.
func sum(b []byte) (s uint64) {
	for ; len(b) >= 4; b = b[4:] {
		v := binary.BigEndian.Uint32(b)
		s += uint64(v>>16) + uint64(v&0xffff)
	}
	if len(b) >= 2 {
		s += uint64(binary.BigEndian.Uint16(b))
		b = b[2:]
	}
	if len(b) == 1 {
		s += uint64(b[0]) << 8
	}
	return s
}

func fold(s uint64) uint16 {
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return uint16(s)
}
