package topology

import (
	"net/netip"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/ravencni/raven/pkg/apis/raven/v1beta1"
)

func TestConflicts(t *testing.T) {
	extra := func(c *cluster, gateway, list string) {
		c.gatewayNamed(gateway).Annotations = map[string]string{v1beta1.AnnotationExtraSourceCIDRs: list}
	}
	for _, x := range []struct {
		name string
		make func(c *cluster)
		// out prefixes: planned by nobody.
		out []string
		// in prefixes: planned by the gateway of a third region all the same.
		in []string
		// conflicts: prefix and a claimant of each.
		conflicts map[string][]string
		problem   Problem // object and reason
	}{
		{
			name:      "an address in two regions is out in both",
			make:      func(c *cluster) { c.nodeNamed("qingdao-2").Status.Addresses[0].Address = "172.16.2.104" },
			out:       []string{"172.16.2.104/32"},
			in:        []string{"10.244.17.0/24", "10.244.19.0/24", "fd00:b::90/128", "fd00:a::104/128"},
			conflicts: map[string][]string{"172.16.2.104/32": {"Gateway/gw-hangzhou", "Gateway/gw-qingdao", "Node/hangzhou-2", "Node/qingdao-2"}},
			problem:   Problem{Object: "Node/hangzhou-2", Reason: ReasonAddressConflict},
		},
		{
			name: "an address of a node that is left out still conflicts",
			make: func(c *cluster) {
				n := c.nodeNamed("qingdao-2")
				n.Status.Addresses = n.Status.Addresses[1:]
				n.Status.Addresses[0].Address = "fd00:a::104"
			},
			out:       []string{"fd00:a::104/128", "10.244.17.0/24"},
			in:        []string{"172.16.2.104/32", "10.244.19.0/24"},
			conflicts: map[string][]string{"fd00:a::104/128": {"Gateway/gw-hangzhou", "Gateway/gw-qingdao", "Node/hangzhou-2", "Node/qingdao-2"}},
			problem:   Problem{Object: "Node/hangzhou-2", Reason: ReasonAddressConflict},
		},
		{
			name:      "an address inside a pod prefix of another region is out, the pods are not",
			make:      func(c *cluster) { c.nodeNamed("qingdao-2").Status.Addresses[0].Address = "10.244.19.7" },
			out:       []string{"10.244.19.7/32"},
			in:        []string{"10.244.19.0/24", "10.244.17.0/24"},
			conflicts: map[string][]string{"10.244.19.7/32": {"Gateway/gw-hangzhou", "Gateway/gw-qingdao", "Node/hangzhou-2", "Node/qingdao-2"}},
			problem:   Problem{Object: "Node/qingdao-2", Reason: ReasonAddressConflict},
		},
		{
			name:      "an address inside a pod prefix of the same region is out",
			make:      func(c *cluster) { c.nodeNamed("qingdao-2").Status.Addresses[0].Address = "10.244.16.7" },
			out:       []string{"10.244.16.7/32"},
			in:        []string{"10.244.16.0/24", "10.244.17.0/24"},
			conflicts: map[string][]string{"10.244.16.7/32": {"Gateway/gw-qingdao", "Node/qingdao-1", "Node/qingdao-2"}},
			problem:   Problem{Object: "Node/qingdao-2", Reason: ReasonAddressConflict},
		},
		{
			name:      "a pod prefix that is another node's address is out, the address is not",
			make:      func(c *cluster) { c.nodeNamed("qingdao-2").Spec.PodCIDRs[0] = "172.16.2.104/32" },
			in:        []string{"172.16.2.104/32"},
			conflicts: map[string][]string{"172.16.2.104/32": {"Gateway/gw-hangzhou", "Gateway/gw-qingdao", "Node/hangzhou-2", "Node/qingdao-2"}},
			problem:   Problem{Object: "Node/qingdao-2", Reason: ReasonSubnetConflict},
		},
		{
			name: "an address inside its own node's pod prefix is no conflict",
			make: func(c *cluster) { c.nodeNamed("qingdao-2").Status.Addresses[0].Address = "10.244.17.7" },
			in:   []string{"10.244.17.0/24", "10.244.17.7/32"},
		},
		{
			name:      "the same pod prefix in two regions is out in both",
			make:      func(c *cluster) { c.nodeNamed("qingdao-2").Spec.PodCIDRs[0] = "10.244.19.0/24" },
			out:       []string{"10.244.19.0/24"},
			in:        []string{"fd00:244:17::/64", "fd00:244:19::/64", "172.16.1.90/32", "172.16.2.104/32"},
			conflicts: map[string][]string{"10.244.19.0/24": {"Gateway/gw-hangzhou", "Gateway/gw-qingdao", "Node/hangzhou-2", "Node/qingdao-2"}},
			problem:   Problem{Object: "Node/qingdao-2", Reason: ReasonSubnetConflict},
		},
		{
			name:      "the same pod prefix on two nodes of one region is out for both",
			make:      func(c *cluster) { c.nodeNamed("qingdao-2").Spec.PodCIDRs[0] = "10.244.16.0/24" },
			out:       []string{"10.244.16.0/24"},
			in:        []string{"172.16.1.89/32", "172.16.1.90/32"},
			conflicts: map[string][]string{"10.244.16.0/24": {"Gateway/gw-qingdao", "Node/qingdao-1", "Node/qingdao-2"}},
			problem:   Problem{Object: "Node/qingdao-1", Reason: ReasonSubnetConflict},
		},
		{
			name:      "a pod prefix that covers everyone's is out alone",
			make:      func(c *cluster) { c.nodeNamed("qingdao-2").Spec.PodCIDRs[0] = "10.0.0.0/8" },
			out:       []string{"10.0.0.0/8"},
			in:        []string{"10.244.16.0/24", "10.244.18.0/24", "10.244.19.0/24", "172.16.1.90/32"},
			conflicts: map[string][]string{"10.0.0.0/8": {"Gateway/gw-cloud", "Gateway/gw-hangzhou", "Gateway/gw-qingdao", "Node/cloud-1", "Node/cloud-2", "Node/hangzhou-1", "Node/hangzhou-2", "Node/qingdao-1", "Node/qingdao-2"}},
			problem:   Problem{Object: "Node/qingdao-2", Reason: ReasonSubnetConflict},
		},
		{
			name: "addresses inside a pod prefix give way however wide it is",
			make: func(c *cluster) { c.nodeNamed("qingdao-2").Spec.PodCIDRs[0] = "172.16.0.0/12" },
			in:   []string{"172.16.0.0/12", "172.16.1.90/32"},
			out:  []string{"172.16.2.103/32", "172.16.2.104/32", "172.16.1.89/32"},
			conflicts: map[string][]string{
				"172.16.2.103/32": {"Gateway/gw-hangzhou", "Gateway/gw-qingdao", "Node/hangzhou-1", "Node/qingdao-2"},
				"172.16.2.104/32": {"Gateway/gw-hangzhou", "Gateway/gw-qingdao", "Node/hangzhou-2", "Node/qingdao-2"},
				"172.16.1.89/32":  {"Gateway/gw-qingdao", "Node/qingdao-1", "Node/qingdao-2"},
			},
			problem: Problem{Object: "Node/hangzhou-2", Reason: ReasonAddressConflict},
		},
		{
			name: "a wide prefix that is out does not put an address out",
			make: func(c *cluster) {
				c.nodeNamed("qingdao-2").Spec.PodCIDRs[0] = "10.244.0.0/16"
				c.nodeNamed("hangzhou-2").Status.Addresses[0].Address = "10.244.200.1"
			},
			out:       []string{"10.244.0.0/16"},
			in:        []string{"10.244.200.1/32", "10.244.19.0/24", "10.244.16.0/24", "172.16.1.90/32"},
			conflicts: map[string][]string{"10.244.0.0/16": {"Gateway/gw-cloud", "Gateway/gw-hangzhou", "Gateway/gw-qingdao", "Node/cloud-1", "Node/cloud-2", "Node/hangzhou-1", "Node/hangzhou-2", "Node/qingdao-1", "Node/qingdao-2"}},
			problem:   Problem{Object: "Node/qingdao-2", Reason: ReasonSubnetConflict},
		},
		{
			name: "one node's pod prefix inside another of its own is no conflict",
			make: func(c *cluster) {
				c.nodeNamed("qingdao-2").Spec.PodCIDRs = []string{"10.244.17.0/24", "10.244.17.0/26", "10.244.17.0/24"}
			},
			in: []string{"10.244.17.0/24", "10.244.17.0/26"},
		},
		{
			name:      "a pod prefix inside a service range is out",
			make:      func(c *cluster) { c.Config.ServiceCIDRs = []netip.Prefix{netip.MustParsePrefix("10.244.16.1/23")} },
			out:       []string{"10.244.16.0/24", "10.244.17.0/24"},
			in:        []string{"10.244.18.0/24", "172.16.1.90/32"},
			conflicts: map[string][]string{"10.244.16.0/24": {"Gateway/gw-qingdao", "Node/qingdao-1", "ServiceCIDR"}, "10.244.17.0/24": {"Gateway/gw-qingdao", "Node/qingdao-2", "ServiceCIDR"}},
			problem:   Problem{Object: "Node/qingdao-2", Reason: ReasonSubnetConflict},
		},
		{
			name:      "a pod prefix around a service range is out",
			make:      func(c *cluster) { c.Config.ServiceCIDRs = []netip.Prefix{netip.MustParsePrefix("10.244.17.128/25")} },
			out:       []string{"10.244.17.0/24"},
			in:        []string{"10.244.16.0/24"},
			conflicts: map[string][]string{"10.244.17.0/24": {"Gateway/gw-qingdao", "Node/qingdao-2", "ServiceCIDR"}},
			problem:   Problem{Object: "Node/qingdao-2", Reason: ReasonSubnetConflict},
		},
		{
			name:      "an address inside a service range is out",
			make:      func(c *cluster) { c.Config.ServiceCIDRs = []netip.Prefix{netip.MustParsePrefix("172.16.1.64/27")} },
			out:       []string{"172.16.1.89/32", "172.16.1.90/32"},
			in:        []string{"10.244.16.0/24", "172.16.2.104/32"},
			conflicts: map[string][]string{"172.16.1.89/32": {"Gateway/gw-qingdao", "Node/qingdao-1", "ServiceCIDR"}, "172.16.1.90/32": {"Gateway/gw-qingdao", "Node/qingdao-2", "ServiceCIDR"}},
			problem:   Problem{Object: "Node/qingdao-2", Reason: ReasonAddressConflict},
		},
		{
			name: "an extra prefix around the region's own nodes and pods is no conflict",
			make: func(c *cluster) { extra(c, "gw-qingdao", "172.16.1.0/24, 10.244.16.0/23") },
			in:   []string{"172.16.1.0/24", "172.16.1.90/32", "10.244.16.0/23", "10.244.17.0/24"},
		},
		{
			name:      "an extra prefix around another region's pods is out alone",
			make:      func(c *cluster) { extra(c, "gw-qingdao", "10.0.0.0/8") },
			out:       []string{"10.0.0.0/8"},
			in:        []string{"10.244.17.0/24", "10.244.19.0/24"},
			conflicts: map[string][]string{"10.0.0.0/8": {"Gateway/gw-cloud", "Gateway/gw-hangzhou", "Gateway/gw-qingdao", "Node/cloud-1", "Node/cloud-2", "Node/hangzhou-1", "Node/hangzhou-2", "Node/qingdao-1"}},
			problem:   Problem{Object: "Gateway/gw-qingdao", Reason: ReasonSubnetConflict},
		},
		{
			name:      "an extra prefix around another region's node is out, the node is not",
			make:      func(c *cluster) { extra(c, "gw-qingdao", "172.16.2.0/24") },
			out:       []string{"172.16.2.0/24"},
			in:        []string{"172.16.2.103/32", "172.16.2.104/32"},
			conflicts: map[string][]string{"172.16.2.0/24": {"Gateway/gw-hangzhou", "Gateway/gw-qingdao", "Node/hangzhou-1", "Node/hangzhou-2", "Node/qingdao-1"}},
			problem:   Problem{Object: "Gateway/gw-qingdao", Reason: ReasonSubnetConflict},
		},
		{
			name:      "an extra prefix inside another node's pods is out",
			make:      func(c *cluster) { extra(c, "gw-qingdao", "10.244.17.64/26") },
			out:       []string{"10.244.17.64/26"},
			in:        []string{"10.244.17.0/24"},
			conflicts: map[string][]string{"10.244.17.64/26": {"Gateway/gw-qingdao", "Node/qingdao-1", "Node/qingdao-2"}},
			problem:   Problem{Object: "Gateway/gw-qingdao", Reason: ReasonSubnetConflict},
		},
		{
			name: "the same extra prefix in two regions is out in both",
			make: func(c *cluster) {
				extra(c, "gw-qingdao", "192.168.77.0/24")
				extra(c, "gw-hangzhou", "192.168.77.0/24")
			},
			out:       []string{"192.168.77.0/24"},
			in:        []string{"10.244.17.0/24"},
			conflicts: map[string][]string{"192.168.77.0/24": {"Gateway/gw-hangzhou", "Gateway/gw-qingdao", "Node/hangzhou-1", "Node/qingdao-1"}},
			problem:   Problem{Object: "Gateway/gw-qingdao", Reason: ReasonSubnetConflict},
		},
		{
			name: "an extra prefix in a service range is out",
			make: func(c *cluster) {
				extra(c, "gw-qingdao", "10.96.5.0/24")
				c.Config.ServiceCIDRs = []netip.Prefix{netip.MustParsePrefix("10.96.0.0/12")}
			},
			out:       []string{"10.96.5.0/24"},
			in:        []string{"10.244.17.0/24"},
			conflicts: map[string][]string{"10.96.5.0/24": {"Gateway/gw-qingdao", "Node/qingdao-1", "ServiceCIDR"}},
			problem:   Problem{Object: "Gateway/gw-qingdao", Reason: ReasonSubnetConflict},
		},
		{
			name: "an extra prefix around a service range is out",
			make: func(c *cluster) {
				extra(c, "gw-qingdao", "10.96.0.0/12")
				c.Config.ServiceCIDRs = []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16")}
			},
			out:       []string{"10.96.0.0/12"},
			in:        []string{"10.244.17.0/24"},
			conflicts: map[string][]string{"10.96.0.0/12": {"Gateway/gw-qingdao", "Node/qingdao-1", "ServiceCIDR"}},
			problem:   Problem{Object: "Gateway/gw-qingdao", Reason: ReasonSubnetConflict},
		},
		{
			name:      "an extra prefix that is another node's address is out, the address is not",
			make:      func(c *cluster) { extra(c, "gw-qingdao", "172.16.1.90/32") },
			in:        []string{"172.16.1.90/32"},
			conflicts: map[string][]string{"172.16.1.90/32": {"Gateway/gw-qingdao", "Node/qingdao-1", "Node/qingdao-2"}},
			problem:   Problem{Object: "Gateway/gw-qingdao", Reason: ReasonSubnetConflict},
		},
		{
			name: "an extra prefix that is another node's pod prefix is out, however wide that is",
			make: func(c *cluster) {
				extra(c, "gw-qingdao", "10.244.0.0/16")
				c.nodeNamed("qingdao-2").Spec.PodCIDRs[0] = "10.244.0.0/16"
				c.Nodes = slices.DeleteFunc(c.Nodes, func(n *corev1.Node) bool {
					return n.Labels[v1beta1.LabelGateway] != "gw-qingdao" && n.Name != "third-1"
				})
			},
			out:       []string{"10.244.0.0/16"},
			conflicts: map[string][]string{"10.244.0.0/16": {"Gateway/gw-qingdao", "Node/qingdao-1", "Node/qingdao-2"}},
			problem:   Problem{Object: "Gateway/gw-qingdao", Reason: ReasonSubnetConflict},
		},
		{
			name:    "a node address that tunnels are dialled at is not routed through them",
			make:    func(c *cluster) { c.nodeNamed("cloud-1").Status.Addresses[0].Address = "120.79.0.10" },
			out:     []string{"120.79.0.10/32"},
			in:      []string{"10.244.20.0/24", "192.168.0.196/32"},
			problem: Problem{Object: "Node/cloud-1", Reason: ReasonAddressIsTunnelEndpoint},
		},
		{
			name: "the address of a gateway that dials without NAT is not routed through tunnels",
			make: func(c *cluster) {
				c.gatewayNamed("gw-qingdao").Status.ActiveEndpoints[0].UnderNAT = false
			},
			out:     []string{"172.16.1.89/32", "fd00:b::89/128"},
			in:      []string{"10.244.16.0/24", "172.16.1.90/32"},
			problem: Problem{Object: "Node/qingdao-1", Reason: ReasonAddressIsTunnelEndpoint},
		},
	} {
		t.Run(x.name, func(t *testing.T) {
			c := tutorial()
			c.gateway("gw-third", "third-1", "")
			c.node("third-1", "gw-third", []string{"198.51.100.1", "fd00:d::1"}, []string{"100.64.99.0/24"})
			x.make(c)
			for _, n := range c.Nodes {
				p := c.plan(n.Name)
				equal(t, "conflicts on "+n.Name, len(x.conflicts), len(p.Conflicts))
				for _, conflict := range p.Conflicts {
					want := x.conflicts[conflict.Prefix.String()]
					if !slices.Equal(want, conflict.Objects) {
						t.Errorf("on %s: conflict %v, want %v", n.Name, conflict, want)
					}
				}
				for _, out := range x.out {
					prefix := netip.MustParsePrefix(out)
					if slices.ContainsFunc(p.Prefixes, func(y Prefix) bool { return y.Prefix == prefix }) {
						t.Errorf("%s plans %s", n.Name, out)
					}
				}
			}
			p := c.plan("third-1")
			got := delivered(p)
			for _, in := range x.in {
				if !got[in] {
					t.Errorf("%s is not delivered", in)
				}
			}
			if x.problem.Reason != "" && !slices.ContainsFunc(p.Problems, func(y Problem) bool {
				return y.Object == x.problem.Object && y.Reason == x.problem.Reason
			}) {
				t.Errorf("no problem %v among %v", x.problem, p.Problems)
			}
			if x.problem.Reason == "" && len(p.Problems) > 0 {
				t.Errorf("problems %v", p.Problems)
			}
			consistent(t, c.State)
		})
	}
}

