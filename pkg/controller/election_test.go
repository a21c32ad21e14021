package controller_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ravencni/raven/pkg/apis/raven/v1beta1"
	"github.com/ravencni/raven/pkg/election"
)

const (
	proxy  = v1beta1.EndpointProxy
	tunnel = v1beta1.EndpointTunnel
)

func TestTheStatusSaysWhoServesAndWhoIsMember(t *testing.T) {
	r := newRig(t)
	r.start()
	r.node("shape-2", "shape", "192.168.0.196", "10.224.0.0/26")
	r.node("shape-1", "shape", "192.168.0.195,fd00:a::195", "10.224.0.128/26", "fd00::/64")
	r.gateway("shape", `{exposeType: PublicIP, proxyConfig: {Replicas: 1, proxyHTTPPort: "10255,9445"}, tunnelConfig: {Replicas: 1},
		endpoints: [{nodeName: shape-1, type: proxy, port: 10262, publicIP: 203.0.113.1},
		{nodeName: shape-1, port: 4500, publicIP: 203.0.113.1}, {nodeName: shape-2, publicIP: 203.0.113.1}]}`)
	gw := r.awaitCondition("shape", election.ConditionReady, election.ReasonReady)
	want := []*v1beta1.Endpoint{
		{NodeName: "shape-1", Type: proxy, Port: 10262, PublicIP: "203.0.113.1", Config: map[string]string{"enable-l7-proxy": "true"}},
		{NodeName: "shape-1", Type: tunnel, Port: 4500, PublicIP: "203.0.113.1", Config: map[string]string{"enable-l3-tunnel": "true"}},
	}
	if diff := cmp.Diff(want, gw.Status.ActiveEndpoints); diff != "" {
		t.Errorf("activeEndpoints (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(want[1], gw.Status.ActiveEndpoint); diff != "" {
		t.Errorf("activeEndpoint (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]v1beta1.NodeInfo{
		{NodeName: "shape-1", PrivateIP: "192.168.0.195", Subnets: []string{"10.224.0.128/26", "fd00::/64"}},
		{NodeName: "shape-2", PrivateIP: "192.168.0.196", Subnets: []string{"10.224.0.0/26"}},
	}, gw.Status.Nodes); diff != "" {
		t.Errorf("nodes (-want +got):\n%s", diff)
	}
	if gw.Status.ObservedGeneration != gw.Generation || gw.Status.NodeCount != 2 {
		t.Errorf("observedGeneration %d of %d, nodeCount %d", gw.Status.ObservedGeneration, gw.Generation, gw.Status.NodeCount)
	}
	for _, kind := range []string{election.ConditionReady, election.ConditionTunnelElected, election.ConditionProxyElected} {
		if !meta.IsStatusConditionTrue(gw.Status.Conditions, kind) {
			t.Errorf("condition %s: %+v", kind, gw.Status.Conditions)
		}
	}
	r.await("one event for each role", func() string {
		if got := r.events("shape"); len(got) != 2 || !slices.ContainsFunc(got, func(e string) bool {
			return e == "Normal ActiveEndpointElected tunnel endpoint elected: shape-1"
		}) {
			return strings.Join(got, "; ")
		}
		return ""
	})
}

func TestEachCandidateThatCannotServeGetsItsReason(t *testing.T) {
	r := newRig(t)
	r.start()
	unlabelled := r.node("why-unlabelled", "", "192.168.1.1", "10.1.1.0/24")
	r.setReady(r.node("why-unready", "why-3", "192.168.1.2", "10.1.2.0/24"), corev1.ConditionFalse)
	for i, c := range []struct{ node, reason, says string }{
		{"why-unlabelled", election.ReasonNotMember, "kubectl label node why-unlabelled raven.openyurt.io/gateway=why-1"},
		{"why-unknown", election.ReasonUnknownNode, "why-unknown does not exist"},
		{"why-unready", election.ReasonNoCandidateReady, "why-unready is not ready Test"},
	} {
		name := fmt.Sprintf("why-%d", i+1)
		r.gateway(name, `{endpoints: [{nodeName: `+c.node+`}]}`)
		gw := r.awaitCondition(name, election.ConditionTunnelElected, c.reason)
		if got := meta.FindStatusCondition(gw.Status.Conditions, election.ConditionTunnelElected); !strings.Contains(got.Message, c.says) {
			t.Errorf("%s: the condition says %q, not %q", name, got.Message, c.says)
		}
		if ready := meta.FindStatusCondition(gw.Status.Conditions, election.ConditionReady); ready.Status != metav1.ConditionFalse || ready.Reason != c.reason {
			t.Errorf("%s: Ready is %+v", name, ready)
		}
	}
	r.label(unlabelled, "why-1")
	r.awaitActive("why-1", tunnel, "why-unlabelled")
}

func TestTheRoleIsStickyAndMovesInListOrder(t *testing.T) {
	r := newRig(t)
	r.start()
	a, b := r.node("order-a", "order", "192.168.2.1", "10.2.1.0/24"), r.node("order-b", "order", "192.168.2.2", "10.2.2.0/24")
	r.node("order-c", "order", "192.168.2.3", "10.2.3.0/24")
	r.gateway("order", `{endpoints: [{nodeName: order-b}, {nodeName: order-c}, {nodeName: order-a}]}`)
	r.awaitActive("order", tunnel, "order-b")
	r.delete(b)
	r.awaitActive("order", tunnel, "order-c")
	r.node("order-b", "order", "192.168.2.2", "10.2.2.0/24")
	r.await("three members", func() string {
		if gw := r.getGateway("order"); gw.Status.NodeCount != 3 {
			return fmt.Sprint(gw.Status.Nodes)
		}
		return ""
	})
	if got := activeNodes(r.getGateway("order"), tunnel); !slices.Equal(got, []string{"order-c"}) {
		t.Errorf("the preferred node took the role back: %v", got)
	}
	r.delete(a)
	want := []string{
		"Normal ActiveEndpointElected tunnel endpoint elected: order-b",
		"Normal ActiveEndpointElected tunnel endpoint elected: order-c; before: order-b does not exist",
	}
	if diff := cmp.Diff(want, r.events("order")); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}

func TestNodesThatToggleAllTheTimeMoveTheRoleOnce(t *testing.T) {
	r := newRig(t)
	r.start()
	a, b := r.node("toggle-a", "toggle", "192.168.3.1", "10.3.1.0/24"), r.node("toggle-b", "toggle", "192.168.3.2", "10.3.2.0/24")
	r.gateway("toggle", `{endpoints: [{nodeName: toggle-a}, {nodeName: toggle-b}]}`)
	r.awaitActive("toggle", tunnel, "toggle-a")
	moves, last := 0, "toggle-a"
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for i := range 10 {
		// One of the two is always ready, so that without damping each turn would move the role.
		status := []corev1.ConditionStatus{corev1.ConditionTrue, corev1.ConditionFalse}
		r.setReady(a, status[(i+1)%2])
		r.setReady(b, status[i%2])
		<-tick.C
		if now := r.getGateway("toggle").Status.ActiveEndpoint.NodeName; now != last {
			moves, last = moves+1, now
		}
	}
	if moves > 1 {
		t.Errorf("the role moved %d times within 2 s", moves)
	}
	if n := len(r.events("toggle")); n > 2 {
		t.Errorf("%d events: %v", n, r.events("toggle"))
	}
}

func TestNobodyReadyClearsNothing(t *testing.T) {
	r := newRig(t)
	r.start()
	a, b := r.node("cut-a", "cut", "192.168.4.1", "10.4.1.0/24"), r.node("cut-b", "cut", "192.168.4.2", "10.4.2.0/24")
	r.gateway("cut", `{endpoints: [{nodeName: cut-a}, {nodeName: cut-a, type: proxy}, {nodeName: cut-b}]}`)
	before := r.awaitCondition("cut", election.ConditionReady, election.ReasonReady)
	r.setReady(b, corev1.ConditionUnknown)
	r.setReady(a, corev1.ConditionUnknown)
	after := r.awaitCondition("cut", election.ConditionTunnelElected, election.ReasonNoCandidateReady)
	if diff := cmp.Diff(before.Status.ActiveEndpoints, after.Status.ActiveEndpoints); diff != "" {
		t.Errorf("activeEndpoints (-before +after):\n%s", diff)
	}
	if diff := cmp.Diff(before.Status.Nodes, after.Status.Nodes); diff != "" {
		t.Errorf("nodes (-before +after):\n%s", diff)
	}
}

func TestAMissingRavenCfgKeepsTheLastKnownValue(t *testing.T) {
	r := newRig(t)
	stop := r.start()
	r.node("cfg-a", "cfg", "192.168.5.1", "10.5.1.0/24")
	r.gateway("cfg", `{endpoints: [{nodeName: cfg-a}, {nodeName: cfg-a, type: proxy}]}`)
	shows := func(key, want string) {
		t.Helper()
		r.await(key+" "+want, func() string {
			for _, e := range r.getGateway("cfg").Status.ActiveEndpoints {
				if got, ok := e.Config[key]; ok && got == want {
					return ""
				}
			}
			return fmt.Sprint(r.getGateway("cfg").Status)
		})
	}
	shows("enable-l3-tunnel", "true") // a fresh cluster
	cfg := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: "raven-cfg"},
		Data: map[string]string{"enable-l3-tunnel": "TRUE", "enable-l7-proxy": "false"}}
	r.create(cfg)
	shows("enable-l7-proxy", "false")
	r.delete(cfg)
	stop()
	r.start()
	r.node("cfg-b", "cfg", "192.168.5.2", "10.5.2.0/24")
	r.await("the new controller's work", func() string {
		if gw := r.getGateway("cfg"); gw.Status.NodeCount != 2 {
			return fmt.Sprint(gw.Status.Nodes)
		}
		return ""
	})
	shows("enable-l7-proxy", "false")
	shows("enable-l3-tunnel", "true")
}

