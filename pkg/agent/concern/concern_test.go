package concern_test

import (
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ravencni/raven/pkg/agent/concern"
	"github.com/ravencni/raven/pkg/apis/raven/v1beta1"
	"github.com/ravencni/raven/pkg/topology"
)

// add makes a region with nodes <name>1 and <name>2, the first of which is active unless vacant.
func add(s *topology.State, name string, exposed, vacant bool) {
	g := &v1beta1.Gateway{ObjectMeta: metav1.ObjectMeta{Name: name}}
	if exposed {
		g.Spec.ExposeType = v1beta1.ExposePublicIP
	}
	if !vacant {
		g.Status.ActiveEndpoints = []*v1beta1.Endpoint{{NodeName: name + "1", Type: v1beta1.EndpointTunnel}}
	}
	s.Gateways = append(s.Gateways, g)
	for i := range 2 {
		s.Nodes = append(s.Nodes, &corev1.Node{ObjectMeta: metav1.ObjectMeta{
			Name: fmt.Sprintf("%s%d", name, i+1), Labels: map[string]string{v1beta1.LabelGateway: name},
		}})
	}
}

// tellers are the nodes that name a problem of an object.
func tellers(s topology.State, object string, standalone bool) string {
	var out []string
	for _, n := range s.Nodes {
		if concern.New(s, n.Name, standalone).Names(topology.Problem{Object: object, Reason: "R"}) {
			out = append(out, n.Name)
		}
	}
	return strings.Join(out, " ")
}

func TestWhoNamesAProblem(t *testing.T) {
	var s topology.State
	add(&s, "cloud", true, false)
	add(&s, "hub", true, false)
	add(&s, "edge", false, false)
	add(&s, "far", false, false)
	add(&s, "vacant", false, true)
	s.Nodes = append(s.Nodes, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "stray"}})
	const all = "cloud1 cloud2 hub1 hub2 edge1 edge2 far1 far2 vacant1 vacant2 stray"
	for _, c := range []struct{ object, want, standalone string }{
		{"Node/edge2", "cloud1 hub1 edge1 edge2", ""},
		{"Gateway/edge", "cloud1 hub1 edge1 edge2", ""},
		{"TunnelEndpoint/edge1", "cloud1 hub1 edge1 edge2", ""},
		{"Node/cloud2", "cloud1 cloud2", ""},
		{"Gateway/cloud", "cloud1 cloud2 hub1 edge1 far1", ""},
		{"TunnelEndpoint/cloud1", "cloud1 cloud2 hub1 edge1 far1", ""},
		{"Gateway/vacant", "cloud1 hub1 vacant1 vacant2", "cloud1 hub1 edge1 far1 vacant1 vacant2"},
		{"Node/vacant2", "cloud1 hub1 vacant1 vacant2", "cloud1 hub1 edge1 far1 vacant1 vacant2"},
		{"Node/stray", "cloud1 hub1 stray", "cloud1 hub1 edge1 far1 stray"},
		{"Gateway/unknown", "cloud1 hub1", "cloud1 hub1 edge1 far1"},
		{"TunnelEndpoint/gone", "cloud1 hub1", "cloud1 hub1 edge1 far1"},
		{"Node/", "cloud1 hub1", "cloud1 hub1 edge1 far1"},
		{"ConfigMap/raven-agent-config", "cloud1 hub1", "cloud1 hub1 edge1 far1"},
		{"File/bad.yaml", all, all},
		{"APIServer/kubernetes", all, all},
		{"Deployment/busy-box", all, all},
	} {
		if got := tellers(s, c.object, false); got != c.want {
			t.Errorf("%s is named by %q, want %q", c.object, got, c.want)
		}
		want := c.standalone
		if want == "" {
			want = c.want
		}
		if got := tellers(s, c.object, true); got != want {
			t.Errorf("with manifests %s is named by %q, want %q", c.object, got, want)
		}
	}
}

func TestSomebodyNamesEveryProblemInAnyCluster(t *testing.T) {
	for shape := range 1 << 6 { // three regions, each exposed or not, with and without an active node
		var s topology.State
		for i, name := range []string{"a", "b", "c"} {
			add(&s, name, shape>>i&1 == 1, shape>>(3+i)&1 == 1)
		}
		s.Nodes = append(s.Nodes, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "z"}})
		for _, object := range []string{"Gateway/a", "Node/b2", "TunnelEndpoint/c1", "Node/z", "Gateway/none", "ConfigMap/x"} {
			for _, standalone := range []bool{false, true} {
				if tellers(s, object, standalone) == "" {
					t.Errorf("nobody names %s in shape %b, standalone %t", object, shape, standalone)
				}
			}
		}
	}
}

func TestOneMistakeInALargeClusterIsNamedByFew(t *testing.T) {
	var s topology.State
	add(&s, "cloud", true, false)
	for i := range 200 {
		add(&s, fmt.Sprintf("edge%03d-", i), false, false)
	}
	for _, object := range []string{"Gateway/edge100-", "Node/edge100-2", "ConfigMap/raven-cfg"} {
		if got := strings.Fields(tellers(s, object, false)); len(got) == 0 || len(got) > 3 {
			t.Errorf("%s is named by %d nodes", object, len(got))
		}
	}
}
