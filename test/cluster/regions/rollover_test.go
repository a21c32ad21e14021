package regions_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"os"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ravencni/raven/pkg/controller"
	"github.com/ravencni/raven/pkg/proxy/certificates"
	"github.com/ravencni/raven/pkg/proxy/proxytest"
)

// issuerOf says who signed the certificate of the proxy on a node.
func (w *world) issuerOf(node string) (string, error) {
	text, err := os.ReadFile(w.lab.Host(node).Path("/var/lib/raven/proxy.pem"))
	if err != nil {
		return "", err
	}
	pair, err := tls.X509KeyPair(text, text)
	if err != nil {
		return "", fmt.Errorf("read the certificate of %s: %w", node, err)
	}
	return pair.Leaf.Issuer.CommonName, nil
}

// authorityChanges puts a successor of the proxy's authority in place whose time of propagation is over, so that it signs
// from the next certificate on. Requests go on all the while.
func authorityChanges(w *world, _ proxytest.Authority) {
	secret := &corev1.Secret{}
	w.must(w.api.Get(w.Context(), client.ObjectKey{Namespace: controller.Namespace, Name: certificates.ObjectName}, secret))
	all, err := certificates.ParseAuthorities(secret.Data)
	w.must(err)
	before := all.Current.Certificate.Subject.CommonName
	all.Next, err = certificates.NewAuthority(time.Now().Add(-2*time.Hour), certificates.AuthorityLifetime)
	w.must(err)
	next := all.Next.Certificate.Subject.CommonName
	secret.Data, err = all.Data()
	w.must(err)
	w.must(w.api.Update(w.Context(), secret))
	w.askForClient("raven-rollover") // whoever has something signed has the authorities looked at

	requests, lost := 0, 0
	w.await(2*patience, "certificates of the new authority", func(context.Context) error {
		for _, node := range edgeNodes {
			requests++
			c, err := w.fromCloud(proxyAddress + ":10264")
			said := ""
			if err == nil {
				said, err = ask(c, node+":10255")
			}
			if err != nil || said != node {
				w.Errorf("a request for %s during the change: %q, %v", node, said, err)
				lost++
			}
		}
		for _, node := range []string{"cloud-1", "hangzhou-1", "qingdao-1"} {
			issuer, err := w.issuerOf(node)
			if err != nil {
				return err
			}
			if issuer != next {
				return fmt.Errorf("that of %s is still of %s (before: %s)", node, issuer, before)
			}
		}
		return nil
	})
	w.Logf("%d requests during the change, %d lost", requests, lost)
	bundle := w.kubectl("-n", controller.Namespace, "get", "configmap", certificates.ObjectName, "-o", `jsonpath={.data.ca\.crt}`)
	var trusted []string
	for block, rest := pem.Decode([]byte(bundle)); block != nil; block, rest = pem.Decode(rest) {
		c, err := x509.ParseCertificate(block.Bytes)
		w.must(err)
		trusted = append(trusted, c.Subject.CommonName)
	}
	if len(trusted) != 2 || trusted[0] != next || trusted[1] != before {
		w.Errorf("trusted are %v, want %s and then %s", trusted, next, before)
	}
}

// askForClient has a certificate signed for a client of CONNECT, and returns its key.
func (w *world) askForClient(name string) *ecdsa.PrivateKey {
	w.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	w.must(err)
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "raven:client:" + name}}, key)
	w.must(err)
	w.csrAs(server.AdminKubeconfig(), name, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}), `["digital signature", "client auth"]`)
	w.kubectl("certificate", "approve", name)
	return key
}
