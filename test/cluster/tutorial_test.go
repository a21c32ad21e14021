package cluster_test

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/ravencni/raven/pkg/apis/raven/v1beta1"
)

// regions of the tutorial with their nodes.
var regions = map[string][]string{
	"gw-hangzhou": {"izbp15inok0kbfkg3in52rz", "izbp15inok0kbfkg3in52sz"},
	"gw-cloud":    {"izwz9dohcv74iegqecp4axz", "izwz9ey0js5z7mornclpd6z"},
	"gw-qingdao":  {"izm5eb24dmjfimuaybpnqzz", "izm5eb24dmjfimuaybpnr0z"},
}

func TestTheTutorialsCommandsApplyUnchanged(t *testing.T) {
	for name, members := range regions {
		for _, node := range members {
			createNode(t, node)
		}
		remove(t, gateways, name)
		kubectl(t, "", append(append([]string{"label", "nodes"}, members...), v1beta1.LabelGateway+"="+name)...)
	}
	manifests, err := os.ReadFile("../../pkg/apis/raven/v1beta1/testdata/tutorial.yaml")
	must(t, err)
	out := kubectl(t, string(manifests), "apply", "-f", "-")
	for name := range regions {
		if !strings.Contains(out, "gateway.raven.openyurt.io/"+name+" created") {
			t.Errorf("kubectl apply does not say that %s was created:\n%s", name, out)
		}
	}
	if out := kubectl(t, string(manifests), "apply", "-f", "-"); strings.Count(out, " unchanged") != len(regions) {
		t.Errorf("the same manifests once more are not unchanged:\n%s", out)
	}

	labelled := kubectl(t, "", "get", "nodes", "-l", v1beta1.LabelGateway+"=gw-cloud", "-o", "name")
	if got := strings.Fields(labelled); !slices.Equal(got, []string{"node/izwz9dohcv74iegqecp4axz", "node/izwz9ey0js5z7mornclpd6z"}) {
		t.Errorf("gw-cloud has the nodes %v", got)
	}
	for _, c := range [][2]string{
		{"{.spec.exposeType}", "PublicIP"},
		{"{.spec.proxyConfig.proxyHTTPPort}", "10255,9445"},
		{"{.spec.endpoints[*].publicIP}", "120.79.0.1 120.79.0.1"},
		{"{.spec.endpoints[*].type}", "proxy tunnel"},
	} {
		if got := kubectl(t, "", "get", "gateway", "gw-cloud", "-o", "jsonpath="+c[0]); got != c[1] {
			t.Errorf("%s of gw-cloud is %q, want %q", c[0], got, c[1])
		}
	}
	if got := kubectl(t, "", "get", "gateway", "gw-hangzhou", "-o", "jsonpath={.spec.endpoints[*].underNAT}"); got != "true true" {
		t.Errorf("the endpoint with the repeated key reads %q", got)
	}
}

// table runs kubectl get and returns header -> cell of the one row.
func table(t *testing.T, args ...string) map[string]string {
	t.Helper()
	out := kubectl(t, "", append([]string{"get"}, args...)...)
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if len(lines) != 2 {
		t.Fatalf("kubectl get %v prints\n%s", args, out)
	}
	cells := map[string]string{}
	// Columns are as wide as what is in them, and three blanks apart.
	for at := 0; at < len(lines[0]); {
		end := len(lines[0])
		if gap := strings.Index(lines[0][at:], "   "); gap >= 0 {
			end = at + gap
			for end < len(lines[0]) && lines[0][end] == ' ' {
				end++
			}
		}
		header, cell := lines[0][at:end], ""
		if at < len(lines[1]) {
			cell = lines[1][at:min(end, len(lines[1]))]
			if end == len(lines[0]) {
				cell = lines[1][at:]
			}
		}
		cells[strings.TrimSpace(header)] = strings.TrimSpace(cell)
		at = end
	}
	return cells
}

func writeStatus(t *testing.T, resource schema.GroupVersionResource, o *unstructured.Unstructured, status string) *unstructured.Unstructured {
	t.Helper()
	o = o.DeepCopy()
	o.Object["status"] = object(t, "%s", status).Object
	o, err := client(t, server.Admin()).Resource(resource).UpdateStatus(t.Context(), o,
		metav1.UpdateOptions{FieldValidation: metav1.FieldValidationStrict})
	must(t, err)
	return o
}

