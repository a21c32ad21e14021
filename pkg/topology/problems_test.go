package topology

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ravencni/raven/pkg/apis/raven/v1beta1"
)

// badInput is one bad item in the tutorial's cluster, and all that it may cost.
type badInput struct {
	name string
	make func(c *cluster)
	// object and reason that must be reported, and only that reason.
	object, reason string
	// also is a reason that follows from it.
	also string
	// lost prefixes: no longer delivered by the Plan of observer.
	lost []string
	// observer's Plan is looked at; hangzhou-1, the gateway, by default.
	observer string
}

var badInputs = []badInput{
	{name: "an empty podCIDR costs the node's pods", reason: ReasonMissingPodCIDR, object: "Node/qingdao-2",
		make: func(c *cluster) { c.nodeNamed("qingdao-2").Spec = corev1.NodeSpec{} },
		lost: []string{"10.244.17.0/24", "fd00:244:17::/64"}},
	{name: "an empty item among podCIDRs costs nothing else", reason: ReasonMissingPodCIDR, object: "Node/qingdao-2",
		make: func(c *cluster) { c.nodeNamed("qingdao-2").Spec.PodCIDRs = []string{"", "fd00:244:17::/64"} },
		lost: []string{"10.244.17.0/24"}},
	{name: "a malformed CIDR costs itself", reason: ReasonMalformedCIDR, object: "Node/qingdao-2",
		make: func(c *cluster) {
			c.nodeNamed("qingdao-2").Spec.PodCIDRs = []string{"10.244.17.0/240", "fd00:244:17::/64"}
		},
		lost: []string{"10.244.17.0/24"}},
	{name: "an IPv4-mapped prefix is malformed", reason: ReasonMalformedCIDR, object: "Node/qingdao-2",
		make: func(c *cluster) {
			c.nodeNamed("qingdao-2").Spec.PodCIDRs = []string{"::ffff:10.244.17.0/120", "fd00:244:17::/64"}
		},
		lost: []string{"10.244.17.0/24"}},
	{name: "host bits in a CIDR are cleared", reason: ReasonHostBitsSet, object: "Node/qingdao-2",
		make: func(c *cluster) {
			c.nodeNamed("qingdao-2").Spec.PodCIDRs = []string{"10.244.17.99/24", "fd00:244:17::/64"}
		}},
	{name: "a default route is no pod prefix", reason: ReasonUnusableCIDR, object: "Node/qingdao-2",
		make: func(c *cluster) {
			c.nodeNamed("qingdao-2").Spec.PodCIDRs = []string{"0.0.0.0/0", "fd00:244:17::/64"}
		},
		lost: []string{"10.244.17.0/24"}},
	{name: "a prefix that covers loopback is no pod prefix", reason: ReasonUnusableCIDR, object: "Node/qingdao-2",
		make: func(c *cluster) {
			c.nodeNamed("qingdao-2").Spec.PodCIDRs = []string{"0.0.0.0/1", "fd00:244:17::/64"}
		},
		lost: []string{"10.244.17.0/24"}},
	{name: "an IPv6 prefix on an IPv4 node costs itself", reason: ReasonPrefixFamilyMismatch, object: "Node/qingdao-2",
		make: func(c *cluster) {
			n := c.nodeNamed("qingdao-2")
			n.Status.Addresses = n.Status.Addresses[:1]
		},
		lost: []string{"fd00:244:17::/64", "fd00:b::90/128"}},
	{name: "an IPv6-only node in an IPv4 region is left out", reason: ReasonNodeFamilyMismatch, object: "Node/qingdao-2",
		make: func(c *cluster) {
			n := c.nodeNamed("qingdao-2")
			n.Status.Addresses = n.Status.Addresses[1:]
		},
		lost: qingdao2},
	{name: "a node without address is left out", reason: ReasonNoInternalIP, object: "Node/qingdao-2",
		make: func(c *cluster) { c.nodeNamed("qingdao-2").Status.Addresses = nil },
		lost: qingdao2},
	{name: "an address that is none costs itself and its family", also: ReasonPrefixFamilyMismatch, reason: ReasonMalformedAddress, object: "Node/qingdao-2",
		make: func(c *cluster) { c.nodeNamed("qingdao-2").Status.Addresses[1].Address = "fd00::b::90" },
		lost: []string{"fd00:b::90/128", "fd00:244:17::/64"}},
	{name: "a loopback address is no node address", also: ReasonPrefixFamilyMismatch, reason: ReasonMalformedAddress, object: "Node/qingdao-2",
		make: func(c *cluster) { c.nodeNamed("qingdao-2").Status.Addresses[1].Address = "::1" },
		lost: []string{"fd00:b::90/128", "fd00:244:17::/64"}},
	{name: "of two nodes with one address the later is left out", reason: ReasonDuplicateNodeIP, object: "Node/qingdao-3",
		make: func(c *cluster) {
			c.node("qingdao-3", "gw-qingdao", []string{"172.16.1.90", "fd00:b::91"}, []string{"10.244.30.0/24"})
		}},
	{name: "the earlier of two nodes with one address is told", reason: ReasonDuplicateNodeIP, object: "Node/qingdao-2",
		make: func(c *cluster) {
			c.node("qingdao-3", "gw-qingdao", []string{"172.16.1.90", "fd00:b::91"}, []string{"10.244.30.0/24"})
		}},
	{name: "the gateway keeps an address that an earlier node has too", reason: ReasonDuplicateNodeIP, object: "Node/qingdao-0",
		make: func(c *cluster) {
			c.node("qingdao-0", "gw-qingdao", []string{"172.16.1.89"}, []string{"10.244.30.0/24"})
		}},
	{name: "an endpoint that names no node costs nothing", reason: ReasonEndpointNodeNotFound, object: "Gateway/gw-qingdao",
		make: func(c *cluster) {
			gw := c.gatewayNamed("gw-qingdao")
			gw.Spec.Endpoints = append(gw.Spec.Endpoints, v1beta1.Endpoint{NodeName: "nobody"})
		}},
	{name: "an endpoint outside the region costs nothing", reason: ReasonEndpointNotMember, object: "Gateway/gw-qingdao",
		make: func(c *cluster) {
			gw := c.gatewayNamed("gw-qingdao")
			gw.Spec.Endpoints = append(gw.Spec.Endpoints, v1beta1.Endpoint{NodeName: "cloud-2"})
		}},
	{name: "a region without active endpoint is unreachable", reason: ReasonNoActiveEndpoint, object: "Gateway/gw-qingdao",
		make: func(c *cluster) { c.gatewayNamed("gw-qingdao").Status.ActiveEndpoints = nil },
		lost: qingdao},
	{name: "a region whose active endpoint is no member is unreachable", reason: ReasonNoActiveEndpoint, object: "Gateway/gw-qingdao",
		make: func(c *cluster) { c.gatewayNamed("gw-qingdao").Status.ActiveEndpoints[0].NodeName = "gone" },
		lost: qingdao},
	{name: "a second active endpoint is not used", reason: ReasonSeveralActiveEndpoints, object: "Gateway/gw-qingdao",
		make: func(c *cluster) {
			gw := c.gatewayNamed("gw-qingdao")
			gw.Status.ActiveEndpoints = append(gw.Status.ActiveEndpoints, &v1beta1.Endpoint{NodeName: "qingdao-2", UnderNAT: true})
		}},
	{name: "a peer without key is unreachable", reason: ReasonPeerKeyMissing, object: "TunnelEndpoint/qingdao-1",
		make: func(c *cluster) {
			c.Endpoints = slices.DeleteFunc(c.Endpoints, func(e *v1beta1.TunnelEndpoint) bool { return e.Name == "qingdao-1" })
		},
		lost: qingdao},
	{name: "a peer whose key is no base64 is unreachable", reason: ReasonPeerKeyInvalid, object: "TunnelEndpoint/qingdao-1",
		make: func(c *cluster) { c.endpoint("qingdao-1").Status.Tunnels[0].PublicKey = "not a key" },
		lost: qingdao},
	{name: "a peer whose key is short is unreachable", reason: ReasonPeerKeyInvalid, object: "TunnelEndpoint/qingdao-1",
		make: func(c *cluster) { c.endpoint("qingdao-1").Status.Tunnels[0].PublicKey = keyOf("x")[:40] },
		lost: qingdao},
	{name: "a peer whose key is all zero is unreachable", reason: ReasonPeerKeyInvalid, object: "TunnelEndpoint/qingdao-1",
		make: func(c *cluster) {
			c.endpoint("qingdao-1").Status.Tunnels[0].PublicKey = strings.Repeat("A", 43) + "="
		},
		lost: qingdao},
	{name: "a peer with another's key is unreachable", reason: ReasonPeerKeyDuplicate, object: "TunnelEndpoint/qingdao-1",
		make: func(c *cluster) { c.endpoint("qingdao-1").Status.Tunnels[0].PublicKey = keyOf("cloud-1") },
		lost: qingdao},
	{name: "a peer with another driver is unreachable", reason: ReasonPeerDriverMismatch, object: "TunnelEndpoint/qingdao-1",
		make: func(c *cluster) { c.endpoint("qingdao-1").Status.Tunnels[0].Driver = DriverIPsec },
		lost: qingdao},
	{name: "a publicIP that is no address is not dialled", reason: ReasonInvalidPublicIP, object: "Gateway/gw-qingdao",
		make: func(c *cluster) {
			c.gatewayNamed("gw-qingdao").Status.ActiveEndpoints[0].PublicIP = "120.79.xxx.xxx"
		}},
	{name: "an exposed gateway under NAT is not dialled", reason: ReasonExposedNotDialable, object: "Gateway/gw-qingdao",
		make: func(c *cluster) { c.gatewayNamed("gw-qingdao").Spec.ExposeType = v1beta1.ExposePublicIP }},
	{name: "a selector that cannot be read selects nobody", reason: ReasonInvalidSelector, object: "Gateway/gw-bad",
		make: func(c *cluster) {
			c.gateway("gw-bad", "x", "").Spec = v1beta1.GatewaySpec{NodeSelector: &metav1.LabelSelector{
				MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "k", Operator: "Wrong"}}}}
			c.gatewayNamed("gw-bad").Status = v1beta1.GatewayStatus{}
		}},
	{name: "a node in two gateways stays in the first by name", reason: ReasonNodeInTwoGateways, object: "Node/qingdao-2",
		make: selectQingdaoTwice},
	{name: "the gateway that a shared node belongs to is told", reason: ReasonNodeInTwoGateways, object: "Gateway/gw-qingdao",
		make: selectQingdaoTwice},
	{name: "the gateway that loses a shared node is told", reason: ReasonNodeInTwoGateways, object: "Gateway/gw-zzz",
		make: selectQingdaoTwice},
	{name: "two objects of one name count once", reason: ReasonDuplicateObject, object: "Node/qingdao-2",
		make: func(c *cluster) { c.Nodes = append(c.Nodes, c.nodeNamed("qingdao-2").DeepCopy()) }},
	{name: "an object without name is left out", reason: ReasonDuplicateObject, object: "Node/",
		make: func(c *cluster) { c.Nodes = append(c.Nodes, &corev1.Node{}) }},
	{name: "a service range that is none costs nothing", reason: ReasonInvalidServiceCIDR, object: "ConfigMap/raven-agent-config",
		make: func(c *cluster) { c.Config.ServiceCIDRs = []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), {}} }},
	{name: "an unknown driver is told", reason: ReasonUnknownDriver, object: "ConfigMap/raven-agent-config",
		make: func(c *cluster) {
			c.Config.Driver = "openvpn"
			for _, e := range c.Endpoints {
				e.Status.Tunnels[0].Driver = "openvpn"
			}
		}},
	{name: "a bad extra source prefix costs itself", reason: ReasonMalformedCIDR, object: "Gateway/gw-qingdao",
		make: func(c *cluster) {
			c.gatewayNamed("gw-qingdao").Annotations = map[string]string{v1beta1.AnnotationExtraSourceCIDRs: "10.300.0.0/16"}
		}},
	{name: "an extra source prefix of a family that the gateway lacks costs itself", reason: ReasonPrefixFamilyMismatch, object: "Gateway/gw-qingdao",
		make: func(c *cluster) {
			gw, n := c.gatewayNamed("gw-qingdao"), c.nodeNamed("qingdao-1")
			gw.Annotations = map[string]string{v1beta1.AnnotationExtraSourceCIDRs: "fd00:99::/64"}
			n.Status.Addresses, n.Spec.PodCIDRs = n.Status.Addresses[:1], n.Spec.PodCIDRs[:1]
		},
		lost: []string{"fd00:b::89/128", "fd00:244:16::/64"}},
	{name: "a narrow underlay is told", reason: ReasonMTUTooSmall, object: "Node/qingdao-1",
		make: func(c *cluster) { c.endpoint("qingdao-1").Status.UnderlayMTU = 1300 }},
	{name: "a node that does not exist is told so", reason: ReasonNodeNotFound, object: "Node/ghost", observer: "ghost",
		make: func(c *cluster) {}},
}

