package certificates

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	mathrand "math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/ravencni/raven/pkg/atomicfile"
	"github.com/ravencni/raven/pkg/proxy/identity"
)

const (
	// look is how often the bundle is read and the certificate's age compared; half of it random.
	look = time.Minute
	// requestLimit is how long a request may take to be signed.
	requestLimit = time.Minute
	// file holds key, certificate and bundle, in PEM, in the state folder.
	file = "proxy.pem"
)

// Signer is who signs.
type Signer interface {
	// Sign has a request in PEM signed, and returns the certificate in PEM.
	Sign(ctx context.Context, request []byte) ([]byte, error)
	// Bundle returns the authorities to trust, in PEM, the one that signs first.
	Bundle(ctx context.Context) ([]byte, error)
}

// Keeper keeps a node's certificate: it asks for one, replaces it in time, and has the last one from disk at once, so that
// a proxy starts without an API server.
type Keeper struct {
	node    string
	path    string
	signer  Signer
	log     *slog.Logger
	names   func() Names
	changed func()

	mu       sync.Mutex
	material identity.Material
	leaf     *x509.Certificate
	bundle   []byte
	why      error
}

// NewKeeper makes the keeper of a node's certificate in a state folder. names says what the node is called besides its
// name. changed is called when there is another
// certificate or bundle.
func NewKeeper(node, stateDir string, names func() Names, signer Signer, changed func(), log *slog.Logger) *Keeper {
	k := &Keeper{node: node, path: filepath.Join(stateDir, file), names: names, signer: signer, changed: changed, log: log,
		why: errors.New("this node's proxy has no certificate yet")}
	text, err := os.ReadFile(k.path)
	if err == nil {
		err = k.use(text)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		log.Warn("starting without the last certificate of the proxy", "file", k.path, "error", err)
	}
	return k
}

// Material implements identity.Source.
func (k *Keeper) Material() (identity.Material, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.leaf == nil {
		return identity.Material{}, k.why
	}
	return k.material, nil
}

// Run keeps the certificate until ctx is done.
func (k *Keeper) Run(ctx context.Context) {
	for {
		if err := k.step(ctx, time.Now()); err != nil && ctx.Err() == nil {
			k.mu.Lock()
			k.why = fmt.Errorf("this node's proxy has no certificate: %w", err)
			k.mu.Unlock()
			k.log.Warn("the proxy's certificate could not be renewed; trying again", "error", err)
		}
		timer := time.NewTimer(look/2 + mathrand.N(look/2))
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
	}
}

// step reads the bundle, and asks for a certificate where one is due.
func (k *Keeper) step(ctx context.Context, now time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, requestLimit)
	defer cancel()
	bundle, err := k.signer.Bundle(ctx)
	if err != nil {
		return fmt.Errorf("read the authorities to trust: %w", err)
	}
	roots, err := parseBundle(bundle)
	if err != nil {
		return err
	}
	if len(roots) == 0 {
		return errors.New("the bundle of authorities is empty: the controller has not made one yet")
	}
	k.mu.Lock()
	leaf, have := k.leaf, k.bundle
	current := k.material.Certificate
	k.mu.Unlock()
	due := leaf == nil || !k.names().are(k.node, leaf) || dueFor(leaf, now) || leaf.CheckSignatureFrom(roots[0]) != nil
	if !due && bytes.Equal(bundle, have) {
		return nil
	}
	var text []byte
	if due {
		if text, err = k.request(ctx); err != nil {
			return err
		}
		k.log.Info("the proxy has another certificate")
	} else if text, err = encodePair(current); err != nil {
		return err
	}
	text = append(text, bundle...)
	if err := k.use(text); err != nil {
		return fmt.Errorf("use what was signed: %w", err)
	}
	if err := atomicfile.Write(k.path, text, 0o600); err != nil {
		k.log.Warn("the proxy's certificate is in use, but could not be kept on disk", "error", err)
	}
	k.changed()
	return nil
}

// request makes a key and has it signed.
func (k *Keeper) request(ctx context.Context) ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	request, err := NewRequest(key, k.node, k.names())
	if err != nil {
		return nil, err
	}
	certificate, err := k.signer.Sign(ctx, request)
	if err != nil {
		return nil, fmt.Errorf("have a certificate signed for node %s: %w", k.node, err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("write a key: %w", err)
	}
	return append(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), certificate...), nil
}

// NewRequest is the request of a node's proxy, in PEM.
func NewRequest(key *ecdsa.PrivateKey, node string, names Names) ([]byte, error) {
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject:  pkix.Name{CommonName: identity.CommonName(node), Organization: []string{identity.Organization}},
		DNSNames: append([]string{node}, names.DNS...), IPAddresses: append([]net.IP{}, names.IPs...),
	}, key)
	if err != nil {
		return nil, fmt.Errorf("make a request for node %s: %w", node, err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}), nil
}

func encodePair(c *tls.Certificate) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		return nil, fmt.Errorf("write a key: %w", err)
	}
	out := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	return append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate[0]})...), nil
}

// use reads key, certificate and bundle, in this order, and takes them where they fit together and are for this node.
func (k *Keeper) use(text []byte) error {
	key, rest := pem.Decode(text)
	if key == nil {
		return errors.New("there is no key in PEM")
	}
	certificate, bundle := pem.Decode(rest)
	if certificate == nil {
		return errors.New("there is no certificate in PEM")
	}
	pair, err := tls.X509KeyPair(pem.EncodeToMemory(certificate), pem.EncodeToMemory(key))
	if err != nil {
		return fmt.Errorf("read key and certificate: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(bundle) {
		return errors.New("there are no authorities in PEM")
	}
	if node, err := identity.NodeOf(pair.Leaf); err != nil || node != k.node {
		return fmt.Errorf("the certificate is of %q and not of node %s", pair.Leaf.Subject.CommonName, k.node)
	}
	if _, err := pair.Leaf.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err != nil {
		return fmt.Errorf("the certificate does not hold: %w", err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.material, k.leaf, k.bundle = identity.Material{Certificate: &pair, Roots: roots}, pair.Leaf, bytes.Clone(bundle)
	return nil
}

var _ identity.Source = (*Keeper)(nil)
