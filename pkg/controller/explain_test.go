package controller_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/ravencni/raven/pkg/controller"
	"github.com/ravencni/raven/pkg/election"
)

func TestAConflictIsNamedByBothSidesAndEndsWithItsCause(t *testing.T) {
	r := newRig(t)
	r.start()
	r.node("clash-1", "clash-1", "192.168.30.1", "10.30.1.0/24")
	twin := r.node("clash-2", "clash-2", "192.168.30.1", "10.30.2.0/24")
	for _, name := range []string{"clash-1", "clash-2"} {
		r.gateway(name, `{endpoints: [{nodeName: `+name+`, underNAT: true}]}`)
	}
	for _, name := range []string{"clash-1", "clash-2"} {
		gw := r.awaitCondition(name, election.ConditionCIDRConflict, election.ReasonConflict)
		c := meta.FindStatusCondition(gw.Status.Conditions, election.ConditionCIDRConflict)
		if c.Status != metav1.ConditionTrue || !strings.Contains(c.Message, "192.168.30.1") || !strings.Contains(c.Message, "give one of them another address") {
			t.Errorf("%s: the condition is %+v", name, c)
		}
		if !meta.IsStatusConditionTrue(gw.Status.Conditions, election.ConditionReady) {
			t.Errorf("%s: a conflict of one address takes Ready: %+v", name, gw.Status.Conditions)
		}
	}
	r.delete(twin)
	r.awaitCondition("clash-1", election.ConditionCIDRConflict, election.ReasonNoConflict)
}

func TestABadInputCostsItselfAndIsNamed(t *testing.T) {
	r := newRig(t)
	r.start()
	r.node("bad-a", "bad", "192.168.31.1", "10.31.1.0/24")
	gw := r.gateway("bad", `{endpoints: [{nodeName: bad-a, underNAT: true}]}`)
	r.awaitActive("bad", tunnel, "bad-a")
	if _, err := server.Kubectl(t.Context(), "", "annotate", "gateway", gw.Name, "raven.openyurt.io/extra-allowed-source-cidrs= 10.99.0.0/16 ,nonsense"); err != nil {
		t.Fatal(err)
	}
	after := r.awaitCondition("bad", election.ConditionReady, election.ReasonInputsLeftOut)
	if c := meta.FindStatusCondition(after.Status.Conditions, election.ConditionReady); c.Status != metav1.ConditionTrue || !strings.Contains(c.Message, `"nonsense"`) {
		t.Errorf("the condition is %+v", c)
	}
	if got := fmt.Sprint(after.Status.Nodes[0].Subnets); got != "[10.31.1.0/24 10.99.0.0/16]" {
		t.Errorf("subnets %s", got)
	}
}

