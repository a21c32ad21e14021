package topology

import (
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ravencni/raven/pkg/apis/raven/v1beta1"
)

func TestANodeOutsideL3OwnsNothing(t *testing.T) {
	zero := 0
	for name, change := range map[string]func(c *cluster){
		"no label":              func(c *cluster) { c.nodeNamed("qingdao-2").Labels = nil },
		"a label of no gateway": func(c *cluster) { c.nodeNamed("qingdao-2").Labels[v1beta1.LabelGateway] = "gw-nowhere" },
		"L3 switched off":       func(c *cluster) { c.Config.EnableTunnel = false },
		"tunnel replicas 0": func(c *cluster) {
			c.gatewayNamed("gw-qingdao").Spec.TunnelConfig = &v1beta1.TunnelConfiguration{Replicas: &zero}
		},
		"a gateway for the proxy alone": func(c *cluster) {
			gw := c.gatewayNamed("gw-qingdao")
			gw.Spec.Endpoints[0].Type = v1beta1.EndpointProxy
			gw.Status.ActiveEndpoints[0].Type = v1beta1.EndpointProxy
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := tutorial()
			change(c)
			equal(t, "plan", &Plan{Node: "qingdao-2", Role: RoleNone}, c.plan("qingdao-2"))
			consistent(t, c.State)
		})
	}
}

// Nobody routes what belongs to a region that asked for no tunnel: its traffic goes where it went before.
func TestARegionWithoutTunnelIsLeftAlone(t *testing.T) {
	c := tutorial()
	zero := 0
	c.gatewayNamed("gw-qingdao").Spec.TunnelConfig = &v1beta1.TunnelConfiguration{Replicas: &zero}
	for _, n := range []string{"hangzhou-1", "hangzhou-2", "cloud-1"} {
		if h := hopOf(c.plan(n), "region/gw-qingdao"); h != nil {
			t.Errorf("%s has next hop %v", n, h)
		}
	}
}

func TestAFailoverRewritesNextHopsAndLeavesPrefixesAlone(t *testing.T) {
	c := tutorial()
	before := c.plan("hangzhou-2")
	remote := c.plan("qingdao-2")
	c.gatewayNamed("gw-hangzhou").Status.ActiveEndpoints[0].NodeName = "hangzhou-2"
	if p := c.plan("hangzhou-2"); p.Role != RoleGateway || p.Tunnel == nil {
		t.Errorf("the new gateway is %s", p.Role)
	}
	was := c.plan("hangzhou-1")
	if was.Role != RoleMember || was.Tunnel != nil {
		t.Errorf("the old gateway is %s", was.Role)
	}
	c.gatewayNamed("gw-hangzhou").Status.ActiveEndpoints[0].NodeName = "hangzhou-1"
	equal(t, "plan after failing back", before, c.plan("hangzhou-2"))

	c.node("hangzhou-3", "gw-hangzhou", []string{"172.16.2.105"}, []string{"10.244.22.0/24"})
	third := c.plan("hangzhou-3")
	c.gatewayNamed("gw-hangzhou").Status.ActiveEndpoints[0].NodeName = "hangzhou-2"
	after := c.plan("hangzhou-3")
	equal(t, "prefixes", third.Prefixes, after.Prefixes)
	for i, h := range after.NextHops {
		if h.ID != third.NextHops[i].ID || h.Node != "hangzhou-2" {
			t.Errorf("next hop %v was %v", h, third.NextHops[i])
		}
	}
	// Members of other regions do not even notice.
	c.Nodes = slices.DeleteFunc(c.Nodes, func(n *corev1.Node) bool { return n.Name == "hangzhou-3" })
	equal(t, "plan of a remote member", remote, c.plan("qingdao-2"))
	consistent(t, c.State)
}

func TestWithoutAGatewayTheRegionFailsClosedAndKeepsItsLAN(t *testing.T) {
	c := tutorial()
	full := c.plan("hangzhou-2")
	c.gatewayNamed("gw-hangzhou").Status.ActiveEndpoints = nil
	for _, n := range []string{"hangzhou-1", "hangzhou-2"} {
		p := c.plan(n)
		if p.Role != RoleMember || p.Tunnel != nil {
			t.Errorf("%s is %s", n, p.Role)
		}
		for _, h := range p.NextHops {
			if h.Kind != KindUnreachable {
				t.Errorf("%s: next hop %v", n, h)
			}
		}
		if p.Overlay == nil || len(p.Overlay.Neighbours) != 0 || len(p.Overlay.Members) != 1 {
			t.Errorf("%s: overlay %v", n, p.Overlay)
		}
	}
	p := c.plan("hangzhou-2")
	equal(t, "prefixes", full.Prefixes, p.Prefixes)
	equal(t, "throws", full.Throws, p.Throws)
	equal(t, "overlay MAC", full.Overlay.MAC, p.Overlay.MAC)
	// The others answer for it at their gateways.
	if h := hopOf(c.plan("qingdao-1"), "region/gw-hangzhou"); h.Kind != KindUnreachable {
		t.Errorf("qingdao-1: %v", h)
	}
	if h := hopOf(c.plan("qingdao-2"), "region/gw-hangzhou"); h.Kind != KindOverlay || h.Node != "qingdao-1" {
		t.Errorf("qingdao-2: %v", h)
	}
	consistent(t, c.State)
}

