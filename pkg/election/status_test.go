package election

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ravencni/raven/pkg/apis/raven/v1beta1"
)

func node(name, gateway, ip string, podCIDRs ...string) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{v1beta1.LabelGateway: gateway}}}
	n.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeHostName, Address: name}, {Type: corev1.NodeInternalIP, Address: ip}}
	n.Spec.PodCIDRs = podCIDRs
	return n
}

func withReady(n *corev1.Node, status corev1.ConditionStatus) *corev1.Node {
	n.Status.Conditions = append(n.Status.Conditions, corev1.NodeCondition{Type: corev1.NodeReady, Status: status, Reason: "KubeletStopped"})
	return n
}

// cloud is the tutorial's gw-cloud.
func cloud() *v1beta1.Gateway {
	proxies, tunnels := 1, 1
	return &v1beta1.Gateway{
		ObjectMeta: metav1.ObjectMeta{Name: "gw-cloud", Generation: 7},
		Spec: v1beta1.GatewaySpec{
			ExposeType:   v1beta1.ExposePublicIP,
			ProxyConfig:  &v1beta1.ProxyConfiguration{Replicas: &proxies, ProxyHTTPPort: "10255,9445"},
			TunnelConfig: &v1beta1.TunnelConfiguration{Replicas: &tunnels},
			Endpoints: []v1beta1.Endpoint{
				{NodeName: "cloud-1", Type: v1beta1.EndpointProxy, Port: 10262, PublicIP: "120.79.0.10"},
				{NodeName: "cloud-1", PublicIP: "120.79.0.10"},
				{NodeName: "cloud-2", PublicIP: "120.79.0.11"},
			},
		},
	}
}

func cloudNodes() []*corev1.Node {
	return []*corev1.Node{
		node("cloud-2", "gw-cloud", "192.168.0.196", "10.224.0.0/26"),
		node("cloud-1", "gw-cloud", "192.168.0.195", "10.224.0.128/26", "fd00::/64"),
		node("elsewhere", "", "10.0.0.1", "10.9.0.0/24"),
	}
}

var manifestOptions = Options{EnableTunnel: true, EnableProxy: false, MissingReadyIsReady: true, Now: noon, Driver: "wireguard"}