func TestANodeWhoseAddressIsOutSaysSo(t *testing.T) {
	c := tutorial()
	c.nodeNamed("qingdao-2").Status.Addresses[0].Address = "172.16.2.104"
	for node, want := range map[string]bool{"qingdao-2": true, "hangzhou-2": true, "qingdao-1": false, "cloud-1": false} {
		p := c.plan(node)
		if p.NodeIPConflicts != want {
			t.Errorf("%s: NodeIPConflicts %t", node, p.NodeIPConflicts)
		}
		if want && p.NodeIP4.String() != "172.16.2.104" {
			t.Errorf("%s: lost its own address, has %v", node, p.NodeIP4)
		}
	}
	if p := c.plan("hangzhou-1"); !slices.Contains(p.Throws, netip.MustParseAddr("172.16.2.104")) {
		t.Errorf("hangzhou-1 does not throw its neighbour's address: %v", p.Throws)
	}
}

func TestWithoutForwardNodeIPNoNodeAddressIsRouted(t *testing.T) {
	c := tutorial()
	c.Config.ForwardNodeIP = false
	c.nodeNamed("qingdao-2").Status.Addresses[0].Address = "172.16.2.104" // and no conflict is made of it
	for _, n := range c.Nodes {
		p := c.plan(n.Name)
		for _, x := range p.Prefixes {
			if x.Prefix.IsSingleIP() {
				t.Errorf("%s plans %s", n.Name, x.Prefix)
			}
		}
		if !p.NodeIPConflicts || len(p.Conflicts)+len(p.Problems) != 0 {
			t.Errorf("%s: NodeIPConflicts %t, conflicts %v, problems %v", n.Name, p.NodeIPConflicts, p.Conflicts, p.Problems)
		}
	}
	if stopped := consistent(t, c.State); stopped != 0 {
		t.Errorf("%d walks stopped", stopped)
	}
}

