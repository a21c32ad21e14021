package main

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"

	"github.com/ravencni/raven/pkg/apis/raven/v1beta1"
	"github.com/ravencni/raven/pkg/proxy/clusterapi"
	"github.com/ravencni/raven/pkg/topology"
)

// Most nodes of a cluster have no role in the proxy, and must not each ask the API server every minute. It is a fake here,
// that counts and knows nothing.
func TestANodeWithoutARoleAsksNothingForItsProxy(t *testing.T) {
	var asked atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		http.NotFound(w, r)
	}))
	defer server.Close()
	at := func(path string, gv schema.GroupVersion) rest.Interface {
		c, err := rest.RESTClientFor(&rest.Config{Host: server.URL, APIPath: path, ContentConfig: rest.ContentConfig{
			GroupVersion: &gv, NegotiatedSerializer: scheme.Codecs.WithoutConversion()}})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	p := newL7(&settings{options: options{nodeName: "edge-1", stateDir: t.TempDir()}},
		&clusterapi.Client{Core: at("/api", corev1.SchemeGroupVersion), Certificates: at("/apis", certificatesv1.SchemeGroupVersion), Node: "edge-1"},
		slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	group.Go(func() { p.run(ctx) })
	defer func() { cancel(); group.Wait() }()

	state := topology.State{
		Gateways: []*v1beta1.Gateway{{ObjectMeta: metav1.ObjectMeta{Name: "gw-edge"}}},
		Nodes:    []*corev1.Node{{ObjectMeta: metav1.ObjectMeta{Name: "edge-1", Labels: map[string]string{v1beta1.LabelGateway: "gw-edge"}}}},
	}
	p.set(state)
	awaitTrue(t, "the first look at the objects", func() bool { return p.proxy.Gateway() == "gw-edge" })
	if n := asked.Load(); n != 0 {
		t.Errorf("a node without a role asked %d times", n)
	}
	active := state
	active.Gateways = []*v1beta1.Gateway{{ObjectMeta: metav1.ObjectMeta{Name: "gw-edge"}, Status: v1beta1.GatewayStatus{ActiveEndpoints: []*v1beta1.Endpoint{{
		NodeName: "edge-1", Type: v1beta1.EndpointProxy, Config: map[string]string{v1beta1.ConfigEnableProxy: "true"}}}}}}
	p.set(active)
	awaitTrue(t, "a question of an active proxy", func() bool { return asked.Load() >= 2 }) // for the bundle and for the listeners
}

func awaitTrue(t *testing.T, what string, ask func() bool) {
	t.Helper()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	limit := time.After(30 * time.Second)
	for !ask() {
		select {
		case <-limit:
			t.Fatalf("within 30 s: no %s", what)
		case <-ticker.C:
		}
	}
}
