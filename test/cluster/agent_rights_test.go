package cluster_test

import (
	"context"
	"strings"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/ravencni/raven/test/cluster"
)

var (
	secrets    = corev1.SchemeGroupVersion.WithResource("secrets")
	configMaps = corev1.SchemeGroupVersion.WithResource("configmaps")
	pods       = corev1.SchemeGroupVersion.WithResource("pods")
)

// refused wants an answer 403 that says all parts.
func refused(t *testing.T, what string, err error, parts ...string) {
	t.Helper()
	if !apierrors.IsForbidden(err) {
		t.Errorf("%s: got %v, want a refusal", what, err)
		return
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%s: the refusal does not say %q: %v", what, part, err)
		}
	}
}

func allowed(t *testing.T, what string, err error) {
	t.Helper()
	if err != nil {
		t.Errorf("%s: %v", what, err)
	}
}

func endpoint(t *testing.T, name string) *unstructured.Unstructured {
	t.Helper()
	return object(t, `{apiVersion: raven.openyurt.io/v1beta1, kind: TunnelEndpoint, metadata: {name: %q}}`, name)
}

func withGateway(o *unstructured.Unstructured, gateway string) *unstructured.Unstructured {
	o = o.DeepCopy()
	o.Object["status"] = map[string]any{"gateway": gateway}
	return o
}

func TestAnAgentWritesItsOwnTunnelEndpointAndNothingElse(t *testing.T) {
	ctx := t.Context()
	// Names that begin alike: only the whole name counts.
	createNode(t, "edge-1")
	createNode(t, "edge-10")
	theirs := create(t, endpoints, endpoint(t, "edge-10"))
	gateway := create(t, gateways, object(t, `{apiVersion: raven.openyurt.io/v1beta1, kind: Gateway, metadata: {name: gw},
		spec: {endpoints: [{nodeName: edge-10}]}}`))
	c := client(t, agent(t, "edge-1"))
	te := c.Resource(endpoints)
	remove(t, endpoints, "edge-1")

	own, err := te.Create(ctx, endpoint(t, "edge-1"), metav1.CreateOptions{})
	allowed(t, "create its own TunnelEndpoint", err)
	own, err = te.UpdateStatus(ctx, withGateway(own, "gw"), metav1.UpdateOptions{})
	allowed(t, "write its own status", err)
	if got, _, err := unstructured.NestedString(own.Object, "status", "gateway"); err != nil || got != "gw" {
		t.Errorf("its own status reads %q, %v", got, err)
	}

	const remedy = "may write the TunnelEndpoint of that node only"
	_, err = te.Create(ctx, endpoint(t, "edge-2"), metav1.CreateOptions{})
	refused(t, "create another's TunnelEndpoint", err, "metadata.name", "edge-1", "edge-2", remedy)
	_, err = te.UpdateStatus(ctx, withGateway(theirs, "mine"), metav1.UpdateOptions{})
	refused(t, "write another's status", err, "metadata.name", "edge-1", "edge-10", remedy)
	refused(t, "delete another's TunnelEndpoint", te.Delete(ctx, "edge-10", metav1.DeleteOptions{}))
	refused(t, "delete all TunnelEndpoints", te.DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{}))
	_, err = te.Update(ctx, theirs, metav1.UpdateOptions{})
	refused(t, "update another's TunnelEndpoint", err)
	_, err = te.Patch(ctx, "edge-10", types.MergePatchType, []byte(`{"status":{"gateway":"mine"}}`), metav1.PatchOptions{}, "status")
	refused(t, "patch another's status", err)

	gw := c.Resource(gateways)
	_, err = gw.Update(ctx, gateway, metav1.UpdateOptions{})
	refused(t, "write a Gateway's spec", err)
	_, err = gw.UpdateStatus(ctx, withGateway(gateway, ""), metav1.UpdateOptions{})
	refused(t, "write a Gateway's status", err)
	_, err = gw.Create(ctx, gateway, metav1.CreateOptions{})
	refused(t, "create a Gateway", err)
	refused(t, "delete a Gateway", gw.Delete(ctx, "gw", metav1.DeleteOptions{}))

	secret := object(t, `{apiVersion: v1, kind: Secret, metadata: {name: raven-agent-secret}}`)
	_, err = c.Resource(secrets).Namespace(metav1.NamespaceSystem).Create(ctx, secret, metav1.CreateOptions{})
	refused(t, "create a Secret", err)
	_, err = c.Resource(secrets).Namespace(metav1.NamespaceSystem).List(ctx, metav1.ListOptions{})
	refused(t, "list Secrets", err)
	_, err = c.Resource(nodes).Patch(ctx, "edge-1", types.MergePatchType, []byte(`{"metadata":{"labels":{"a":"b"}}}`), metav1.PatchOptions{})
	refused(t, "label its own Node", err)
	_, err = c.Resource(pods).Namespace(metav1.NamespaceSystem).List(ctx, metav1.ListOptions{})
	refused(t, "list Pods", err)
}

