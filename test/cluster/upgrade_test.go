package cluster_test

import (
	"context"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// before is a CRD as another implementation of the same API leaves it behind: it stores v1alpha1, knows no defaults, and
// converts through a webhook whose server is gone.
const before = `{apiVersion: apiextensions.k8s.io/v1, kind: CustomResourceDefinition, metadata: {name: gateways.raven.openyurt.io},
	spec: {group: raven.openyurt.io, scope: Cluster, names: {kind: Gateway, plural: gateways},
		conversion: {strategy: Webhook, webhook: {conversionReviewVersions: [v1], clientConfig: {
			service: {namespace: kube-system, name: gone, path: /convert}}}},
		versions: [
			{name: v1alpha1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}},
			{name: v1beta1, served: true, storage: false, schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}]}}`

func TestInstallingOverTheOriginalsCRDClearsItsWebhookAndReadsItsObjects(t *testing.T) {
	t.Cleanup(func() { must(t, server.Install(context.WithoutCancel(t.Context()))) })
	kubectl(t, "", "delete", "crd", "gateways.raven.openyurt.io")
	kubectl(t, before, "create", "-f", "-")
	kubectl(t, "", "wait", "--for=condition=Established", "--timeout=60s", "crd/gateways.raven.openyurt.io")
	older := gateways
	older.Version = "v1alpha1"
	c := client(t, server.Admin())
	awaitTrue(t, "the CRD serve", func() bool {
		_, err := c.Resource(older).List(t.Context(), metav1.ListOptions{})
		return err == nil
	})
	create(t, older, object(t, `{apiVersion: raven.openyurt.io/v1alpha1, kind: Gateway, metadata: {name: gw-old},
		spec: {endpoints: [{nodeName: edge-1, underNAT: true}, {nodeName: edge-2, underNAT: true}]}}`))
	if _, err := c.Resource(gateways).Get(t.Context(), "gw-old", metav1.GetOptions{}); err == nil {
		t.Fatal("the object can be read through v1beta1 without its webhook: this test tries nothing")
	}

	must(t, server.Install(t.Context()))
	awaitTrue(t, "the object through v1beta1", func() bool {
		_, err := c.Resource(gateways).Get(t.Context(), "gw-old", metav1.GetOptions{})
		return err == nil
	})
	if got := kubectl(t, "", "get", "gateway", "gw-old", "-o", "jsonpath={.spec.endpoints[*].type} {.spec.tunnelConfig.Replicas}"); got != "tunnel tunnel 1" {
		t.Errorf("what was absent reads %q", got)
	}
	kubectl(t, "", "label", "gateway", "gw-old", "edited=true")
	if got := kubectl(t, "", "get", "gateways.v1alpha1.raven.openyurt.io", "gw-old", "-o", "jsonpath={.spec.endpoints[*].nodeName}"); got != "edge-1 edge-2" {
		t.Errorf("after an edit the nodes are %q", got)
	}
}
