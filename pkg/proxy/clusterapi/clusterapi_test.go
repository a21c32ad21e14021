package clusterapi

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"

	"github.com/ravencni/raven/pkg/controller/services"
	"github.com/ravencni/raven/pkg/proxy/certificates"
)

// api is a fake API server: it has a ConfigMap, a Service and one request, and decides as it is told.
type api struct {
	empty  bool
	mu     sync.Mutex
	asked  *certificatesv1.CertificateSigningRequest
	decide func(*certificatesv1.CertificateSigningRequest)
	// fail is the status of the first look at the request; 0: it is answered.
	fail int
}

func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	var answer any
	switch {
	case a.empty:
		http.NotFound(w, r)
		return
	case strings.HasSuffix(r.URL.Path, "/configmaps/"+certificates.ObjectName):
		answer = &corev1.ConfigMap{Data: map[string]string{certificates.BundleKey: "a bundle"}}
	case strings.HasSuffix(r.URL.Path, "/services/"+services.InternalName):
		answer = &corev1.Service{ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{
			services.AnnotationTargets: services.Targets{10250: 10263, 9100: 10280}.String()}}}
	case r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, "/"+requests):
		a.asked = &certificatesv1.CertificateSigningRequest{}
		if err := json.NewDecoder(r.Body).Decode(a.asked); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		a.asked.Name = a.asked.GenerateName + "x"
		answer = a.asked
	case a.asked != nil && strings.HasSuffix(r.URL.Path, "/"+requests+"/"+a.asked.Name):
		if status := a.fail; status != 0 {
			a.fail = 0
			http.Error(w, "not now", status)
			return
		}
		a.decide(a.asked)
		answer = a.asked
	default:
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(answer)
}

func clientOf(t *testing.T, a *api) *Client {
	t.Helper()
	server := httptest.NewServer(a)
	t.Cleanup(server.Close)
	at := func(path string, gv schema.GroupVersion) rest.Interface {
		c, err := rest.RESTClientFor(&rest.Config{Host: server.URL, APIPath: path, ContentConfig: rest.ContentConfig{
			GroupVersion: &gv, NegotiatedSerializer: scheme.Codecs.WithoutConversion(), ContentType: "application/json"}})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	return &Client{Core: at("/api", corev1.SchemeGroupVersion), Certificates: at("/apis", certificatesv1.SchemeGroupVersion), Node: "edge-1"}
}

func conditionOf(kind certificatesv1.RequestConditionType) func(*certificatesv1.CertificateSigningRequest) {
	return func(r *certificatesv1.CertificateSigningRequest) {
		r.Status.Conditions = []certificatesv1.CertificateSigningRequestCondition{{Type: kind, Status: corev1.ConditionTrue, Message: "another node's"}}
	}
}

func TestARequestIsSignedRefusedOrWaitedFor(t *testing.T) {
	signed := func(r *certificatesv1.CertificateSigningRequest) { r.Status.Certificate = []byte("signed") }
	for name, c := range map[string]struct {
		decide func(*certificatesv1.CertificateSigningRequest)
		says   string
	}{
		"signed": {signed, ""},
		"denied": {conditionOf(certificatesv1.CertificateDenied), "was refused: another node's"},
		"failed": {conditionOf(certificatesv1.CertificateFailed), "was refused: another node's"},
		"nobody": {func(*certificatesv1.CertificateSigningRequest) {}, "does raven-controller run?"},
	} {
		t.Run(name, func(t *testing.T) {
			a := &api{decide: c.decide}
			limit := time.Minute
			if name == "nobody" {
				limit = 2 * time.Second
			}
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			defer cancel()
			got, err := clientOf(t, a).Sign(ctx, []byte("a request"))
			if c.says == "" && (err != nil || string(got) != "signed") || c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)) {
				t.Errorf("%q, %v; want %q", got, err, c.says)
			}
			a.mu.Lock()
			defer a.mu.Unlock()
			if s := a.asked.Spec; s.SignerName != certificates.SignerName || string(s.Request) != "a request" || len(s.Usages) != 3 ||
				!strings.HasPrefix(a.asked.Name, "raven-proxy-edge-1-") {
				t.Errorf("it asked for %+v", a.asked)
			}
		})
	}
}

func TestARequestOutlivesAnOutageAndNotItsDeletion(t *testing.T) {
	for name, c := range map[string]struct {
		status int
		says   string
	}{"outage": {http.StatusInternalServerError, ""}, "deletion": {http.StatusNotFound, "read CertificateSigningRequest raven-proxy-edge-1-"}} {
		t.Run(name, func(t *testing.T) {
			a := &api{decide: func(r *certificatesv1.CertificateSigningRequest) { r.Status.Certificate = []byte("signed") }}
			a.fail = c.status
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			got, err := clientOf(t, a).Sign(ctx, []byte("a request"))
			if c.says == "" && (err != nil || string(got) != "signed") || c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)) {
				t.Errorf("%q, %v; want %q", got, err, c.says)
			}
		})
	}
}

func TestBundleAndListenersAreRead(t *testing.T) {
	c := clientOf(t, &api{})
	if got, err := c.Bundle(t.Context()); err != nil || string(got) != "a bundle" {
		t.Errorf("%q, %v", got, err)
	}
	if got, err := c.Targets(t.Context()); err != nil || got[10250] != 10263 || got[9100] != 10280 || len(got) != 2 {
		t.Errorf("%v, %v", got, err)
	}
	gone := clientOf(t, &api{empty: true})
	if _, err := gone.Bundle(t.Context()); err == nil || !strings.Contains(err.Error(), "ConfigMap kube-system/raven-proxy-ca") {
		t.Errorf("without an answer: %v", err)
	}
}
