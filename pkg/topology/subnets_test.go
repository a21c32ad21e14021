package topology

import (
	"testing"

	"github.com/ravencni/raven/pkg/apis/raven/v1beta1"
)

func TestSubnetsOfTheStatusReplaceThoseOfTheNode(t *testing.T) {
	c := tutorial()
	c.gatewayNamed("gw-qingdao").Status.Nodes = []v1beta1.NodeInfo{
		{NodeName: "qingdao-2", Subnets: []string{"10.50.0.0/26", "10.50.0.64/26"}},
		{NodeName: "qingdao-1"},                                  // without subnets the Node's own are used
		{NodeName: "cloud-2", Subnets: []string{"10.60.0.0/26"}}, // not a member
	}
	c.nodeNamed("qingdao-2").Spec.PodCIDRs = nil // as with an address manager other than Kubernetes'
	c.nodeNamed("qingdao-2").Spec.PodCIDR = ""
	p := c.plan("hangzhou-1")
	equal(t, "prefixes of qingdao", prefixes("10.244.16.0/24", "fd00:244:16::/64", "172.16.1.89/32", "fd00:b::89/128",
		"10.50.0.0/26", "10.50.0.64/26", "172.16.1.90/32", "fd00:b::90/128"), prefixesBy(p, "region/gw-qingdao"))
	equal(t, "number of problems", 0, len(p.Problems))
}

func TestABadPodCIDRIsReportedAlthoughTheStatusHasTheSubnets(t *testing.T) {
	c := tutorial()
	c.gatewayNamed("gw-qingdao").Status.Nodes = []v1beta1.NodeInfo{{NodeName: "qingdao-2", Subnets: []string{"10.244.17.0/24"}}}
	c.nodeNamed("qingdao-2").Spec.PodCIDRs = []string{"10.244.17.0/24", "rubbish"}
	p := c.plan("hangzhou-1")
	if len(p.Problems) != 1 || p.Problems[0].Reason != ReasonMalformedCIDR || p.Problems[0].Object != "Node/qingdao-2" {
		t.Errorf("problems %v", p.Problems)
	}
}

func TestTheSinglePodCIDRServesWhereTheListIsAbsent(t *testing.T) {
	c := tutorial()
	c.nodeNamed("qingdao-2").Spec.PodCIDRs = nil
	equal(t, "local prefixes", prefixes("10.244.17.0/24"), c.plan("qingdao-2").LocalPrefixes)
}

func TestExtraPrefixesBelongToTheActiveGateway(t *testing.T) {
	c := tutorial()
	gw := c.gatewayNamed("gw-qingdao")
	gw.Annotations = map[string]string{v1beta1.AnnotationExtraSourceCIDRs: " 192.168.77.0/24 ,10.9.0.0/16"}
	for _, node := range []string{"qingdao-1", "qingdao-2"} {
		gw.Status.ActiveEndpoints[0].NodeName = node
		got := delivered(c.plan("hangzhou-1"))
		if !got["192.168.77.0/24"] || !got["10.9.0.0/16"] {
			t.Errorf("with %s active, hangzhou-1 routes %v", node, got)
		}
		for _, n := range []string{"qingdao-1", "qingdao-2"} {
			has := len(c.plan(n).LocalPrefixes) == 4
			if has != (n == node) {
				t.Errorf("with %s active, %s has local prefixes %v", node, n, c.plan(n).LocalPrefixes)
			}
		}
		if stopped := consistent(t, c.State); stopped != 0 {
			t.Errorf("%d walks stopped", stopped)
		}
	}
}

// The status lists extra prefixes among the active node's subnets, as the original does; they are still extra.
func TestExtraPrefixesInTheStatusAreNotPods(t *testing.T) {
	c := tutorial()
	gw := c.gatewayNamed("gw-qingdao")
	gw.Annotations = map[string]string{v1beta1.AnnotationExtraSourceCIDRs: "10.244.0.0/16,10.244.16.0/24"}
	gw.Status.Nodes = []v1beta1.NodeInfo{{NodeName: "qingdao-1", Subnets: []string{"10.244.16.0/24", "fd00:244:16::/64", "10.244.0.0/16"}}}
	p := c.plan("qingdao-1")
	equal(t, "local prefixes, the conflicting extra one not among them", prefixes("10.244.16.0/24", "fd00:244:16::/64"), p.LocalPrefixes)
	if len(p.Conflicts) != 1 || p.Conflicts[0].Prefix.String() != "10.244.0.0/16" {
		t.Errorf("conflicts %v", p.Conflicts)
	}
}

// A node's allocated prefix keeps its authority although the annotation lists it again.
func TestAPodCIDRThatIsListedAsExtraTooIsAPodCIDR(t *testing.T) {
	c := tutorial()
	gw := c.gatewayNamed("gw-qingdao")
	gw.Annotations = map[string]string{v1beta1.AnnotationExtraSourceCIDRs: "10.244.16.0/24"}
	gw.Status.Nodes = []v1beta1.NodeInfo{{NodeName: "qingdao-1", Subnets: []string{"10.244.16.0/24", "fd00:244:16::/64"}}}
	c.nodeNamed("hangzhou-2").Status.Addresses[0].Address = "10.244.16.9" // gives way to pods, but not to an extra prefix
	got := delivered(c.plan("cloud-1"))
	if !got["10.244.16.0/24"] || got["10.244.16.9/32"] {
		t.Errorf("delivered %v", got)
	}
}
