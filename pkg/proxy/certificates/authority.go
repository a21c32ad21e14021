// Package certificates issues and keeps the certificates of the L7 proxy: an authority of Raven's own, what it signs for
// whom, and the agent's side that asks for a certificate and replaces it in time.
package certificates

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"time"
)

const (
	// AuthorityLifetime is how long an authority serves; it is replaced when a third is left.
	AuthorityLifetime = 10 * 365 * 24 * time.Hour
	// Lifetime is how long a certificate serves; it is replaced when a third is left, or when its authority is.
	Lifetime = 30 * 24 * time.Hour
	// ClientLifetime is the longest that the certificate of a client of the CONNECT front end may serve, where its request
	// asks for that: API servers read theirs when they start, and a person has to approve each.
	ClientLifetime = 366 * 24 * time.Hour
	// backdate is how far clocks may differ.
	backdate = 5 * time.Minute
)

// Authority signs the proxy's certificates.
type Authority struct {
	Certificate *x509.Certificate
	key         crypto.Signer
}

// NewAuthority makes an authority that begins now.
func NewAuthority(now time.Time, lifetime time.Duration) (*Authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make the key of an authority: %w", err)
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial,
		// The serial number makes the name unique: a chain is then built over the right one of two authorities.
		Subject:   pkix.Name{CommonName: fmt.Sprintf("raven-proxy-ca@%x", serial.Bytes()[:8])},
		NotBefore: now.Add(-backdate), NotAfter: now.Add(lifetime),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("sign an authority: %w", err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("read the new authority: %w", err)
	}
	return &Authority{Certificate: c, key: key}, nil
}

// Grant is what a certificate will say.
type Grant struct {
	CommonName    string
	Organizations []string
	DNSNames      []string
	IPs           []net.IP
	// Server and Client are what the holder may be.
	Server, Client bool
	// Lifetime; 0: Lifetime. It never goes beyond the authority's own.
	Lifetime time.Duration
}

// Issue signs a certificate for a public key, in PEM.
func (a *Authority) Issue(key crypto.PublicKey, g Grant, now time.Time) ([]byte, error) {
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	if g.Lifetime == 0 {
		g.Lifetime = Lifetime
	}
	end := now.Add(g.Lifetime)
	if end.After(a.Certificate.NotAfter) {
		end = a.Certificate.NotAfter
	}
	template := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: g.CommonName, Organization: g.Organizations},
		NotBefore:    now.Add(-backdate), NotAfter: end,
		DNSNames: g.DNSNames, IPAddresses: g.IPs,
		KeyUsage: x509.KeyUsageDigitalSignature, BasicConstraintsValid: true,
	}
	if g.Server {
		template.ExtKeyUsage = append(template.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
	}
	if g.Client {
		template.ExtKeyUsage = append(template.ExtKeyUsage, x509.ExtKeyUsageClientAuth)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.Certificate, key, a.key)
	if err != nil {
		return nil, fmt.Errorf("sign a certificate for %s: %w", g.CommonName, err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), nil
}

// Encode writes certificate and key in PEM.
func (a *Authority) Encode() (certificate, key []byte, err error) {
	der, err := x509.MarshalPKCS8PrivateKey(a.key)
	if err != nil {
		return nil, nil, fmt.Errorf("write the key of an authority: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.Certificate.Raw}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// ParseAuthority reads what Encode wrote.
func ParseAuthority(certificate, key []byte) (*Authority, error) {
	c, err := parseCertificate(certificate)
	if err != nil {
		return nil, fmt.Errorf("read the authority's certificate: %w", err)
	}
	signer, err := parseKey(key)
	if err != nil {
		return nil, fmt.Errorf("read the authority's key: %w", err)
	}
	if public, ok := c.PublicKey.(*ecdsa.PublicKey); !ok || !public.Equal(signer.Public()) {
		return nil, errors.New("the authority's certificate and key do not belong together")
	}
	if !c.IsCA {
		return nil, errors.New("the authority's certificate is none of an authority")
	}
	return &Authority{Certificate: c, key: signer}, nil
}

func parseCertificate(text []byte) (*x509.Certificate, error) {
	block, _ := pem.Decode(text)
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, errors.New("it holds no CERTIFICATE in PEM")
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("read a certificate: %w", err)
	}
	return c, nil
}

func parseKey(text []byte) (crypto.Signer, error) {
	block, _ := pem.Decode(text)
	if block == nil || block.Type != "PRIVATE KEY" {
		return nil, errors.New("it holds no PRIVATE KEY in PEM")
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("read a private key: %w", err)
	}
	signer, ok := key.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("a private key is %T and not ECDSA", key)
	}
	return signer, nil
}

// newSerial is a serial number of 127 random bits (RFC 5280, section 4.1.2.2: positive, at most 20 bytes).
func newSerial() (*big.Int, error) {
	limit := new(big.Int).Lsh(big.NewInt(1), 126)
	n, err := rand.Int(rand.Reader, limit)
	if err != nil {
		return nil, fmt.Errorf("make a serial number: %w", err)
	}
	return n.Add(n, limit), nil // the upper bit keeps its length
}
