package inventory_test

import (
	"fmt"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"

	"github.com/ravencni/raven/pkg/apis/raven/v1beta1"
	"github.com/ravencni/raven/pkg/controller/inventory"
	"github.com/ravencni/raven/pkg/topology"
)

func node(name, label, zone string) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"zone": zone}}}
	if label != "" {
		n.Labels[v1beta1.LabelGateway] = label
	}
	return n
}

func gateway(name, zone string, candidates ...string) *v1beta1.Gateway {
	gw := &v1beta1.Gateway{ObjectMeta: metav1.ObjectMeta{Name: name}}
	if zone != "" {
		gw.Spec.NodeSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"zone": zone}}
	}
	for _, c := range candidates {
		gw.Spec.Endpoints = append(gw.Spec.Endpoints, v1beta1.Endpoint{NodeName: c})
	}
	return gw
}

// Whatever the order of changes, members are those that the planner finds in the outcome, and each Gateway whose members
// change is named.
func TestMembersAreThePlannersAfterAnyChanges(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := inventory.New()
		gateways, nodes := map[string]*v1beta1.Gateway{}, map[string]*corev1.Node{}
		names, zones := []string{"a", "b", "c"}, []string{"", "x", "y"}
		loadAt := rapid.IntRange(0, 10).Draw(t, "loaded at")
		members := map[string]string{}
		for step := range rapid.IntRange(1, 30).Draw(t, "steps") {
			if step == loadAt {
				v.Loaded()
			}
			var touched []string
			gw := rapid.SampledFrom(names).Draw(t, "gateway")
			n := fmt.Sprint("n", rapid.IntRange(0, 4).Draw(t, "node"))
			switch rapid.IntRange(0, 3).Draw(t, "change") {
			case 0:
				gateways[gw] = gateway(gw, rapid.SampledFrom(zones).Draw(t, "selector"))
				touched = v.SetGateway(gateways[gw])
			case 1:
				delete(gateways, gw)
				touched = append(v.DeleteGateway(gw), gw)
			case 2:
				nodes[n] = node(n, rapid.SampledFrom([]string{"", "a", "b", "c"}).Draw(t, "label"), rapid.SampledFrom(zones).Draw(t, "zone"))
				touched = v.SetNode(nodes[n])
			case 3:
				delete(nodes, n)
				touched = v.DeleteNode(n)
			}
			if step < loadAt {
				continue
			}
			var gs []*v1beta1.Gateway
			var ns []*corev1.Node
			for _, g := range gateways {
				gs = append(gs, g)
			}
			for _, n := range nodes {
				ns = append(ns, n)
			}
			want := topology.AssignNodes(gs, ns)
			for _, name := range names {
				var got, expected []string
				for _, m := range v.Members(name) {
					got = append(got, m.Name)
				}
				for _, m := range want.Members[name] {
					expected = append(expected, m.Name)
				}
				if !slices.Equal(got, expected) {
					t.Fatalf("members of %s are %v, want %v", name, got, expected)
				}
				if now := fmt.Sprint(got); step > loadAt && members[name] != now && !slices.Contains(touched, name) {
					t.Fatalf("members of %s went from %s to %s, but only %v are touched", name, members[name], now, touched)
				}
				members[name] = fmt.Sprint(got)
			}
		}
	})
}

func TestAChangeTouchesOnlyThoseWhomItConcerns(t *testing.T) {
	v := inventory.New()
	v.Loaded()
	v.SetGateway(gateway("home", "", "n", "stranger"))
	v.SetGateway(gateway("other", "", "m"))
	v.SetNode(node("n", "home", ""))
	v.SetNode(node("m", "other", ""))
	beat := node("n", "home", "")
	beat.Annotations = map[string]string{"heartbeat": "now"}
	unready := node("n", "home", "")
	unready.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionFalse}}
	key := &v1beta1.TunnelEndpoint{ObjectMeta: metav1.ObjectMeta{Name: "n"}}
	key.Status.Tunnels = []v1beta1.TunnelPort{{Driver: "wireguard", PublicKey: "k"}}
	health := key.DeepCopy()
	health.Status.Peers = []v1beta1.PeerHealth{{NodeName: "m", State: "up"}}
	member := &v1beta1.TunnelEndpoint{ObjectMeta: metav1.ObjectMeta{Name: "no-candidate"}}
	member.Status.Tunnels = key.Status.Tunnels
	for _, c := range []struct {
		name string
		do   func() []string
		want []string
	}{
		{"a heartbeat", func() []string { return v.SetNode(beat) }, nil},
		{"a node that is not ready", func() []string { return v.SetNode(unready) }, []string{"home"}},
		{"a candidate that appears without label", func() []string { return v.SetNode(node("stranger", "", "")) }, []string{"home"}},
		{"a node of no region", func() []string { return v.SetNode(node("nobody", "", "")) }, nil},
		{"a candidate's key", func() []string { return v.SetEndpoint(key) }, []string{"home"}},
		{"a candidate's health", func() []string { return v.SetEndpoint(health) }, nil},
		{"the key of a node that is no candidate", func() []string { return v.SetEndpoint(member) }, nil},
		{"a node that moves", func() []string { return v.SetNode(node("m", "home", "")) }, []string{"home", "other"}},
		{"a block of pods", func() []string { return v.SetBlock("b", inventory.Block{Node: "m", CIDR: "10.0.0.0/26"}) }, []string{"home"}},
		{"the same block again", func() []string { return v.SetBlock("b", inventory.Block{Node: "m", CIDR: "10.0.0.0/26"}) }, nil},
		{"a block that moves to nobody's node", func() []string { return v.SetBlock("b", inventory.Block{Node: "nobody", CIDR: "10.0.0.0/26"}) }, []string{"home"}},
		{"a switch that says what is known", func() []string { return v.SetSwitches(map[string]string{"enable-l3-tunnel": "True"}) }, nil},
		{"a switch", func() []string { return v.SetSwitches(map[string]string{"enable-l3-tunnel": "no"}) }, []string{"home", "other"}},
		{"raven-cfg without keys", func() []string { return v.SetSwitches(nil) }, nil},
		{"a deleted node", func() []string { return v.DeleteNode("n") }, []string{"home"}},
		{"a deleted Gateway", func() []string { return v.DeleteGateway("other") }, nil},
	} {
		if got := c.do(); !slices.Equal(got, c.want) {
			t.Errorf("%s touches %v, want %v", c.name, got, c.want)
		}
	}
	if v.Switches() != (inventory.Switches{Tunnel: false, Proxy: true}) {
		t.Errorf("switches %+v", v.Switches())
	}
}

func TestTheLastKnownSwitchesAreReadFromStatus(t *testing.T) {
	v := inventory.New()
	gw := gateway("gw", "")
	gw.Status.ActiveEndpoints = []*v1beta1.Endpoint{nil, {NodeName: "n", Config: map[string]string{"enable-l3-tunnel": "false", "enable-l7-proxy": "false"}}}
	v.SetGateway(gw)
	v.SetSwitches(map[string]string{"enable-l7-proxy": "true"})
	v.Loaded()
	if got := v.Switches(); got != (inventory.Switches{Tunnel: false, Proxy: true}) {
		t.Errorf("switches %+v: what raven-cfg says counts, and status where it is silent", got)
	}
}
