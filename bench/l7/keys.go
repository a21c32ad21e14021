package l7

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/ravencni/raven/pkg/proxy/certificates"
	"github.com/ravencni/raven/pkg/proxy/identity"
)

// keys is a folder with the authority's certificate, and for each node a file with its key and certificates, as Raven's
// proxies have them; haproxy uses the same.
type keys struct {
	folder string
	roots  *x509.CertPool
}

func (k *keys) authority() string     { return filepath.Join(k.folder, "authority.pem") }
func (k *keys) of(node string) string { return filepath.Join(k.folder, node+".pem") }
func pemOf(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func makeKeys(folder string, nodes ...string) (*keys, error) {
	a, err := certificates.NewAuthority(time.Now(), 24*time.Hour)
	if err != nil {
		return nil, err
	}
	k := &keys{folder: folder, roots: x509.NewCertPool()}
	k.roots.AddCert(a.Certificate)
	if err := os.WriteFile(k.authority(), pemOf("CERTIFICATE", a.Certificate.Raw), 0o600); err != nil {
		return nil, fmt.Errorf("keep the authority: %w", err)
	}
	for _, node := range nodes {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return nil, fmt.Errorf("make the key of %s: %w", node, err)
		}
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			return nil, fmt.Errorf("encode the key of %s: %w", node, err)
		}
		chain, err := a.Issue(key.Public(), certificates.Grant{CommonName: identity.CommonName(node),
			Organizations: []string{identity.Organization}, DNSNames: []string{node}, Server: true, Client: true}, time.Now())
		if err != nil {
			return nil, err
		}
		if err := os.WriteFile(k.of(node), append(pemOf("PRIVATE KEY", der), chain...), 0o600); err != nil {
			return nil, fmt.Errorf("keep the key of %s: %w", node, err)
		}
	}
	return k, nil
}

// fixed is an identity.Source that never changes.
type fixed identity.Material

// Material implements identity.Source.
func (f fixed) Material() (identity.Material, error) { return identity.Material(f), nil }

// read reads a node's key and certificates.
func (k *keys) read(node string) (fixed, error) {
	text, err := os.ReadFile(k.of(node))
	if err != nil {
		return fixed{}, fmt.Errorf("read the key of %s: %w", node, err)
	}
	c, err := tls.X509KeyPair(text, text)
	if err != nil {
		return fixed{}, fmt.Errorf("read the key of %s: %w", node, err)
	}
	root, err := os.ReadFile(k.authority())
	if err != nil {
		return fixed{}, fmt.Errorf("read the authority: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(root) {
		return fixed{}, fmt.Errorf("%s holds no certificate", k.authority())
	}
	return fixed{Certificate: &c, Roots: pool}, nil
}