func TestARunningOpenYurtControllerIsNamed(t *testing.T) {
	now := metav1.NowMicro()
	lease := func() *coordinationv1.Lease {
		return &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: "yurt-manager"},
			Spec: coordinationv1.LeaseSpec{HolderIdentity: ptr.To("master-1_uuid"), LeaseDurationSeconds: ptr.To(int32(15)), RenewTime: &now}}
	}
	for _, c := range []struct {
		name  string
		make  func(*rig)
		found string
	}{
		{"nothing", func(*rig) {}, ""},
		{"a renewed Lease", func(r *rig) { r.create(lease()) }, "Lease kube-system/yurt-manager is held by master-1_uuid"},
		{"a Lease that has run out", func(r *rig) {
			l, old := lease(), metav1.NewMicroTime(now.Add(-time.Hour))
			l.Spec.RenewTime = &old
			r.create(l)
		}, ""},
		{"a yurt-manager without gateway-pickup", func(r *rig) {
			r.create(lease())
			r.create(manager("--controllers=-gateway-pickup-controller,*"))
		}, ""},
		{"a yurt-manager with gateway-pickup", func(r *rig) {
			r.create(lease())
			r.create(manager("--controllers=*"))
		}, "Lease kube-system/yurt-manager"},
		{"a webhook for Gateways", func(r *rig) {
			r.create(&admissionv1.ValidatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: "yurt-manager-validating"},
				Webhooks: []admissionv1.ValidatingWebhook{webhook("validate.raven.v1beta1.gateway.openyurt.io", "raven.openyurt.io", "gateways")}})
		}, "ValidatingWebhookConfiguration yurt-manager-validating has webhook validate.raven.v1beta1.gateway.openyurt.io"},
		{"a webhook that changes Gateways", func(r *rig) {
			w := webhook("mutate.raven.v1beta1.gateway.openyurt.io", "raven.openyurt.io", "gateways")
			r.create(&admissionv1.MutatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: "yurt-manager-mutating"},
				Webhooks: []admissionv1.MutatingWebhook{{Name: w.Name, SideEffects: w.SideEffects, AdmissionReviewVersions: w.AdmissionReviewVersions,
					FailurePolicy: w.FailurePolicy, TimeoutSeconds: w.TimeoutSeconds, ClientConfig: w.ClientConfig,
					NamespaceSelector: w.NamespaceSelector, ObjectSelector: w.ObjectSelector, Rules: w.Rules}}})
		}, "MutatingWebhookConfiguration yurt-manager-mutating has webhook mutate.raven.v1beta1.gateway.openyurt.io"},
		{"a webhook for everything", func(r *rig) {
			r.create(&admissionv1.ValidatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: "policy-engine"},
				Webhooks: []admissionv1.ValidatingWebhook{webhook("all.policy.example.com", "*", "*")}})
		}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t)
			r.node("yurt-a", "yurt", "192.168.32.1", "10.32.1.0/24")
			r.gateway("yurt", `{endpoints: [{nodeName: yurt-a, underNAT: true}]}`)
			c.make(r)
			stop := r.start()
			const warning = "a controller or webhook of OpenYurt works on Gateways"
			if c.found == "" {
				r.awaitCondition("yurt", election.ConditionReady, election.ReasonReady)
				stop()
				if strings.Contains(r.said.String(), warning) {
					t.Error("the log tells of a controller or webhook")
				}
				return
			}
			gw := r.awaitCondition("yurt", election.ConditionReady, election.ReasonForeignController)
			got := meta.FindStatusCondition(gw.Status.Conditions, election.ConditionReady).Message
			if !strings.Contains(got, c.found) || !strings.Contains(got, "docs/migrate-from-openyurt.md") {
				t.Errorf("the condition says %q, want %q", got, c.found)
			}
			stop()
			if log := r.said.String(); !strings.Contains(log, warning) || !strings.Contains(log, c.found) {
				t.Errorf("the log does not name it: %s", log)
			}
		})
	}
}

func webhook(name, group, resource string) admissionv1.ValidatingWebhook {
	return admissionv1.ValidatingWebhook{
		Name: name, SideEffects: ptr.To(admissionv1.SideEffectClassNone), AdmissionReviewVersions: []string{"v1"},
		FailurePolicy: ptr.To(admissionv1.Ignore), TimeoutSeconds: ptr.To(int32(1)),
		ClientConfig: admissionv1.WebhookClientConfig{URL: ptr.To("https://127.0.0.1:1/")},
		// It is asked about nothing that these tests do, since nobody answers.
		NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"no": "namespace"}},
		ObjectSelector:    &metav1.LabelSelector{MatchLabels: map[string]string{"no": "object"}},
		Rules: []admissionv1.RuleWithOperations{{Operations: []admissionv1.OperationType{admissionv1.Update},
			Rule: admissionv1.Rule{APIGroups: []string{group}, APIVersions: []string{"*"}, Resources: []string{resource}}}},
	}
}

func manager(args ...string) *appsv1.Deployment {
	labels := map[string]string{"app": "yurt-manager"}
	return &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: "yurt-manager"},
		Spec: appsv1.DeploymentSpec{Replicas: ptr.To(int32(0)), Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "yurt-manager", Image: "yurt-manager", Args: args}}}}}}
}

func TestAnOldKubernetesIsRefusedByName(t *testing.T) {
	for text, refused := range map[string]bool{"v1.29.9": true, "v1.9.0": true, "v1.30.0": false, "v1.30.0-rc.1": false, "v1.37.2": false,
		"v1.31.1-gke.1678000": false, "v1.28.3+k3s1": true, "v2.0.0": false} {
		err := controller.CheckVersion(text)
		if (err != nil) != refused || refused && (!strings.Contains(err.Error(), text) || !strings.Contains(err.Error(), "1.30")) {
			t.Errorf("%s: %v", text, err)
		}
	}
	if err := controller.CheckVersion("nonsense"); err == nil {
		t.Error("nonsense is accepted")
	}
}
