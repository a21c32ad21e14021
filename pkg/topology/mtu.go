package topology

import "github.com/ravencni/raven/pkg/apis/raven/v1beta1"

// Bytes that encapsulation adds to an inner IP packet.
const (
	// VXLANCost4 and VXLANCost6: outer IP 20 or 40, UDP 8, VXLAN 8, inner Ethernet 14 (RFC 7348).
	VXLANCost4 = 50
	VXLANCost6 = 70
	// WireGuardCost: outer IPv6 40, UDP 8, data message header 16, tag 16, padding up to 15 (whitepaper, section 5.4.6).
	// The worst case is taken for IPv4 peers too: one device serves both, and a NAT64 on the way adds the difference.
	WireGuardCost = 95
	// IPsecCost: outer IPv6 40, UDP 8 (RFC 3948), ESP header 8, IV 8, padding 3 and trailer 2 (RFC 4303), ICV 16 (AES-GCM,
	// RFC 4106; ChaCha20-Poly1305, RFC 7634). Other ciphers, which cost more, are not proposed.
	IPsecCost = 85
	// IPsecMTU is the longest inner packet that strongSwan's userspace ESP reads; it cuts off the rest. Which ends encrypt
	// in user space is not known here.
	IPsecMTU = 1400
)

const (
	// DefaultUnderlayMTU is taken for nodes that have not published theirs.
	DefaultUnderlayMTU = 1500
	// minMTU6 is what IPv6 demands of every link (RFC 8200, section 5); the kernel drops IPv6 from a device below it.
	minMTU6 = 1280
	// minMTU4 is the size that every IPv4 host must accept (RFC 791, section 3.1).
	minMTU4 = 576
	// maxMTU is the largest IP packet.
	maxMTU = 65535
)

// hop is a packet size in bytes, and the node whose underlay limits it.
type hop struct {
	mtu   int
	limit *node
}

func (a hop) least(b hop) hop {
	if b.mtu < a.mtu {
		return b
	}
	return a
}

// between is one hop over the underlay from one node to another with an encapsulation.
func between(a, b *node, cost int) hop {
	return hop{a.mtu, a}.least(hop{b.mtu, b}).less(cost)
}

func (a hop) less(cost int) hop { return hop{a.mtu - cost, a.limit} }

// publishedMTU of a node's underlay, in bytes.
func (m *model) publishedMTU(name string) int {
	if te := m.endpoints[name]; te != nil {
		return underlayMTU(te)
	}
	return DefaultUnderlayMTU
}

func underlayMTU(te *v1beta1.TunnelEndpoint) int {
	if mtu := te.Status.UnderlayMTU; mtu > 0 {
		return min(mtu, maxMTU)
	}
	return DefaultUnderlayMTU
}

func vxlanCost(ip6 bool) int {
	if ip6 {
		return VXLANCost6
	}
	return VXLANCost4
}

// tunnelCost of a packet between two regions that dial one another.
func (m *model) tunnelCost(a, b *region) int {
	switch m.config.Driver {
	case DriverWireGuard:
		return WireGuardCost
	case DriverPlain:
		return vxlanCost(a.end.dial.Addr().Is6() || b.end.dial.Addr().Is6())
	default:
		return IPsecCost
	}
}

// tunnelHop is the part of the way between the gateways of home and far, over the relay via where that is not far
// itself, and the overlay hop at the far side. That hop is judged by the far gateway's underlay alone: one node with a
// narrow link should not narrow the way to its whole region, and the far gateway answers for it with an ICMP error.
func (m *model) tunnelHop(home, via, far *region) hop {
	way := between(home.active, via.active, m.tunnelCost(home, via))
	if via != far {
		way = way.least(between(via.active, far.active, m.tunnelCost(via, far)))
	}
	return m.carried(way.least(hop{far.active.mtu, far.active}.less(vxlanCost(far.underlay6))))
}

// carried bounds a hop by what the driver itself can take.
func (m *model) carried(h hop) hop {
	if m.config.Driver == DriverIPsec {
		return h.least(hop{IPsecMTU, h.limit})
	}
	return h
}

// deviceMTU is what raven0 or the tunnel device of this hop gets.
func (m *model) deviceMTU(h hop) int { return m.routeMTU(h, m.ipv6) }

// routeMTU is what a route carries: at least what its address family needs, which costs fragments of the outer packet
// where the underlay is narrower, and is reported.
func (m *model) routeMTU(h hop, ip6 bool) int {
	floor := minMTU4
	if ip6 {
		floor = minMTU6
	}
	if h.mtu >= floor {
		return h.mtu
	}
	m.problems.add(nodeObject(h.limit.name), ReasonMTUTooSmall,
		"underlay MTU %d leaves %d bytes for inner packets, where %d are needed; outer packets will be fragmented: raise the MTU of the node's interface",
		h.limit.mtu, h.mtu, floor)
	return floor
}