var qingdao1 = []string{"10.244.16.0/24", "172.16.1.89/32", "fd00:244:16::/64", "fd00:b::89/128"}
var qingdao2 = []string{"10.244.17.0/24", "172.16.1.90/32", "fd00:244:17::/64", "fd00:b::90/128"}
var qingdao = slices.Concat(qingdao1, qingdao2)

func selectQingdaoTwice(c *cluster) {
	c.nodeNamed("qingdao-2").Labels["rack"] = "7"
	gw := c.gateway("gw-zzz", "x", "")
	gw.Spec.Endpoints, gw.Status = nil, v1beta1.GatewayStatus{}
	gw.Spec.NodeSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"rack": "7"}}
}

func TestABadInputIsReportedAndCostsOnlyItself(t *testing.T) {
	for _, b := range badInputs {
		t.Run(b.name, func(t *testing.T) {
			observer := b.observer
			if observer == "" {
				observer = "hangzhou-1"
			}
			before := tutorial().plan(observer)
			c := tutorial()
			b.make(c)
			after := c.plan(observer)
			found := false
			for _, p := range after.Problems {
				found = found || p.Object == b.object && p.Reason == b.reason
				if p.Message == "" || strings.Contains(p.Message, "%!") {
					t.Errorf("message %q", p.Message)
				}
			}
			if !found {
				t.Errorf("no problem %s at %s; got %v", b.reason, b.object, after.Problems)
			}
			for _, p := range after.Problems {
				if p.Reason != b.reason && p.Reason != b.also {
					t.Errorf("also reported: %v", p)
				}
			}
			lost := delivered(before)
			for prefix := range delivered(after) {
				delete(lost, prefix)
			}
			want := make(map[string]bool)
			for _, l := range b.lost {
				want[l] = true
			}
			equal(t, "lost prefixes", want, lost)
			consistent(t, c.State)
		})
	}
}

