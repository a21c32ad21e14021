package cluster_test

import (
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ravencni/raven/test/cluster"
)

// That the controller may do what it needs is tried where it runs, in pkg/controller, with the same account.
func TestTheControllerWritesNoSpecNoNodeNoSecretAndNoAgentsWord(t *testing.T) {
	ctx := t.Context()
	createNode(t, "edge-1")
	made := create(t, endpoints, endpoint(t, "edge-1"))
	gateway := create(t, gateways, object(t, `{apiVersion: raven.openyurt.io/v1beta1, kind: Gateway, metadata: {name: gw}}`))
	config, err := server.PodUser(ctx, metav1.NamespaceSystem, cluster.ControllerAccount, "")
	must(t, err)
	c := client(t, config)

	_, err = c.Resource(gateways).Update(ctx, gateway, metav1.UpdateOptions{})
	refused(t, "write a Gateway's spec", err)
	refused(t, "delete a Gateway", c.Resource(gateways).Delete(ctx, "gw", metav1.DeleteOptions{}))
	_, err = c.Resource(gateways).UpdateStatus(ctx, gateway, metav1.UpdateOptions{})
	allowed(t, "write a Gateway's status", err)

	_, err = c.Resource(endpoints).Create(ctx, endpoint(t, "edge-2"), metav1.CreateOptions{})
	refused(t, "create a TunnelEndpoint", err)
	_, err = c.Resource(endpoints).UpdateStatus(ctx, withGateway(made, "gw"), metav1.UpdateOptions{})
	refused(t, "write a TunnelEndpoint's status", err)
	allowed(t, "delete a TunnelEndpoint", c.Resource(endpoints).Delete(ctx, "edge-1", metav1.DeleteOptions{}))

	label := []byte(`{"metadata":{"labels":{"a":"b"}}}`)
	_, err = c.Resource(nodes).Patch(ctx, "edge-1", types.MergePatchType, label, metav1.PatchOptions{})
	refused(t, "label a Node", err)
	system := metav1.NamespaceSystem
	_, err = c.Resource(secrets).Namespace(system).List(ctx, metav1.ListOptions{})
	refused(t, "list Secrets", err)
	_, err = c.Resource(configMaps).Namespace(system).Patch(ctx, "raven-cfg", types.MergePatchType, label, metav1.PatchOptions{})
	refused(t, "write raven-cfg", err)
	_, err = c.Resource(configMaps).Namespace(system).Get(ctx, "extension-apiserver-authentication", metav1.GetOptions{})
	refused(t, "read a ConfigMap of others", err)
	_, err = c.Resource(rbacv1.SchemeGroupVersion.WithResource("clusterroles")).Patch(ctx, cluster.ControllerAccount,
		types.MergePatchType, label, metav1.PatchOptions{})
	refused(t, "write its own role", err)
}
