// Package proxytest makes what the tests of the L7 proxy need: certificates of a real authority in memory, and
// connections inside network namespaces.
package proxytest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"sync"
	"testing"
	"time"

	"github.com/ravencni/raven/pkg/proxy/certificates"
	"github.com/ravencni/raven/pkg/proxy/identity"
)

// Authority signs what a test asks for.
type Authority struct{ *certificates.Authority }

// NewAuthority makes an authority that serves a day.
func NewAuthority(t testing.TB) Authority {
	t.Helper()
	a, err := certificates.NewAuthority(time.Now(), 24*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return Authority{a}
}

// Issue makes a key and a certificate.
func (a Authority) Issue(t testing.TB, g certificates.Grant) *tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	text, err := a.Authority.Issue(key.Public(), g, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := tls.X509KeyPair(text, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	if err != nil {
		t.Fatal(err)
	}
	return &c
}

// Pool trusts the authorities.
func Pool(as ...Authority) *x509.CertPool {
	pool := x509.NewCertPool()
	for _, a := range as {
		pool.AddCert(a.Certificate)
	}
	return pool
}

// Identity is an identity.Source whose material a test may replace.
type Identity struct {
	mu sync.Mutex
	m  identity.Material
}

// Proxy is the identity of the proxy on a node.
func (a Authority) Proxy(t testing.TB, node string) *Identity {
	t.Helper()
	id := &Identity{}
	id.Set(a.Issue(t, certificates.Grant{
		CommonName: identity.CommonName(node), Organizations: []string{identity.Organization},
		DNSNames: []string{node}, Server: true, Client: true,
	}), Pool(a))
	return id
}

// Client is a certificate for the CONNECT front end.
func (a Authority) Client(t testing.TB, name string) *tls.Certificate {
	t.Helper()
	return a.Issue(t, certificates.Grant{CommonName: identity.ClientCommonName(name), Client: true})
}

// Set replaces the material.
func (i *Identity) Set(c *tls.Certificate, roots *x509.CertPool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.m = identity.Material{Certificate: c, Roots: roots}
}

// Material implements identity.Source.
func (i *Identity) Material() (identity.Material, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.m, nil
}

var _ identity.Source = (*Identity)(nil)
