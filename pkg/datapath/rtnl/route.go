package rtnl

import (
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Route is one route of one table, as far as Raven writes routes. It is comparable: two Routes are equal exactly where
// the kernel would forward by them alike.
type Route struct {
	Prefix netip.Prefix
	// Metric is the priority; IPv6 has no route without one (1024 where none is named).
	Metric uint32
	// Type is RTN_UNICAST, RTN_THROW, RTN_UNREACHABLE...
	Type uint8
	// Scope is RT_SCOPE_LINK for an IPv4 route without gateway, else RT_SCOPE_UNIVERSE.
	Scope    uint8
	Protocol uint8
	TOS      uint8
	// Device is the index of the outgoing device; 0 for types that have none.
	Device int
	// Gateway may be of the other family (RTA_VIA); invalid where there is none.
	Gateway netip.Addr
	// OnLink skips the check that the gateway is reachable through Device.
	OnLink bool
	// Source is the address that local senders prefer; invalid where none is.
	Source netip.Addr
	// MTU in bytes; 0 where the device's counts.
	MTU uint32
	// Other is true where a dumped route has attributes that Route does not show: multipath, next-hop objects,
	// encapsulation, other metrics.
	Other bool
}

// RouteKey tells routes of one table apart; NLM_F_REPLACE replaces by it.
type RouteKey struct {
	Prefix netip.Prefix
	Metric uint32
	TOS    uint8
}

// Key of the route.
func (r Route) Key() RouteKey { return RouteKey{r.Prefix, r.Metric, r.TOS} }

// RawRoute is a dumped route with the message that names it exactly.
type RawRoute struct {
	Route
	// NextHops are all devices of a multipath route; otherwise Device alone, or nothing.
	NextHops []int
	// Payload deletes this very route as a RTM_DELROUTE.
	Payload []byte
}

// Routes dumps one table of one family (AF_INET, AF_INET6).
func (c *Conn) Routes(family uint8, table uint32) ([]RawRoute, error) {
	req := AppendUint32(routeHeader(unix.RtMsg{Family: family}), unix.RTA_TABLE, table)
	payloads, err := c.Dump(unix.RTM_GETROUTE, req)
	if err != nil {
		return nil, fmt.Errorf("list %s routes of table %d: %w", FamilyName(family), table, err)
	}
	routes := make([]RawRoute, 0, len(payloads))
	for _, p := range payloads {
		if r, t, ok := parseRoute(p); ok && t == table && Family(r.Prefix.Addr()) == family {
			routes = append(routes, r)
		}
	}
	return routes, nil
}

func routeHeader(m unix.RtMsg) []byte {
	b := make([]byte, 0, 80)
	b = append(b, m.Family, m.Dst_len, m.Src_len, m.Tos, m.Table, m.Protocol, m.Scope, m.Type)
	return native.AppendUint32(b, m.Flags)
}

// Payload encodes the route for RTM_NEWROUTE into a table.
func (r Route) Payload(table uint32) []byte {
	m := unix.RtMsg{
		Family: Family(r.Prefix.Addr()), Dst_len: uint8(r.Prefix.Bits()), Tos: r.TOS,
		Protocol: r.Protocol, Scope: r.Scope, Type: r.Type,
	}
	if r.OnLink {
		m.Flags |= unix.RTNH_F_ONLINK
	}
	b := routeHeader(m)
	b = AppendUint32(b, unix.RTA_TABLE, table)
	b = AppendAttribute(b, unix.RTA_DST, r.Prefix.Addr().AsSlice())
	if r.Metric != 0 {
		b = AppendUint32(b, unix.RTA_PRIORITY, r.Metric)
	}
	if r.Device != 0 {
		b = AppendUint32(b, unix.RTA_OIF, uint32(r.Device))
	}
	switch {
	case !r.Gateway.IsValid():
	case r.Gateway.Is4() == r.Prefix.Addr().Is4():
		b = AppendAttribute(b, unix.RTA_GATEWAY, r.Gateway.AsSlice())
	default:
		via := native.AppendUint16(nil, uint16(Family(r.Gateway)))
		b = AppendAttribute(b, unix.RTA_VIA, append(via, r.Gateway.AsSlice()...))
	}
	if r.Source.IsValid() {
		b = AppendAttribute(b, unix.RTA_PREFSRC, r.Source.AsSlice())
	}
	if r.MTU != 0 {
		b = AppendAttribute(b, unix.RTA_METRICS, AppendUint32(nil, unix.RTAX_MTU, r.MTU))
	}
	return b
}

// parseRoute reads a RTM_NEWROUTE payload; ok is false where it is cut short or a cached exception.
func parseRoute(p []byte) (raw RawRoute, table uint32, ok bool) {
	if len(p) < unix.SizeofRtMsg {
		return RawRoute{}, 0, false
	}
	if native.Uint32(p[8:])&unix.RTM_F_CLONED != 0 {
		return RawRoute{}, 0, false
	}
	family, bits := p[0], int(p[1])
	table = uint32(p[4])
	r := Route{
		TOS: p[3], Protocol: p[5], Scope: p[6], Type: p[7],
		OnLink: native.Uint32(p[8:])&unix.RTNH_F_ONLINK != 0,
		Other:  p[2] != 0,
	}
	dst := netip.IPv4Unspecified()
	if family == unix.AF_INET6 {
		dst = netip.IPv6Unspecified()
	}
	var hops []int
	for a := range Attributes(p[unix.SizeofRtMsg:]) {
		switch a.Type {
		case unix.RTA_TABLE:
			table = a.Uint32()
		case unix.RTA_DST:
			dst = a.Addr()
		case unix.RTA_PRIORITY:
			r.Metric = a.Uint32()
		case unix.RTA_OIF:
			r.Device = int(a.Uint32())
			hops = append(hops, r.Device)
		case unix.RTA_GATEWAY:
			r.Gateway = a.Addr()
		case unix.RTA_VIA:
			if len(a.Value) > 2 {
				r.Gateway, _ = netip.AddrFromSlice(a.Value[2:])
			}
		case unix.RTA_PREFSRC:
			r.Source = a.Addr()
		case unix.RTA_METRICS:
			r.Other = r.readMetrics(a.Value) || r.Other
		case unix.RTA_MULTIPATH:
			r.Other = true
			hops = append(hops, multipathDevices(a.Value)...)
		case unix.RTA_CACHEINFO, unix.RTA_PREF:
			// Ages and router preference do not change where a packet goes.
		default:
			r.Other = true
		}
	}
	if r.Type != unix.RTN_UNICAST && family == unix.AF_INET6 {
		r.Device, hops = 0, nil // the kernel shows loopback for throw and unreachable
	}
	r.Prefix = netip.PrefixFrom(dst, bits)
	return RawRoute{Route: r, NextHops: hops, Payload: p}, table, r.Prefix.IsValid()
}

// readMetrics reports whether there is any but the MTU.
func (r *Route) readMetrics(b []byte) (other bool) {
	for a := range Attributes(b) {
		if a.Type == unix.RTAX_MTU {
			r.MTU = a.Uint32()
		} else {
			other = true
		}
	}
	return other
}

// multipathDevices walks struct rtnexthop: length (2 bytes), flags, hops, ifindex (4 bytes), attributes.
func multipathDevices(b []byte) (indices []int) {
	for len(b) >= unix.SizeofRtNexthop {
		n := int(native.Uint16(b))
		if n < unix.SizeofRtNexthop || n > len(b) {
			break
		}
		indices = append(indices, int(native.Uint32(b[4:])))
		b = b[min(align(n), len(b)):]
	}
	return indices
}