const cloudStatus = `{nodeCount: 2, observedGeneration: 1,
	activeEndpoint: {nodeName: cloud-1, type: tunnel, publicIP: 203.0.113.7, port: 4500},
	activeEndpoints: [{nodeName: cloud-1, type: tunnel, publicIP: 203.0.113.7, port: 4500,
		config: {enable-l3-tunnel: "true", publicKey: a2V5}}],
	nodes: [{nodeName: cloud-1, privateIP: 192.168.0.195, subnets: [10.224.0.128/26, "fd00:1::/64"]},
		{nodeName: cloud-2, privateIP: 192.168.0.196}],
	conditions: [{type: Ready, status: "False", reason: NoPublicIP, message: set publicIP, lastTransitionTime: "2026-01-01T00:00:00Z"}]}`

func TestKubectlGetAnswersWhetherAGatewayWorks(t *testing.T) {
	gateway := create(t, gateways, object(t, `{apiVersion: raven.openyurt.io/v1beta1, kind: Gateway, metadata: {name: gw-cloud},
		spec: {exposeType: PublicIP, endpoints: [{nodeName: cloud-1}]}}`))
	writeStatus(t, gateways, gateway, cloudStatus)
	narrow := map[string]string{"NAME": "gw-cloud", "EXPOSED": "PublicIP", "TUNNEL NODE": "cloud-1", "NODES": "2", "READY": "False"}
	wide := map[string]string{"PUBLIC IP": "203.0.113.7", "REASON": "NoPublicIP"}
	for _, args := range [][]string{{"gateways"}, {"gw"}, {"gateways.v1alpha1.raven.openyurt.io"}} {
		got := table(t, args...)
		for header, want := range narrow {
			if got[header] != want {
				t.Errorf("kubectl get %s shows %s %q, want %q", args[0], header, got[header], want)
			}
		}
		for header := range wide {
			if _, there := got[header]; there {
				t.Errorf("kubectl get %s shows %s, which is for -o wide", args[0], header)
			}
		}
	}
	got := table(t, "gateways", "-o", "wide")
	for header, want := range wide {
		if got[header] != want {
			t.Errorf("kubectl get -o wide shows %s %q, want %q", header, got[header], want)
		}
	}
}

func TestReadingAndWritingThroughEitherVersionLosesNothing(t *testing.T) {
	older := gateways
	older.Version = "v1alpha1"
	const spec = `{nodeSelector: {matchLabels: {region: cloud}}, exposeType: PublicIP,
		proxyConfig: {Replicas: 1, proxyHTTPPort: "10255,9445", proxyHTTPSPort: "10250"}, tunnelConfig: {Replicas: 1},
		endpoints: [{nodeName: cloud-1, type: proxy, port: 10262, publicIP: 203.0.113.7, publicPort: 443, underNAT: false,
			natType: none, config: {a: b}}, {nodeName: cloud-1, type: tunnel}]}` // no field is left to a default
	for _, through := range []schema.GroupVersionResource{older, gateways} {
		t.Run(through.Version, func(t *testing.T) {
			other := older
			if through == older {
				other = gateways
			}
			gateway := create(t, through, object(t, `{apiVersion: raven.openyurt.io/%s, kind: Gateway,
				metadata: {name: gw-cloud, annotations: {raven.openyurt.io/extra-allowed-source-cidrs: 10.9.0.0/16}}, spec: %s}`,
				through.Version, spec))
			if diff := cmp.Diff(object(t, spec).Object, gateway.Object["spec"]); diff != "" {
				t.Errorf("what was written is not what is stored (-written +stored):\n%s", diff)
			}
			writeStatus(t, through, gateway, cloudStatus)

			// Read through the other version and write back what was read, as kubectl edit does: spec, then status.
			c := client(t, server.Admin())
			before, err := c.Resource(through).Get(t.Context(), "gw-cloud", metav1.GetOptions{})
			must(t, err)
			read, err := c.Resource(other).Get(t.Context(), "gw-cloud", metav1.GetOptions{})
			must(t, err)
			read.SetLabels(map[string]string{"edited": "true"})
			read, err = c.Resource(other).Update(t.Context(), read, metav1.UpdateOptions{})
			must(t, err)
			_, err = c.Resource(other).UpdateStatus(t.Context(), read, metav1.UpdateOptions{})
			must(t, err)
			after, err := c.Resource(through).Get(t.Context(), "gw-cloud", metav1.GetOptions{})
			must(t, err)
			for _, part := range []string{"spec", "status"} {
				if diff := cmp.Diff(before.Object[part], after.Object[part]); diff != "" {
					t.Errorf("%s changed on the way through %s (-before +after):\n%s", part, other.Version, diff)
				}
			}
			if after.GetAnnotations()[v1beta1.AnnotationExtraSourceCIDRs] == "" || after.GetGeneration() != before.GetGeneration() {
				t.Errorf("annotations %v, generation %d -> %d", after.GetAnnotations(), before.GetGeneration(), after.GetGeneration())
			}
		})
	}
}
