package front

import (
	"fmt"

	"github.com/ravencni/raven/pkg/proxy/refusal"
)

// alert is a fatal TLS alert (RFC 8446, section 6), the only words that a TLS client understands before a handshake.
func alert(reason refusal.Reason) []byte {
	description := byte(80) // internal_error
	switch reason {
	case refusal.UnknownNode, refusal.NoRegion, refusal.NoServerName, refusal.BadTarget:
		description = 112 // unrecognized_name
	case refusal.BadClientHello:
		description = 50 // decode_error
	case refusal.PortNotAllowed, refusal.SourceNotAllowed, refusal.OtherRegion:
		description = 49 // access_denied
	}
	return []byte{21, 3, 3, 0, 2, 2, description}
}

// describe adds where a ClientHello came from to an error of reading it.
func describe(err error, timeout bool) error {
	switch {
	case err == nil || refusal.Of(err).Reason != refusal.Other:
		return err
	case timeout:
		return refusal.New(refusal.Slow, "", "", "no ClientHello within %v", helloLimit)
	}
	return fmt.Errorf("read a ClientHello: %w", refusal.New(refusal.BadClientHello, "", "", "%v", err))
}
