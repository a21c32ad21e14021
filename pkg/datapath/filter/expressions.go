package filter

import (
	"net/netip"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// reg is the one register that rules need: each value is compared or looked up as soon as it is loaded.
const reg = unix.NFT_REG_1

// family of IP that a rule or set is for.
type family struct {
	nfproto byte
	suffix  string // of set and chain names
	src     expr.Payload
	dst     expr.Payload
}

// Offsets of the addresses in the IPv4 (RFC 791) and IPv6 (RFC 8200) headers.
var (
	family4 = family{unix.NFPROTO_IPV4, "4", ipField(12, 4), ipField(16, 4)}
	family6 = family{unix.NFPROTO_IPV6, "6", ipField(8, 16), ipField(24, 16)}
)

func ipField(offset, length uint32) expr.Payload {
	return expr.Payload{DestRegister: reg, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: length}
}

// match is a sequence of expressions that lets matching packets go on to the next.
type match = []expr.Any

func join(parts ...match) []expr.Any {
	var out []expr.Any
	for _, p := range parts {
		out = append(out, p...)
	}
	return out
}

func cmpReg(op expr.CmpOp, data []byte) expr.Any { return &expr.Cmp{Op: op, Register: reg, Data: data} }

// is matches packets of the family; a chain of the table inet sees both.
func (f family) is() match {
	return match{&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: reg}, cmpReg(expr.CmpOpEq, []byte{f.nfproto})}
}

// srcIn and dstIn look an address up in the family's set of that name.
func (f family) srcIn(set string) match { return f.lookup(f.src, set, false) }
func (f family) dstIn(set string) match { return f.lookup(f.dst, set, false) }

// srcNotIn matches sources outside the set.
func (f family) srcNotIn(set string) match { return f.lookup(f.src, set, true) }

func (f family) lookup(field expr.Payload, set string, invert bool) match {
	return match{&field, &expr.Lookup{SourceRegister: reg, SetName: set + f.suffix, Invert: invert}}
}

// srcIs matches one source address.
func (f family) srcIs(a netip.Addr) match {
	src := f.src
	return match{&src, cmpReg(expr.CmpOpEq, a.AsSlice())}
}

// dstWithin matches destinations inside a prefix.
func (f family) dstWithin(p netip.Prefix) match {
	dst := f.dst
	mask := make([]byte, dst.Len)
	for i := range p.Bits() {
		mask[i/8] |= 0x80 >> (i % 8)
	}
	return match{&dst,
		&expr.Bitwise{SourceRegister: reg, DestRegister: reg, Len: dst.Len, Mask: mask, Xor: make([]byte, dst.Len)},
		cmpReg(expr.CmpOpEq, p.Masked().Addr().AsSlice())}
}

// ifname is a device's name as the kernel compares it, 16 bytes (IFNAMSIZ) padded with zeros; a pattern, which ends in *, is compared as
// far as it goes.
func ifname(name string) []byte {
	if begin, pattern := strings.CutSuffix(name, "*"); pattern {
		return []byte(begin)
	}
	b := make([]byte, unix.IFNAMSIZ)
	copy(b, name)
	return b
}

func iifIs(name string) match {
	return match{&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: reg}, cmpReg(expr.CmpOpEq, ifname(name))}
}

func oifIs(name string) match {
	return match{&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: reg}, cmpReg(expr.CmpOpEq, ifname(name))}
}

// iifInUnderlays and oifInUnderlays match devices that lead to the members.
func iifInUnderlays(invert bool) match {
	return match{&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: reg},
		&expr.Lookup{SourceRegister: reg, SetName: setUnderlays, Invert: invert}}
}

func oifInUnderlays() match {
	return match{&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: reg},
		&expr.Lookup{SourceRegister: reg, SetName: setUnderlays}}
}

func l4proto(proto byte) match {
	return match{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg}, cmpReg(expr.CmpOpEq, []byte{proto})}
}

