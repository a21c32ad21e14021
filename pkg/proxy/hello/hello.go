// Package hello reads the first words of a TLS client, which say where it wants to go.
package hello

import (
	"encoding/binary"
	"io"

	"github.com/ravencni/raven/pkg/proxy/refusal"
)

const (
	// maxHello bounds a ClientHello in bytes. Those of browsers with post-quantum keys have some 2 KiB.
	maxHello = 16 << 10
	// maxRead bounds it together with the headers of the records that it comes in: a record may hold a single byte.
	maxRead = 2 * maxHello
	// maxRecord is the largest plaintext of a TLS record (RFC 8446, section 5.1).
	maxRecord = 16 << 10

	recordHeader    = 5
	handshakeHeader = 4
	typeHandshake   = 22
	typeClientHello = 1
	extServerName   = 0
	nameTypeHost    = 0
)

// Read reads a ClientHello and nothing behind it, and returns its bytes as they came with the server name in it.
// The error is a *refusal.Error where the client's words make no sense, or the reader's own.
func Read(r io.Reader) (raw []byte, name string, err error) {
	var message []byte
	for {
		var header [recordHeader]byte
		if _, err := io.ReadFull(r, header[:]); err != nil {
			return nil, "", err
		}
		size := int(binary.BigEndian.Uint16(header[3:]))
		if header[0] != typeHandshake || header[1] != 3 || size == 0 || size > maxRecord {
			return nil, "", bad("the first bytes are no TLS handshake")
		}
		if len(message)+size > maxHello {
			return nil, "", bad("the ClientHello is longer than %d bytes", maxHello)
		}
		if len(raw)+recordHeader+size > maxRead {
			return nil, "", bad("the ClientHello comes in too many records: more than %d bytes", maxRead)
		}
		raw = append(raw, header[:]...)
		begin := len(raw)
		raw = append(raw, make([]byte, size)...)
		if _, err := io.ReadFull(r, raw[begin:]); err != nil {
			return nil, "", err
		}
		message = append(message, raw[begin:]...)
		if len(message) < handshakeHeader {
			continue
		}
		want := int(message[1])<<16 | int(message[2])<<8 | int(message[3])
		if message[0] != typeClientHello || want > maxHello {
			return nil, "", bad("the first message is no ClientHello")
		}
		if len(message) >= handshakeHeader+want {
			name, err = serverName(message[handshakeHeader : handshakeHeader+want])
			return raw, name, err
		}
	}
}

func bad(format string, args ...any) error {
	return refusal.New(refusal.BadClientHello, "", "", format, args...)
}

// cursor reads vectors with a length before them; after the first that does not fit, ok is false.
type cursor struct {
	rest []byte
	ok   bool
}

func (c *cursor) take(n int) []byte {
	if !c.ok || n > len(c.rest) {
		c.ok = false
		return nil
	}
	out := c.rest[:n]
	c.rest = c.rest[n:]
	return out
}

func (c *cursor) number(bytes int) (n int) {
	for _, b := range c.take(bytes) {
		n = n<<8 | int(b)
	}
	return n
}

// vector takes what is behind a length of so many bytes.
func (c *cursor) vector(bytes int) *cursor {
	return &cursor{rest: c.take(c.number(bytes)), ok: c.ok}
}

// serverName finds the host name in the body of a ClientHello (RFC 8446, section 4.1.2; RFC 6066, section 3).
func serverName(body []byte) (string, error) {
	c := &cursor{rest: body, ok: true}
	c.take(2 + 32) // version, random
	c.vector(1)    // session
	c.vector(2)    // cipher suites
	c.vector(1)    // compression
	if !c.ok {
		return "", bad("the ClientHello is malformed")
	}
	if len(c.rest) > 0 {
		for extensions := c.vector(2); len(extensions.rest) > 0; {
			kind, data := extensions.number(2), extensions.vector(2)
			if !extensions.ok || !data.ok {
				return "", bad("the ClientHello is malformed")
			}
			if kind != extServerName {
				continue
			}
			names := data.vector(2)
			for len(names.rest) > 0 {
				kind, name := names.number(1), names.vector(2)
				if !names.ok || len(name.rest) == 0 {
					return "", bad("the server name in the ClientHello is malformed")
				}
				if kind == nameTypeHost {
					return string(name.rest), nil
				}
			}
		}
		if !c.ok {
			return "", bad("the ClientHello is malformed")
		}
	}
	return "", refusal.New(refusal.NoServerName, "", "",
		"the client names no server (SNI), so that there is nothing to route by: dial by the node's name, and see ravenctl doctor")
}