func TestARestartAndAnUnrelatedChangeWriteNothing(t *testing.T) {
	r := newRig(t)
	stop := r.start()
	r.node("still-a", "still", "192.168.6.1", "10.6.1.0/24")
	other := r.node("other-a", "other", "192.168.6.2", "10.6.2.0/24")
	r.gateway("still", `{endpoints: [{nodeName: still-a, underNAT: true}]}`)
	r.gateway("other", `{endpoints: [{nodeName: other-a, underNAT: true}]}`)
	before := r.awaitCondition("still", election.ConditionReady, election.ReasonReady)
	r.awaitActive("other", tunnel, "other-a")
	watcher, err := r.api.Watch(r.Context(), &v1beta1.GatewayList{}, client.MatchingFields{"metadata.name": "other"},
		&client.ListOptions{Raw: &metav1.ListOptions{ResourceVersion: r.getGateway("other").ResourceVersion}})
	if err != nil {
		t.Fatal(err)
	}
	defer watcher.Stop()
	stop()
	r.start()
	r.setReady(other, corev1.ConditionFalse)
	r.awaitCondition("other", election.ConditionTunnelElected, election.ReasonNoCandidateReady)
	if after := r.getGateway("still"); after.ResourceVersion != before.ResourceVersion {
		t.Errorf("the unrelated Gateway was written (-before +after):\n%s", cmp.Diff(before, after))
	}
	if n := drain(watcher.ResultChan()); n != 1 {
		t.Errorf("one node's change took %d writes", n)
	}
}

// drain counts what a channel holds.
func drain[T any](c <-chan T) (n int) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	for {
		select {
		case <-c:
			n++
		case <-ctx.Done():
			return n
		}
	}
}
