package rtnl

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Sizes and types that golang.org/x/sys/unix does not name; from linux/netlink.h.
const (
	errorHeaderBytes = 4 + unix.NLMSG_HDRLEN // struct nlmsgerr
	flagCapped       = 0x100                 // NLM_F_CAPPED
	flagAckTLVs      = 0x200                 // NLM_F_ACK_TLVS
	attrAckMessage   = 1                     // NLMSGERR_ATTR_MSG
	attrTypeMask     = 0x3fff                // NLA_TYPE_MASK
)

var native = binary.NativeEndian

type message struct {
	typ, flags uint16
	seq        uint32
	payload    []byte
}

func align(n int) int { return (n + 3) &^ 3 }

func appendMessage(b []byte, typ, flags uint16, seq uint32, payload []byte) []byte {
	b = native.AppendUint32(b, uint32(unix.NLMSG_HDRLEN+len(payload)))
	b = native.AppendUint16(b, typ)
	b = native.AppendUint16(b, flags)
	b = native.AppendUint32(b, seq)
	b = native.AppendUint32(b, 0)
	b = append(b, payload...)
	return append(b, make([]byte, align(len(payload))-len(payload))...)
}

func nextMessage(b []byte) (message, []byte, error) {
	if len(b) < unix.NLMSG_HDRLEN {
		return message{}, nil, fmt.Errorf("netlink message of %d bytes is cut short", len(b))
	}
	n := int(native.Uint32(b))
	if n < unix.NLMSG_HDRLEN || n > len(b) {
		return message{}, nil, fmt.Errorf("netlink message claims %d of %d bytes", n, len(b))
	}
	m := message{
		typ: native.Uint16(b[4:]), flags: native.Uint16(b[6:]), seq: native.Uint32(b[8:]),
		payload: b[unix.NLMSG_HDRLEN:n],
	}
	return m, b[min(align(n), len(b)):], nil
}

// answerError reads the error of a NLMSG_ERROR or NLMSG_DONE message, nil where it is zero.
func answerError(m message) error {
	if len(m.payload) < 4 {
		return nil
	}
	code := int32(native.Uint32(m.payload))
	if code == 0 {
		return nil
	}
	errno := unix.Errno(-code)
	if m.typ != unix.NLMSG_ERROR || m.flags&flagAckTLVs == 0 || m.flags&flagCapped == 0 ||
		len(m.payload) < errorHeaderBytes {
		return errno
	}
	var words string
	for a := range Attributes(m.payload[errorHeaderBytes:]) {
		if a.Type == attrAckMessage {
			words = string(bytes.TrimRight(a.Value, "\x00"))
		}
	}
	if words == "" {
		return errno
	}
	return fmt.Errorf("%w: %s", errno, words)
}

// Attribute is one attribute of a message.
type Attribute struct {
	Type  uint16
	Value []byte
}

// Uint32 reads the value as a number in the machine's byte order; 0 where it is too short.
func (a Attribute) Uint32() uint32 {
	if len(a.Value) < 4 {
		return 0
	}
	return native.Uint32(a.Value)
}

// Addr reads the value as an address; invalid where it has neither 4 nor 16 bytes.
func (a Attribute) Addr() netip.Addr {
	addr, _ := netip.AddrFromSlice(a.Value)
	return addr
}

// Text reads the value as a string that a zero byte ends.
func (a Attribute) Text() string { return string(bytes.TrimRight(a.Value, "\x00")) }

// Attributes walks the attributes in b and stops at the first that is malformed.
func Attributes(b []byte) func(yield func(Attribute) bool) {
	return func(yield func(Attribute) bool) {
		for len(b) >= unix.SizeofRtAttr {
			n := int(native.Uint16(b))
			if n < unix.SizeofRtAttr || n > len(b) {
				return
			}
			if !yield(Attribute{Type: native.Uint16(b[2:]) & attrTypeMask, Value: b[unix.SizeofRtAttr:n]}) {
				return
			}
			b = b[min(align(n), len(b)):]
		}
	}
}

// AppendAttribute appends an attribute with padding.
func AppendAttribute(b []byte, typ uint16, value []byte) []byte {
	b = native.AppendUint16(b, uint16(unix.SizeofRtAttr+len(value)))
	b = native.AppendUint16(b, typ)
	b = append(b, value...)
	return append(b, make([]byte, align(len(value))-len(value))...)
}

// AppendUint32 appends an attribute that holds a number in the machine's byte order.
func AppendUint32(b []byte, typ uint16, value uint32) []byte {
	return AppendAttribute(b, typ, native.AppendUint32(nil, value))
}

// Family is AF_INET or AF_INET6, as the address has it.
func Family(addr netip.Addr) uint8 {
	if addr.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// FamilyName is IPv4 or IPv6, for messages.
func FamilyName(family uint8) string {
	if family == unix.AF_INET {
		return "IPv4"
	}
	return "IPv6"
}