func TestANodeThatIsLeftOutFailsClosed(t *testing.T) {
	c := tutorial()
	n := c.nodeNamed("qingdao-2")
	n.Status.Addresses = n.Status.Addresses[1:]
	p := c.plan("qingdao-2")
	if p.Role != RoleMember || p.Overlay != nil || len(p.Prefixes) != 16 {
		t.Errorf("role %s, overlay %v, %d prefixes", p.Role, p.Overlay, len(p.Prefixes))
	}
	for _, h := range p.NextHops {
		if h.Kind != KindUnreachable {
			t.Errorf("next hop %v", h)
		}
	}
	equal(t, "local prefixes", prefixes("10.244.17.0/24", "fd00:244:17::/64"), p.LocalPrefixes)
	if o := c.plan("qingdao-1").Overlay; len(o.Members)+len(o.Neighbours) != 0 {
		t.Errorf("the gateway still has it: %v", o)
	}
}

func TestTheStatusOfV1alpha1NamesTheActiveEndpointToo(t *testing.T) {
	c := tutorial()
	gw := c.gatewayNamed("gw-hangzhou")
	gw.Status.ActiveEndpoint, gw.Status.ActiveEndpoints = gw.Status.ActiveEndpoints[0], []*v1beta1.Endpoint{nil, {NodeName: "hangzhou-2", Type: v1beta1.EndpointProxy}}
	equal(t, "plan", tutorial().plan("hangzhou-1"), c.plan("hangzhou-1"))
}

func TestMembership(t *testing.T) {
	selector := func(m map[string]string, reqs ...metav1.LabelSelectorRequirement) *metav1.LabelSelector {
		return &metav1.LabelSelector{MatchLabels: m, MatchExpressions: reqs}
	}
	for name, x := range map[string]struct {
		selector *metav1.LabelSelector
		labels   map[string]string
		member   bool
	}{
		"absent selector, the default label":          {nil, map[string]string{v1beta1.LabelGateway: "gw"}, true},
		"absent selector, another gateway's label":    {nil, map[string]string{v1beta1.LabelGateway: "gw2"}, false},
		"absent selector, no label":                   {nil, nil, false},
		"empty selector, the default label":           {selector(nil), map[string]string{v1beta1.LabelGateway: "gw"}, true},
		"empty selector, no label":                    {selector(nil), nil, false},
		"own selector, its label":                     {selector(map[string]string{"site": "x"}), map[string]string{"site": "x"}, true},
		"own selector, the default label only":        {selector(map[string]string{"site": "x"}), map[string]string{v1beta1.LabelGateway: "gw"}, false},
		"two labels, both":                            {selector(map[string]string{"a": "1", "b": "2"}), map[string]string{"a": "1", "b": "2"}, true},
		"two labels, one":                             {selector(map[string]string{"a": "1", "b": "2"}), map[string]string{"a": "1"}, false},
		"label and expression, both":                  {selector(map[string]string{"a": "1"}, metav1.LabelSelectorRequirement{Key: "b", Operator: metav1.LabelSelectorOpExists}), map[string]string{"a": "1", "b": ""}, true},
		"label and expression, the label only":        {selector(map[string]string{"a": "1"}, metav1.LabelSelectorRequirement{Key: "b", Operator: metav1.LabelSelectorOpExists}), map[string]string{"a": "1"}, false},
		"expression alone, matching":                  {selector(nil, metav1.LabelSelectorRequirement{Key: "b", Operator: metav1.LabelSelectorOpIn, Values: []string{"x", "y"}}), map[string]string{"b": "y"}, true},
		"expression alone, not matching":              {selector(nil, metav1.LabelSelectorRequirement{Key: "b", Operator: metav1.LabelSelectorOpIn, Values: []string{"x", "y"}}), map[string]string{"b": "z"}, false},
		"expression alone, of absence, with no label": {selector(nil, metav1.LabelSelectorRequirement{Key: "b", Operator: metav1.LabelSelectorOpDoesNotExist}), nil, true},
	} {
		t.Run(name, func(t *testing.T) {
			gw := &v1beta1.Gateway{ObjectMeta: metav1.ObjectMeta{Name: "gw"}, Spec: v1beta1.GatewaySpec{NodeSelector: x.selector}}
			c := newCluster()
			c.node("n", "", nil, nil).Labels = x.labels
			m := AssignNodes([]*v1beta1.Gateway{gw}, c.Nodes)
			if got := m.GatewayOf["n"] == "gw" && len(m.Members["gw"]) == 1; got != x.member || len(m.Problems) != 0 {
				t.Errorf("member %t, want %t; problems %v", got, x.member, m.Problems)
			}
		})
	}
}
