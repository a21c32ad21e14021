package cluster_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/json"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"

	"github.com/ravencni/raven/pkg/apis/raven/v1beta1"
	"github.com/ravencni/raven/test/cluster"
)

// server is the control plane of all tests of this package, with Raven's manifests installed. A test removes the
// objects it makes.
var server *cluster.Cluster

func TestMain(m *testing.M) {
	os.Exit(cluster.Main(m, &server, cluster.Options{}, (*cluster.Cluster).Install))
}

var (
	gateways  = v1beta1.GroupVersion.WithResource("gateways")
	endpoints = v1beta1.GroupVersion.WithResource("tunnelendpoints")
	nodes     = corev1.SchemeGroupVersion.WithResource("nodes")
)

// patience bounds a wait for something that should take a moment.
const patience = time.Minute

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func client(t *testing.T, config *rest.Config) *dynamic.DynamicClient {
	t.Helper()
	c, err := dynamic.NewForConfig(config)
	must(t, err)
	return c
}

// object reads YAML.
func object(t *testing.T, format string, args ...any) *unstructured.Unstructured {
	t.Helper()
	text := fmt.Sprintf(format, args...)
	o := &unstructured.Unstructured{}
	asJSON, err := yaml.YAMLToJSON([]byte(text))
	if err == nil {
		err = json.Unmarshal(asJSON, &o.Object) // keeps integers
	}
	if err != nil {
		t.Fatalf("decode %s: %v", text, err)
	}
	return o
}

// create makes an object as the admin and removes it at the end of the test.
func create(t *testing.T, resource schema.GroupVersionResource, o *unstructured.Unstructured) *unstructured.Unstructured {
	t.Helper()
	c := client(t, server.Admin()).Resource(resource)
	made, err := c.Create(t.Context(), o, metav1.CreateOptions{FieldValidation: metav1.FieldValidationStrict})
	if err != nil {
		t.Fatalf("create %s %s: %v", resource.Resource, o.GetName(), err)
	}
	remove(t, resource, o.GetName())
	return made
}

// remove deletes an object of no namespace at the end of the test, if it is still there.
func remove(t *testing.T, resource schema.GroupVersionResource, name string) {
	t.Helper()
	c := client(t, server.Admin()).Resource(resource)
	t.Cleanup(func() {
		err := c.Delete(context.Background(), name, metav1.DeleteOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			t.Errorf("delete %s %s: %v", resource.Resource, name, err)
		}
	})
}

func createNode(t *testing.T, name string) {
	t.Helper()
	create(t, nodes, object(t, `{apiVersion: v1, kind: Node, metadata: {name: %s}}`, name))
}

// kubectl runs kubectl as the admin.
func kubectl(t *testing.T, stdin string, args ...string) string {
	t.Helper()
	out, err := server.Kubectl(t.Context(), stdin, args...)
	must(t, err)
	return out
}

// agent is the configuration of the agent on a node, from a token as the kubelet would mount it.
func agent(t *testing.T, node string) *rest.Config {
	t.Helper()
	config, err := server.PodUser(t.Context(), metav1.NamespaceSystem, cluster.AgentAccount, node)
	must(t, err)
	config.QPS = -1
	return config
}

// kubeconfig writes a configuration to a file.
func kubeconfig(t *testing.T, config *rest.Config) string {
	t.Helper()
	content, err := cluster.Kubeconfig(config)
	must(t, err)
	path := filepath.Join(t.TempDir(), "kubeconfig")
	must(t, os.WriteFile(path, content, 0o600))
	return path
}

// awaitTrue asks until the answer is true.
func awaitTrue(t *testing.T, what string, ask func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !ask() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("never saw %s", what)
		}
	}
}
