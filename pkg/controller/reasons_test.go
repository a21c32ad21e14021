package controller_test

import (
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ravencni/raven/pkg/apis/raven/v1beta1"
	"github.com/ravencni/raven/pkg/election"
)

// TestEachOutcomeOfAnElectionHasItsReason has those that no other test of this package waits for.
func TestEachOutcomeOfAnElectionHasItsReason(t *testing.T) {
	r := newRig(t)
	r.start()
	r.node("out-stranger", "", "192.168.7.1", "10.7.1.0/24")
	r.node("out-3", "out-3", "192.168.7.3", "10.7.3.0/24")
	r.node("out-4", "out-4", "192.168.7.4", "10.7.4.0/24")
	r.node("out-5", "out-5", "192.168.7.5", "10.7.5.0/24")
	for i, c := range []struct{ spec, condition, reason, says string }{
		{`{endpoints: [{nodeName: out-stranger}, {nodeName: out-nobody}]}`, election.ConditionTunnelElected, election.ReasonNoCandidate,
			"out-stranger is not labelled: kubectl label node out-stranger raven.openyurt.io/gateway=out-1, out-nobody does not exist"},
		{`{}`, election.ConditionTunnelElected, election.ReasonNoEndpoints, "add one"},
		{`{tunnelConfig: {Replicas: 0}, endpoints: [{nodeName: out-3}]}`, election.ConditionTunnelElected, election.ReasonNoReplicas, "replicas is 0"},
		{`{proxyConfig: {Replicas: 2}, endpoints: [{nodeName: out-4, type: proxy}, {nodeName: out-nobody, type: proxy}]}`,
			election.ConditionProxyElected, election.ReasonTooFewReady, "1 of 2 wanted nodes are ready: out-4; out-nobody does not exist"},
		{`{endpoints: [{nodeName: out-5}]}`, election.ConditionTunnelElected, election.ReasonElected, "elected: out-5"},
	} {
		name := fmt.Sprintf("out-%d", i+1)
		r.gateway(name, c.spec)
		gw := r.awaitCondition(name, c.condition, c.reason)
		if got := meta.FindStatusCondition(gw.Status.Conditions, c.condition); !strings.Contains(got.Message, c.says) {
			t.Errorf("%s: the condition says %q, not %q", name, got.Message, c.says)
		}
	}
}

func TestBothSwitchesOffAreNamedAsTheReason(t *testing.T) {
	r := newRig(t)
	r.create(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: "raven-cfg"},
		Data: map[string]string{"enable-l3-tunnel": "false", "enable-l7-proxy": "False"}})
	r.start()
	r.node("off-a", "off", "192.168.8.1", "10.8.1.0/24")
	r.gateway("off", `{endpoints: [{nodeName: off-a, underNAT: true}]}`)
	gw := r.awaitCondition("off", election.ConditionReady, election.ReasonSwitchedOff)
	got := meta.FindStatusCondition(gw.Status.Conditions, election.ConditionReady)
	if got.Status != metav1.ConditionFalse || !strings.Contains(got.Message, "kube-system/raven-cfg") || !strings.Contains(got.Message, "set enable-l3-tunnel") {
		t.Errorf("the condition is %+v", got)
	}
}

func TestScalingDownKeepsTheFirstOfTheListWhoeverWasElectedFirst(t *testing.T) {
	r := newRig(t)
	r.start()
	r.node("scale-c", "scale", "192.168.9.3", "10.9.3.0/24")
	gw := r.gateway("scale", `{proxyConfig: {Replicas: 3}, endpoints: [{nodeName: scale-b, type: proxy}, {nodeName: scale-c, type: proxy}, {nodeName: scale-a, type: proxy}]}`)
	r.awaitActive("scale", proxy, "scale-c")
	r.node("scale-a", "scale", "192.168.9.1", "10.9.1.0/24")
	r.awaitActive("scale", proxy, "scale-a", "scale-c")
	r.node("scale-b", "scale", "192.168.9.2", "10.9.2.0/24")
	r.awaitActive("scale", proxy, "scale-a", "scale-b", "scale-c")
	replicas := func(n int) {
		t.Helper()
		r.update(gw, func(gw *v1beta1.Gateway) { gw.Spec.ProxyConfig.Replicas = &n })
	}
	replicas(2)
	r.awaitActive("scale", proxy, "scale-b", "scale-c")
	replicas(1)
	r.awaitActive("scale", proxy, "scale-b")
}