// delivered prefixes of a Plan: those whose next hop leads somewhere.
func delivered(p *Plan) map[string]bool {
	out := make(map[string]bool)
	for _, x := range p.Prefixes {
		if h := hopOf(p, x.NextHop); h != nil && h.Kind != KindUnreachable {
			out[x.Prefix.String()] = true
		}
	}
	return out
}

func hopOf(p *Plan, id string) *NextHop {
	for i := range p.NextHops {
		if p.NextHops[i].ID == id {
			return &p.NextHops[i]
		}
	}
	return nil
}

func TestEveryReasonIsReachedByATest(t *testing.T) {
	reached := make(map[string]bool)
	for _, b := range badInputs {
		c := tutorial()
		b.make(c)
		for _, p := range c.plan(b.observer).Problems {
			reached[p.Reason] = true
		}
	}
	// These have tests of their own beside the code that reports them.
	elsewhere := []string{ReasonSubnetConflict, ReasonAddressConflict, ReasonAddressIsTunnelEndpoint, ReasonAddressThrown,
		ReasonNoRelay, ReasonVTEPCollision, ReasonMTUTooSmall}
	for _, reason := range allReasons(t) {
		if !reached[reason] && !slices.Contains(elsewhere, reason) {
			t.Errorf("reason %s is reached by no test", reason)
		}
	}
}

func ExampleProblem() {
	c := tutorial()
	c.nodeNamed("qingdao-2").Spec.PodCIDRs = []string{"10.244.17.0/33"}
	for _, p := range c.plan("hangzhou-2").Problems {
		fmt.Printf("%s %s: %s\n", p.Object, p.Reason, p.Message)
	}
	// Output:
	// Node/qingdao-2 MalformedCIDR: "10.244.17.0/33" is not a prefix such as 10.244.1.0/24 or fd00:1::/64; it is left out
}