// udpTo matches a UDP destination port.
func udpTo(port uint16) match {
	return append(l4proto(unix.IPPROTO_UDP),
		&expr.Payload{DestRegister: reg, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		cmpReg(expr.CmpOpEq, binaryutil.BigEndian.PutUint16(port)))
}

// tcpSYN matches SYN and SYN-ACK: the segments that carry the MSS option. Byte 13 holds the flags (RFC 9293).
func tcpSYN() match {
	const syn, rst = 0x02, 0x04
	return append(l4proto(unix.IPPROTO_TCP),
		&expr.Payload{DestRegister: reg, Base: expr.PayloadBaseTransportHeader, Offset: 13, Len: 1},
		&expr.Bitwise{SourceRegister: reg, DestRegister: reg, Len: 1, Mask: []byte{syn | rst}, Xor: []byte{0}},
		cmpReg(expr.CmpOpEq, []byte{syn}))
}

// clampMSS lowers the MSS option (kind 2, value at offset 2) to what the routes to both ends carry.
func clampMSS() match {
	return match{
		&expr.Rt{Register: reg, Key: expr.RtTCPMSS},
		&expr.Byteorder{SourceRegister: reg, DestRegister: reg, Op: expr.ByteorderHton, Len: 2, Size: 2},
		&expr.Exthdr{SourceRegister: reg, Type: 2, Offset: 2, Len: 2, Op: expr.ExthdrOpTcpopt},
	}
}

// bits matches where any of the bits of a 32-bit host-order value is set.
func bits(load expr.Any, mask uint32) match {
	return match{load,
		&expr.Bitwise{SourceRegister: reg, DestRegister: reg, Len: 4, Mask: binaryutil.NativeEndian.PutUint32(mask), Xor: make([]byte, 4)},
		cmpReg(expr.CmpOpNeq, make([]byte, 4))}
}

func markHas(mask uint32) match { return bits(&expr.Meta{Key: expr.MetaKeyMARK, Register: reg}, mask) }

// destinationTranslated matches packets of connections under DNAT (IPS_DST_NAT of nf_conntrack_common.h).
func destinationTranslated() match {
	return bits(&expr.Ct{Key: expr.CtKeySTATUS, Register: reg}, 1<<5)
}

// replyDirection matches packets against the direction in which their connection began (IP_CT_DIR_REPLY).
func replyDirection() match {
	return match{&expr.Ct{Key: expr.CtKeyDIRECTION, Register: reg}, cmpReg(expr.CmpOpEq, []byte{1})}
}

// reverseDevice matches where the route back to the source leaves by the device that the packet came in on.
func reverseDevice() match {
	return match{&expr.Fib{Register: reg, FlagSADDR: true, FlagIIF: true, ResultOIF: true, FlagPRESENT: true},
		cmpReg(expr.CmpOpEq, binaryutil.NativeEndian.PutUint32(1))}
}

// notReverseDevice matches where the route to the source does not.
func notReverseDevice() match {
	return match{&expr.Fib{Register: reg, FlagSADDR: true, FlagIIF: true, ResultOIF: true, FlagPRESENT: true},
		cmpReg(expr.CmpOpEq, binaryutil.NativeEndian.PutUint32(0))}
}

func verdict(kind expr.VerdictKind, chain string) match {
	return match{&expr.Verdict{Kind: kind, Chain: chain}}
}

func accept() match           { return verdict(expr.VerdictAccept, "") }
func goTo(chain string) match { return verdict(expr.VerdictGoto, chain) }
func notrackAccept() match    { return append(match{&expr.Notrack{}}, accept()...) }
func dropAs(reason string) match {
	return append(match{&expr.Objref{Type: int(nftables.ObjTypeCounter), Name: reason}}, verdict(expr.VerdictDrop, "")...)
}

// keepSource maps the source to itself, which ends the look for a translation in all later nat chains.
func (f family) keepSource() match {
	src := f.src
	return match{&src, &expr.NAT{Type: expr.NATTypeSourceNAT, Family: uint32(f.nfproto), RegAddrMin: reg, RegAddrMax: reg}}
}

// ownSource and ownDestination match addresses of this host (RTN_LOCAL of linux/rtnetlink.h).
func ownSource() match      { return own(expr.Fib{FlagSADDR: true}) }
func ownDestination() match { return own(expr.Fib{FlagDADDR: true}) }

func own(e expr.Fib) match {
	e.Register, e.ResultADDRTYPE = reg, true
	return match{&e, cmpReg(expr.CmpOpEq, binaryutil.NativeEndian.PutUint32(unix.RTN_LOCAL))}
}

// sourceBecomes translates the source to an address.
func (f family) sourceBecomes(a netip.Addr) match {
	return match{&expr.Immediate{Register: reg, Data: a.AsSlice()},
		&expr.NAT{Type: expr.NATTypeSourceNAT, Family: uint32(f.nfproto), RegAddrMin: reg, RegAddrMax: reg}}
}
