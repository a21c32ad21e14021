package ipsec

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"time"
)

// Certificates prove a node by a key of its own, instead of by a secret that all nodes share.
type Certificates struct {
	// Authorities sign the gateways' certificates; Chain is this node's, followed by those between it and an authority; Key
	// is its private key. All are PEM.
	Authorities []byte `json:"authorities"`
	Chain       []byte `json:"chain"`
	Key         []byte `json:"key"`
}

// CertificateFiles returns a reader of PEM files, which may change; nil where none is named.
func CertificateFiles(authorities, chain, key string) func() (*Certificates, error) {
	if authorities == "" && chain == "" && key == "" {
		return nil
	}
	return func() (*Certificates, error) {
		var c Certificates
		var errs []error
		for _, f := range []struct {
			what, name string
			into       *[]byte
		}{
			{"the authorities of IPsec's certificates", authorities, &c.Authorities},
			{"this node's certificate for IPsec", chain, &c.Chain}, {"the key of this node's certificate for IPsec", key, &c.Key},
		} {
			content, err := os.ReadFile(f.name)
			if err != nil {
				errs = append(errs, fmt.Errorf("read %s: %w", f.what, err))
			}
			*f.into = content
		}
		if len(errs) > 0 {
			return nil, errors.Join(errs...)
		}
		return &c, nil
	}
}

// check finds what peers would refuse. valid is false where charon could not use them either.
func (c *Certificates) check(node string, now time.Time) (valid bool, err error) {
	pair, err := tls.X509KeyPair(c.Chain, c.Key)
	if err != nil {
		return false, fmt.Errorf("use this node's certificate for IPsec: %w", err)
	}
	if len(certificatesIn(c.Authorities)) == 0 {
		return false, errors.New("there is no certificate among the authorities for IPsec: peers could not be proved")
	}
	leaf := pair.Leaf
	if err := leaf.VerifyHostname(node); err != nil {
		return false, fmt.Errorf("this node's certificate for IPsec is another's: %w; make one with the DNS name %s", err, node)
	}
	switch {
	case now.Before(leaf.NotBefore):
		return true, fmt.Errorf("this node's certificate for IPsec is valid from %s, which is %s ahead: correct the clock, or wait",
			leaf.NotBefore.UTC().Format(time.RFC3339), leaf.NotBefore.Sub(now).Round(time.Second))
	case now.After(leaf.NotAfter):
		return true, fmt.Errorf("this node's certificate for IPsec expired at %s: renew it, or correct the clock",
			leaf.NotAfter.UTC().Format(time.RFC3339))
	}
	return true, nil
}

// certificatesIn returns the certificates of a PEM text in DER, in order.
func certificatesIn(text []byte) (all []string) {
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			return all
		}
		if _, err := x509.ParseCertificate(block.Bytes); block.Type == "CERTIFICATE" && err == nil {
			all = append(all, string(block.Bytes))
		}
	}
}

// keyIn returns the private key of a PEM text in DER.
func keyIn(text []byte) string {
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			return ""
		}
		if block.Type == "PRIVATE KEY" || block.Type == "EC PRIVATE KEY" || block.Type == "RSA PRIVATE KEY" {
			return string(block.Bytes)
		}
	}
}

// digest changes with any of them; that of nil is the zero value.
func (c *Certificates) digest() (d [sha256.Size]byte) {
	if c == nil {
		return d
	}
	h := sha256.New()
	for _, part := range [][]byte{c.Authorities, c.Chain, c.Key} {
		one := sha256.Sum256(part)
		h.Write(one[:])
	}
	h.Sum(d[:0])
	return d
}
