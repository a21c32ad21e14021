// Package identity says who a certificate of the proxy's signer speaks for, and makes TLS configurations from it.
package identity

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"strings"

	"github.com/ravencni/raven/pkg/proxy/refusal"
)

// Common names of the proxy's certificates, in the manner of system:node:<name>. What follows is the node's name, or
// a name that whoever approved the request chose.
const (
	// proxyPrefix: the proxy on a node; client and server of reverse tunnels.
	proxyPrefix = "raven:proxy:"
	// clientPrefix: a client of the CONNECT front end, such as an API server.
	clientPrefix = "raven:client:"

	// Organization of a proxy on a node.
	Organization = "raven:proxies"
)

// Protocol is the ALPN name of reverse tunnels: HTTP/2 whose server is the side that dialled. A change that older
// peers would not understand gets another number.
const Protocol = "raven-tunnel/1"

// CommonName of the proxy on a node.
func CommonName(node string) string { return proxyPrefix + node }

// ClientCommonName of a client of the CONNECT front end.
func ClientCommonName(name string) string { return clientPrefix + name }

// NodeOf returns the node that a certificate's holder is the proxy of.
func NodeOf(c *x509.Certificate) (string, error) {
	node, ok := strings.CutPrefix(c.Subject.CommonName, proxyPrefix)
	if !ok || node == "" {
		return "", refusal.New(refusal.WrongIdentity, "", "", "the certificate is of %q and not of a node's proxy", c.Subject.CommonName)
	}
	return node, nil
}

// ClientOf returns the name of a client of the CONNECT front end.
func ClientOf(c *x509.Certificate) (string, error) {
	name, ok := strings.CutPrefix(c.Subject.CommonName, clientPrefix)
	if !ok || name == "" {
		return "", refusal.New(refusal.WrongIdentity, "", "", "the certificate is of %q and not of a client of the proxy", c.Subject.CommonName)
	}
	return name, nil
}

// Material is a node's certificate and the authorities that it trusts.
type Material struct {
	Certificate *tls.Certificate
	Roots       *x509.CertPool
}

// Source has the material that is valid now. Its methods may be called from any goroutine.
type Source interface {
	// Material returns an error while there is none yet.
	Material() (Material, error)
}

// Server is the TLS configuration of a listener that wants client certificates, each handshake with the newest
// material. The protocols are ALPN's.
func Server(s Source, protocols ...string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: protocols,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			m, err := s.Material()
			if err != nil {
				return nil, fmt.Errorf("accept a TLS connection: %w", err)
			}
			return &tls.Config{
				MinVersion: tls.VersionTLS13, NextProtos: protocols,
				Certificates: []tls.Certificate{*m.Certificate},
				ClientAuth:   tls.RequireAndVerifyClientCert, ClientCAs: m.Roots,
				// A resumed session would skip the check of a certificate that has expired meanwhile.
				SessionTicketsDisabled: true,
			}, nil
		},
	}
}

// Client is the TLS configuration for dialling the proxy of a node.
func Client(s Source, node string) (*tls.Config, error) {
	m, err := s.Material()
	if err != nil {
		return nil, fmt.Errorf("dial the proxy of node %s: %w", node, err)
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{Protocol},
		Certificates: []tls.Certificate{*m.Certificate}, RootCAs: m.Roots, ServerName: node,
		VerifyConnection: func(c tls.ConnectionState) error {
			name, err := NodeOf(c.PeerCertificates[0])
			if err == nil && name != node {
				err = refusal.New(refusal.WrongIdentity, "", name, "the proxy of node %s was dialled", node)
			}
			if err == nil && c.NegotiatedProtocol != Protocol {
				err = refusal.New(refusal.BadRequest, "", node, "the peer does not speak %s", Protocol)
			}
			return err
		},
	}, nil
}

// Handshake runs a server's handshake, and tells what kind of failure it was.
func Handshake(ctx context.Context, conn *tls.Conn) error {
	err := conn.HandshakeContext(ctx)
	if err == nil {
		return nil
	}
	reason := refusal.NotAuthenticated
	if ctx.Err() != nil {
		reason = refusal.Slow
	} else if _, garbage := err.(tls.RecordHeaderError); garbage {
		reason = refusal.BadClientHello
	}
	return refusal.New(reason, "", "", "%v", err)
}
