package cluster

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"github.com/ravencni/raven/pkg/apis/raven/v1beta1"
)

// AgentAccount and ControllerAccount are the names of the ServiceAccounts in kube-system that the manifests make.
const (
	AgentAccount      = "raven-agent-account"
	ControllerAccount = "raven-controller"
)

// Install applies the repository's manifests with the real kubectl, and returns once they are in force: the CRDs are
// served and the admission policy decides.
func (c *Cluster) Install(ctx context.Context) error {
	if _, err := c.Kubectl(ctx, "", "apply", "-k", filepath.Join(c.root, "manifests")); err != nil {
		return err
	}
	if _, err := c.Kubectl(ctx, "", "wait", "--for=condition=Established", "--timeout=60s", "crd/gateways.raven.openyurt.io",
		"crd/tunnelendpoints.raven.openyurt.io"); err != nil {
		return err
	}
	// An agent's account without a Pod: what RBAC allows and the policy refuses.
	config := c.Admin()
	config.Impersonate = rest.ImpersonationConfig{UserName: "system:serviceaccount:kube-system:" + AgentAccount}
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		return fmt.Errorf("make a client of the API server: %w", err)
	}
	nobody := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": v1beta1.GroupVersion.String(), "kind": "TunnelEndpoint", "metadata": map[string]any{"name": "nobody"},
	}}
	return c.await(ctx, c.api, "the admission policy", func(ctx context.Context) error {
		_, err := client.Resource(v1beta1.GroupVersion.WithResource("tunnelendpoints")).
			Create(ctx, nobody, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		if err == nil {
			return errors.New("a TunnelEndpoint of nobody is accepted")
		}
		if !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "ValidatingAdmissionPolicy") {
			return fmt.Errorf("a TunnelEndpoint of nobody is not refused by a policy: %w", err)
		}
		return nil
	})
}
