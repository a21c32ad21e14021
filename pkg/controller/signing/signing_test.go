package signing

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"testing"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/ravencni/raven/pkg/proxy/certificates"
	"github.com/ravencni/raven/pkg/topology"
)

// requestOf is a request of an agent's on edge-1 for a node.
func requestOf(t *testing.T, object, node string) *certificatesv1.CertificateSigningRequest {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	text, err := certificates.NewRequest(key, node, certificates.Names{})
	if err != nil {
		t.Fatal(err)
	}
	return &certificatesv1.CertificateSigningRequest{ObjectMeta: metav1.ObjectMeta{Name: object},
		Spec: certificatesv1.CertificateSigningRequestSpec{
			SignerName: certificates.SignerName, Request: text, Username: certificates.AgentUser,
			Usages: []certificatesv1.KeyUsage{certificatesv1.UsageDigitalSignature, certificatesv1.UsageServerAuth, certificatesv1.UsageClientAuth},
			Extra:  map[string]certificatesv1.ExtraValue{"authentication.kubernetes.io/node-name": {"edge-1"}},
		}}
}

// The API server is a fake here: it keeps objects and decides nothing.
func TestTheSignerSignsForTheOwnNodeAndDeniesOthers(t *testing.T) {
	foreign := requestOf(t, "foreign", "edge-1")
	foreign.Spec.SignerName = "example.com/other"
	c := fake.NewClientBuilder().WithScheme(clientgoscheme.Scheme).
		WithObjects(requestOf(t, "own", "edge-1"), requestOf(t, "other", "edge-2"), foreign).
		WithStatusSubresource(&certificatesv1.CertificateSigningRequest{}).Build()
	s := &Signer{Client: c, Live: c, Namespace: "kube-system", State: func() topology.State { return topology.State{} }, Now: time.Now,
		Log: slog.New(slog.DiscardHandler)}
	look := func(name string) *certificatesv1.CertificateSigningRequest {
		t.Helper()
		for range 2 { // a second look changes nothing
			if _, err := s.Reconcile(t.Context(), reconcile.Request{NamespacedName: client.ObjectKey{Name: name}}); err != nil {
				t.Fatal(err)
			}
		}
		out := &certificatesv1.CertificateSigningRequest{}
		if err := c.Get(t.Context(), client.ObjectKey{Name: name}, out); err != nil {
			t.Fatal(err)
		}
		return out
	}
	own := look("own")
	if !has(own, certificatesv1.CertificateApproved) || len(own.Status.Certificate) == 0 {
		t.Fatalf("%+v", own.Status)
	}
	var trust corev1.ConfigMap
	if err := c.Get(t.Context(), client.ObjectKey{Namespace: s.Namespace, Name: certificates.ObjectName}, &trust); err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	block, _ := pem.Decode(own.Status.Certificate)
	if !roots.AppendCertsFromPEM([]byte(trust.Data[certificates.BundleKey])) || block == nil {
		t.Fatalf("%q, %q", trust.Data, own.Status.Certificate)
	}
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: "edge-1"}); err != nil {
		t.Error(err)
	}
	if other := look("other"); !has(other, certificatesv1.CertificateDenied) || len(other.Status.Certificate) > 0 || len(other.Status.Conditions) != 1 {
		t.Errorf("%+v", other.Status)
	}
	if foreign := look("foreign"); len(foreign.Status.Conditions) > 0 || len(foreign.Status.Certificate) > 0 {
		t.Errorf("%+v", foreign.Status)
	}
	var before, after corev1.Secret
	key := client.ObjectKey{Namespace: s.Namespace, Name: certificates.ObjectName}
	if err := c.Get(t.Context(), key, &before); err != nil {
		t.Fatal(err)
	}
	if _, err := s.authorities(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := c.Get(t.Context(), key, &after); err != nil || after.ResourceVersion != before.ResourceVersion {
		t.Errorf("the authorities were written again: %v", err)
	}
}