// A node that is left out makes no claims, so that another may have its prefixes. It must still reach its own pods:
// nothing that covers them may stand in its tables.
func TestANodeKeepsItsOwnPodsWhenTheirPrefixIsOut(t *testing.T) {
	c := tutorial()
	c.node("qingdao-3", "gw-qingdao", []string{"172.16.1.90"}, []string{"10.244.19.0/25", "10.244.30.0/24"})
	p := c.plan("qingdao-3")
	equal(t, "local prefixes", prefixes("10.244.19.0/25", "10.244.30.0/24"), p.LocalPrefixes)
	if slices.ContainsFunc(p.Prefixes, func(x Prefix) bool { return x.Prefix.String() == "10.244.19.0/24" }) {
		t.Errorf("10.244.19.0/24 covers own pods: %v", p.Prefixes)
	}
	equal(t, "number of other prefixes", 15, len(p.Prefixes))
	if !delivered(c.plan("qingdao-1"))["10.244.19.0/24"] {
		t.Errorf("another node lost the prefix")
	}
}

// Or else a gateway whose podCIDR is a typing error would keep another host's packets to itself.
func TestASingleAddressThatIsOutIsNobodysPod(t *testing.T) {
	c := tutorial()
	c.nodeNamed("hangzhou-1").Spec.PodCIDRs[0] = "172.16.1.90/32"
	p := c.plan("hangzhou-1")
	equal(t, "local prefixes", prefixes("fd00:244:18::/64"), p.LocalPrefixes)
	if !delivered(p)["172.16.1.90/32"] {
		t.Errorf("prefixes %v", p.Prefixes)
	}
}

// The narrower of two prefixes is the one that means one thing, on the very node with the wider one too.
func TestANodeWithAWidePrefixStillReachesTheOthersPods(t *testing.T) {
	c := tutorial()
	c.nodeNamed("qingdao-2").Spec.PodCIDRs = []string{"10.244.0.0/16"}
	p := c.plan("qingdao-2")
	equal(t, "local prefixes", prefixes("10.244.0.0/16"), p.LocalPrefixes)
	if !delivered(p)["10.244.19.0/24"] || !delivered(p)["172.16.2.104/32"] {
		t.Errorf("prefixes %v", p.Prefixes)
	}
}

func TestAConflictOfManyNamesAFew(t *testing.T) {
	c := large(200, 2)
	c.nodeNamed("gw-0001-1").Spec.PodCIDRs = []string{"10.0.0.0/8"}
	p := c.plan("gw-0005-0")
	if len(p.Conflicts) != 1 || len(p.Conflicts[0].Objects) > 2*2*maxNamed || !slices.Contains(p.Conflicts[0].Objects, "Node/gw-0001-1") {
		t.Errorf("conflicts %v", p.Conflicts)
	}
	equal(t, "number of problems", 1, len(p.Problems))
}