func TestAnAgentReadsWhatItNeedsAndNoOtherConfigMap(t *testing.T) {
	ctx := t.Context()
	c := client(t, agent(t, "edge-1"))
	for _, resource := range []dynamic.ResourceInterface{c.Resource(gateways), c.Resource(endpoints), c.Resource(nodes)} {
		_, err := resource.List(ctx, metav1.ListOptions{})
		allowed(t, "list", err)
		watch, err := resource.Watch(ctx, metav1.ListOptions{})
		allowed(t, "watch", err)
		if err == nil {
			watch.Stop()
		}
	}
	system := c.Resource(configMaps).Namespace(metav1.NamespaceSystem)
	for _, name := range []string{"raven-cfg", "raven-agent-config"} {
		_, err := system.List(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + name})
		allowed(t, "list "+name, err)
		if _, err = system.Get(ctx, name, metav1.GetOptions{}); err != nil && !apierrors.IsNotFound(err) {
			t.Errorf("read %s: %v", name, err)
		}
		refused(t, "delete "+name, system.Delete(ctx, name, metav1.DeleteOptions{}))
	}
	_, err := system.Get(ctx, "extension-apiserver-authentication", metav1.GetOptions{})
	refused(t, "read another ConfigMap", err)
	_, err = system.List(ctx, metav1.ListOptions{})
	refused(t, "list all ConfigMaps", err)
	_, err = c.Resource(configMaps).Namespace(metav1.NamespaceDefault).List(ctx, metav1.ListOptions{FieldSelector: "metadata.name=raven-cfg"})
	refused(t, "read a ConfigMap of that name elsewhere", err)
}

func TestATokenThatNamesNoNodeWritesNoTunnelEndpoint(t *testing.T) {
	ctx := t.Context()
	made, err := kubernetes.NewForConfig(server.Admin())
	must(t, err)
	token, err := made.CoreV1().ServiceAccounts(metav1.NamespaceSystem).CreateToken(ctx, cluster.AgentAccount,
		&authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	must(t, err)
	byHand := rest.AnonymousClientConfig(server.Admin())
	byHand.BearerToken = token.Status.Token
	impersonator := server.Admin()
	impersonator.Impersonate = rest.ImpersonationConfig{
		UserName: "system:serviceaccount:kube-system:" + cluster.AgentAccount,
		Extra:    map[string][]string{"authentication.kubernetes.io/node-name": {"edge-1", "edge-2"}},
	}
	for name, config := range map[string]*rest.Config{
		"a token made by hand": byHand, "a Pod without a node": agent(t, ""), "a claim of two nodes": impersonator,
	} {
		te := client(t, config).Resource(endpoints)
		for _, node := range []string{"edge-1", "edge-2"} {
			remove(t, endpoints, node)
			_, err := te.Create(ctx, endpoint(t, node), metav1.CreateOptions{})
			refused(t, name, err, "names no node", "use the token that the kubelet mounts")
		}
	}
}

// The policy decides by itself as well, where somebody gave the agents' account more than the manifests do.
func TestThePolicyHoldsWhereTheAgentsAccountMayDoEverything(t *testing.T) {
	ctx := t.Context()
	made, err := kubernetes.NewForConfig(server.Admin())
	must(t, err)
	bindings := made.RbacV1().ClusterRoleBindings()
	binding, err := bindings.Create(ctx, &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "too-much-"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "cluster-admin"},
		Subjects:   []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: metav1.NamespaceSystem, Name: cluster.AgentAccount}},
	}, metav1.CreateOptions{})
	must(t, err)
	t.Cleanup(func() {
		if err := bindings.Delete(context.Background(), binding.Name, metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
	})
	theirs := create(t, endpoints, endpoint(t, "edge-2"))
	remove(t, endpoints, "edge-1")
	te := client(t, agent(t, "edge-1")).Resource(endpoints)

	// The new rights are in force once the agent may do something that it could not.
	awaitTrue(t, "the agent's new rights", func() bool {
		_, err := te.Patch(ctx, "absent", types.MergePatchType, []byte(`{}`), metav1.PatchOptions{})
		return apierrors.IsNotFound(err)
	})
	const policy = "ValidatingAdmissionPolicy 'raven-agent-own-tunnelendpoint'"
	theirs.SetLabels(map[string]string{"a": "b"})
	_, err = te.Update(ctx, theirs, metav1.UpdateOptions{})
	refused(t, "update another's object", err, policy, "metadata.name")
	_, err = te.Patch(ctx, "edge-2", types.MergePatchType, []byte(`{"status":{"gateway":"x"}}`), metav1.PatchOptions{}, "status")
	refused(t, "patch another's status", err, policy, "metadata.name")
	_, err = te.Apply(ctx, "edge-2", endpoint(t, "edge-2"), metav1.ApplyOptions{FieldManager: "x", Force: true})
	refused(t, "apply another's object", err, policy, "metadata.name")
	refused(t, "delete another's object", te.Delete(ctx, "edge-2", metav1.DeleteOptions{}), policy, "metadata.name")
	refused(t, "delete all objects", te.DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{}), policy)
	generated := endpoint(t, "")
	generated.SetName("")
	generated.SetGenerateName("edge-1")
	_, err = te.Create(ctx, generated, metav1.CreateOptions{})
	refused(t, "create an object of a generated name", err, policy, "metadata.name")

	held := endpoint(t, "edge-1")
	held.SetFinalizers([]string{"example.com/forever"})
	_, err = te.Create(ctx, held, metav1.CreateOptions{})
	refused(t, "create an object that cannot be deleted", err, policy, "metadata.finalizers", "remove them")
	_, err = te.Create(ctx, endpoint(t, "edge-1"), metav1.CreateOptions{})
	allowed(t, "create its own object", err)
	allowed(t, "delete its own object", te.Delete(ctx, "edge-1", metav1.DeleteOptions{}))
}
