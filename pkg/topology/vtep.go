package topology

import (
	"hash/fnv"
	"net"
	"net/netip"
)

// VTEPMAC derives the MAC of a node's raven0 from its underlay address: aa:0f followed by the four bytes of an IPv4
// address, or by the FNV-1a hash of the sixteen bytes of an IPv6 one. aa has the locally administered bit set and the
// multicast bit clear.
func VTEPMAC(underlay netip.Addr) net.HardwareAddr {
	underlay = underlay.Unmap()
	if underlay.Is4() {
		b := underlay.As4()
		return net.HardwareAddr{0xaa, 0x0f, b[0], b[1], b[2], b[3]}
	}
	h := fnv.New32a()
	b := underlay.As16()
	h.Write(b[:]) // never fails
	s := h.Sum32()
	return net.HardwareAddr{0xaa, 0x0f, byte(s >> 24), byte(s >> 16), byte(s >> 8), byte(s)}
}

// LinkLocalFromMAC makes the IPv6 link-local address of a MAC by modified EUI-64 (RFC 4291, appendix A).
func LinkLocalFromMAC(mac net.HardwareAddr) netip.Addr {
	return netip.AddrFrom16([16]byte{
		0xfe, 0x80, 0, 0, 0, 0, 0, 0,
		mac[0] ^ 0x02, mac[1], mac[2], 0xff, 0xfe, mac[3], mac[4], mac[5],
	})
}
