package lab

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
)

// UDPPacket makes an IP packet of either family that carries a UDP datagram, with correct checksums.
func UDPPacket(from, to netip.AddrPort, ttl uint8, payload []byte) []byte {
	udp := make([]byte, 8, 8+len(payload))
	binary.BigEndian.PutUint16(udp, from.Port())
	binary.BigEndian.PutUint16(udp[2:], to.Port())
	binary.BigEndian.PutUint16(udp[4:], uint16(8+len(payload)))
	udp = append(udp, payload...)
	src, dst := from.Addr().AsSlice(), to.Addr().AsSlice()
	pseudo := sum(src) + sum(dst) + UDP + uint32(len(udp))
	check := fold(pseudo + sum(udp))
	if check == 0 {
		check = 0xffff
	}
	binary.BigEndian.PutUint16(udp[6:], check)

	var ip []byte
	if from.Addr().Is4() {
		ip = make([]byte, 20)
		ip[0], ip[8], ip[9] = 0x45, ttl, UDP
		binary.BigEndian.PutUint16(ip[2:], uint16(20+len(udp)))
		copy(ip[12:], src)
		copy(ip[16:], dst)
		binary.BigEndian.PutUint16(ip[10:], fold(sum(ip)))
	} else {
		ip = make([]byte, 40)
		ip[0], ip[6], ip[7] = 0x60, UDP, ttl
		binary.BigEndian.PutUint16(ip[4:], uint16(len(udp)))
		copy(ip[8:], src)
		copy(ip[24:], dst)
	}
	return append(ip, udp...)
}

func sum(b []byte) (total uint32) {
	for i := 0; i+1 < len(b); i += 2 {
		total += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	if len(b)%2 == 1 {
		total += uint32(b[len(b)-1]) << 8
	}
	return total
}

func fold(total uint32) uint16 {
	for total > 0xffff {
		total = total>>16 + total&0xffff
	}
	return ^uint16(total)
}

// VXLAN wraps an IP packet as VXLAN does: its header, an Ethernet header and the packet. It is the payload of a UDP
// datagram.
func VXLAN(vni uint32, dst, src net.HardwareAddr, packet []byte) []byte {
	b := make([]byte, 8)
	b[0] = 8 // the VNI is valid
	binary.BigEndian.PutUint32(b[4:], vni<<8)
	b = append(append(b, dst...), src...)
	kind := uint16(unix.ETH_P_IP)
	if packet[0]>>4 == 6 {
		kind = unix.ETH_P_IPV6
	}
	return append(binary.BigEndian.AppendUint16(b, kind), packet...)
}

// SendIP sends a packet that begins with its IP header, whatever its source says; the host's routes choose the way.
func (h *Host) SendIP(packet []byte) error {
	p, ok := ParseIP(packet)
	if !ok {
		return errors.New("send a packet: it has no IP header")
	}
	err := h.Do(func() error {
		family, to := unix.AF_INET, unix.Sockaddr(&unix.SockaddrInet4{Addr: first4(p.Dst)})
		if p.Dst.Is6() {
			family, to = unix.AF_INET6, &unix.SockaddrInet6{Addr: p.Dst.As16()}
		}
		fd, err := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
		if err != nil {
			return fmt.Errorf("open a raw socket: %w", err)
		}
		return errors.Join(unix.Sendto(fd, packet, 0, to), unix.Close(fd))
	})
	if err != nil {
		return fmt.Errorf("send %s on %s: %w", p, h.Name, err)
	}
	return nil
}

func first4(a netip.Addr) (b [4]byte) {
	if a.Is4() {
		b = a.As4()
	}
	return b
}

// SendBy sends a packet that begins with its IP header out of a device, past routes and filters, to a neighbour's
// link-layer address (nil on devices that have none).
func (h *Host) SendBy(dev string, to net.HardwareAddr, packet []byte) error {
	link, err := h.Link(dev)
	if err != nil {
		return err
	}
	kind := uint16(unix.ETH_P_IP)
	if packet[0]>>4 == 6 {
		kind = unix.ETH_P_IPV6
	}
	at := &unix.SockaddrLinklayer{Protocol: kind<<8 | kind>>8, Ifindex: link.Attrs().Index, Halen: uint8(len(to))}
	copy(at.Addr[:], to)
	err = h.Do(func() error {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("open a packet socket: %w", err)
		}
		return errors.Join(unix.Sendto(fd, packet, 0, at), unix.Close(fd))
	})
	if err != nil {
		return fmt.Errorf("send by %s on %s: %w", dev, h.Name, err)
	}
	return nil
}