func TestTheStatusHasTheShapeThatTheTutorialPrints(t *testing.T) {
	opts := manifestOptions
	te := &v1beta1.TunnelEndpoint{ObjectMeta: metav1.ObjectMeta{Name: "cloud-1"}}
	te.Status.Tunnels = []v1beta1.TunnelPort{{Driver: "ipsec"}, {Driver: "wireguard", PublicKey: "the key"}}
	opts.Endpoints = []*v1beta1.TunnelEndpoint{te}
	results := FillStatuses([]*v1beta1.Gateway{cloud()}, cloudNodes(), opts)
	if len(results) != 1 {
		t.Fatalf("%d results", len(results))
	}
	got := results[0].Gateway.Status
	want := []*v1beta1.Endpoint{
		{NodeName: "cloud-1", Type: v1beta1.EndpointProxy, Port: 10262, PublicIP: "120.79.0.10", Config: map[string]string{"enable-l7-proxy": "false"}},
		{NodeName: "cloud-1", Type: v1beta1.EndpointTunnel, Port: 4500, PublicIP: "120.79.0.10",
			Config: map[string]string{"enable-l3-tunnel": "true", "publicKey": "the key"}},
	}
	if diff := cmp.Diff(want, got.ActiveEndpoints); diff != "" {
		t.Errorf("activeEndpoints (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(want[1], got.ActiveEndpoint); diff != "" {
		t.Errorf("activeEndpoint (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]v1beta1.NodeInfo{
		{NodeName: "cloud-1", PrivateIP: "192.168.0.195", Subnets: []string{"10.224.0.128/26", "fd00::/64"}},
		{NodeName: "cloud-2", PrivateIP: "192.168.0.196", Subnets: []string{"10.224.0.0/26"}},
	}, got.Nodes); diff != "" {
		t.Errorf("nodes (-want +got):\n%s", diff)
	}
	if got.NodeCount != 2 {
		t.Errorf("nodeCount is %d, want 2", got.NodeCount)
	}
	if got.ObservedGeneration != 7 || !meta.IsStatusConditionTrue(got.Conditions, ConditionTunnelElected) {
		t.Errorf("observedGeneration %d, conditions %v", got.ObservedGeneration, got.Conditions)
	}
}

func TestFillingAStatusTwiceChangesNothing(t *testing.T) {
	once := FillStatuses([]*v1beta1.Gateway{cloud()}, cloudNodes(), manifestOptions)[0].Gateway
	opts := manifestOptions
	opts.Now = noon.Add(time.Hour)
	twice := FillStatuses([]*v1beta1.Gateway{once}, cloudNodes(), opts)[0]
	if diff := cmp.Diff(once, twice.Gateway); diff != "" || twice.Tunnel.Changed || twice.Proxy.Changed {
		t.Errorf("second pass (-first +second):\n%s", diff)
	}
}

func TestFillingAStatusLeavesItsInputAlone(t *testing.T) {
	gw, nodes := cloud(), cloudNodes()
	gw.Annotations = map[string]string{v1beta1.AnnotationExtraSourceCIDRs: "10.1.0.0/16"}
	before := dump(t, gw, nodes)
	r := FillStatuses([]*v1beta1.Gateway{gw}, nodes, manifestOptions)[0]
	r.Gateway.Status.ActiveEndpoints[1].Config["x"] = "y"
	r.Gateway.Status.Nodes[0].Subnets[0] = "changed"
	if after := dump(t, gw, nodes); before != after {
		t.Errorf("input was\n%s\nand became\n%s", before, after)
	}
}

func dump(t *testing.T, objects ...any) string {
	t.Helper()
	b, err := json.Marshal(objects)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestExtraPrefixesGoToTheActiveTunnelNode(t *testing.T) {
	gw := cloud()
	gw.Annotations = map[string]string{v1beta1.AnnotationExtraSourceCIDRs: " 10.1.0.7/16 , nonsense,,10.224.0.128/26"}
	got := FillStatuses([]*v1beta1.Gateway{gw}, cloudNodes(), manifestOptions)[0].Gateway.Status.Nodes
	if diff := cmp.Diff([]string{"10.224.0.128/26", "fd00::/64", "10.1.0.0/16"}, got[0].Subnets); diff != "" {
		t.Errorf("active node's subnets (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"10.224.0.0/26"}, got[1].Subnets); diff != "" {
		t.Errorf("other node's subnets (-want +got):\n%s", diff)
	}
}

func TestReadinessDecidesWhoIsElected(t *testing.T) {
	for _, c := range []struct {
		name     string
		missing  bool
		first    corev1.ConditionStatus // "" for no condition
		elected  string
		rejected string
	}{
		{"a ready node", false, corev1.ConditionTrue, "cloud-1", ""},
		{"a node that is not ready", false, corev1.ConditionFalse, "cloud-2", "is not ready KubeletStopped"},
		{"a node of unknown state", false, corev1.ConditionUnknown, "cloud-2", "is not ready KubeletStopped"},
		{"a node without the condition from an API server", false, "", "cloud-2", "has no Ready condition"},
		{"a node without the condition from a manifest", true, "", "cloud-1", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			opts := manifestOptions
			opts.MissingReadyIsReady = c.missing
			nodes := cloudNodes()
			withReady(nodes[0], corev1.ConditionTrue)
			if c.first != "" {
				withReady(nodes[1], c.first)
			}
			r := FillStatuses([]*v1beta1.Gateway{cloud()}, nodes, opts)[0]
			if got := r.Gateway.Status.ActiveEndpoint.NodeName; got != c.elected {
				t.Errorf("elected %s, want %s: %s", got, c.elected, r.Tunnel.Message)
			}
			if c.rejected != "" && (len(r.Tunnel.Rejected) != 1 || r.Tunnel.Rejected[0].Message != c.rejected) {
				t.Errorf("rejected %v, want %q", r.Tunnel.Rejected, c.rejected)
			}
		})
	}
}

func TestAPartitionClearsNothing(t *testing.T) {
	nodes := cloudNodes()
	withReady(nodes[0], corev1.ConditionTrue)
	withReady(nodes[1], corev1.ConditionTrue)
	up := FillStatuses([]*v1beta1.Gateway{cloud()}, nodes, manifestOptions)[0].Gateway
	for _, n := range nodes {
		n.Status.Conditions = nil
		withReady(n, corev1.ConditionUnknown)
	}
	down := FillStatuses([]*v1beta1.Gateway{up}, nodes, manifestOptions)[0]
	if diff := cmp.Diff(up.Status.ActiveEndpoints, down.Gateway.Status.ActiveEndpoints); diff != "" || down.Tunnel.Changed {
		t.Errorf("active endpoints (-before +after):\n%s", diff)
	}
	if c := meta.FindStatusCondition(down.Gateway.Status.Conditions, ConditionTunnelElected); c.Status != metav1.ConditionFalse || c.Reason != ReasonNoCandidateReady {
		t.Errorf("condition %v", c)
	}
}

func TestReplicasZeroElectsNoTunnel(t *testing.T) {
	gw := cloud()
	*gw.Spec.TunnelConfig.Replicas = 0
	r := FillStatuses([]*v1beta1.Gateway{gw}, cloudNodes(), manifestOptions)[0]
	if r.Gateway.Status.ActiveEndpoint != nil || len(r.Gateway.Status.ActiveEndpoints) != 1 || r.Tunnel.Reason != ReasonNoReplicas {
		t.Errorf("active %v, reason %s", r.Gateway.Status.ActiveEndpoints, r.Tunnel.Reason)
	}
	*gw.Spec.TunnelConfig.Replicas = 3
	r = FillStatuses([]*v1beta1.Gateway{gw}, cloudNodes(), manifestOptions)[0]
	if len(r.Tunnel.Active) != 1 {
		t.Errorf("elected %v, several tunnels are not built", r.Tunnel.Active)
	}
}

func TestTheUsersWordInAManifestsStatusIsKept(t *testing.T) {
	gw := cloud()
	gw.Spec.Endpoints[1].PublicIP = ""
	gw.Status.ActiveEndpoints = []*v1beta1.Endpoint{{NodeName: "cloud-1", Type: v1beta1.EndpointTunnel, PublicIP: "203.0.113.9"}}
	gw.Status.Nodes = []v1beta1.NodeInfo{{NodeName: "cloud-2", Subnets: []string{"10.50.0.0/26"}}}
	for _, trust := range []bool{false, true} {
		opts := manifestOptions
		opts.TrustStatus = trust
		got := FillStatuses([]*v1beta1.Gateway{gw}, cloudNodes(), opts)[0].Gateway.Status
		wantIP, wantSubnet := "", "10.224.0.0/26"
		if trust {
			wantIP, wantSubnet = "203.0.113.9", "10.50.0.0/26"
		}
		if got.ActiveEndpoint.PublicIP != wantIP || got.Nodes[1].Subnets[0] != wantSubnet {
			t.Errorf("trust %t: publicIP %q, subnets %v", trust, got.ActiveEndpoint.PublicIP, got.Nodes[1].Subnets)
		}
	}
}

func TestAnIPv6GatewayListsIPv6PrivateAddresses(t *testing.T) {
	nodes := cloudNodes()
	nodes[1].Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "fd00:c::195"}}
	nodes[0].Status.Addresses = append(nodes[0].Status.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: "fd00:c::196"})
	got := FillStatuses([]*v1beta1.Gateway{cloud()}, nodes, manifestOptions)[0].Gateway.Status.Nodes
	if got[0].PrivateIP != "fd00:c::195" || got[1].PrivateIP != "fd00:c::196" {
		t.Errorf("private addresses %s, %s", got[0].PrivateIP, got[1].PrivateIP)
	}
}

func TestNilObjectsAreIgnored(t *testing.T) {
	gw := cloud()
	gw.Status.ActiveEndpoints = []*v1beta1.Endpoint{nil}
	opts := manifestOptions
	opts.Endpoints = []*v1beta1.TunnelEndpoint{nil}
	if r := FillStatuses([]*v1beta1.Gateway{nil, gw}, []*corev1.Node{nil}, opts); len(r) != 1 || r[0].Tunnel.Reason != ReasonUnknownNode {
		t.Errorf("results %v", r)
	}
}
