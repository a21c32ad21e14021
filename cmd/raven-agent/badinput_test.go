package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestABadInputCostsOnlyItselfAndIsNamedInLogMetricAndStatus(t *testing.T) {
	onNode(t, func(t *testing.T, n *node) {
		p := n.start()
		p.awaitReady()
		nodeOf := func(region, name, cidrs, ip string) string {
			return fmt.Sprintf("apiVersion: v1\nkind: Node\nmetadata: {name: %s, labels: {raven.openyurt.io/gateway: %s}}\n"+
				"spec: {podCIDRs: [%s]}\nstatus: {addresses: [{type: InternalIP, address: %q}]}\n---\n", name, region, cidrs, ip)
		}
		const third = "apiVersion: raven.openyurt.io/v1beta1\nkind: Gateway\nmetadata: {name: gw-c}\n" +
			"spec: {endpoints: [{nodeName: c1, type: tunnel, underNAT: true}]}\n---\n"
		for _, c := range []struct {
			name, content, object, reason string
			writes                        float64 // to the tunnel, for what is good about the input
		}{
			{"an empty podCIDR", nodeOf("gw-b", "b2", "", "10.0.1.2"), "Node/b2", "MissingPodCIDR", 1},
			{"a malformed CIDR", nodeOf("gw-b", "b2", "10.2.2.0/33", "10.0.1.2"), "Node/b2", "MalformedCIDR", 1},
			{"an IPv6-only node in an IPv4 region", nodeOf("gw-b", "b2", `"fd00:2:2::/64"`, "fd01::2"), "Node/b2", "NodeFamilyMismatch", 0},
			{"two nodes of one region with the same address", nodeOf("gw-b", "b2", "10.2.2.0/24", "10.0.1.1"), "Node/b2", "DuplicateNodeIP", 0},
			{"an endpoint that names no node", third, "Gateway/gw-c", "EndpointNodeNotFound", 0},
			{"a peer with a bad key", third + nodeOf("gw-c", "c1", "10.3.1.0/24", "10.0.3.1") +
				"apiVersion: raven.openyurt.io/v1beta1\nkind: TunnelEndpoint\nmetadata: {name: c1}\n" +
				"status: {tunnels: [{driver: wireguard, port: 4500, publicKey: no key}]}\n", "TunnelEndpoint/c1", "PeerKeyInvalid", 0},
			{"YAML that does not parse", "kind: [Gateway", "File/bad.yaml", "NotParsed", 0},
			{"an object that is no manifest of Raven's", "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: busy-box}\n",
				"Deployment/busy-box", "UnknownKind", 0},
		} {
			tunnel := func() float64 {
				return n.metrics("raven_applier_changes_total")[`raven_applier_changes_total{applier="tunnel"}`]
			}
			writes := tunnel()
			n.write("bad.yaml", c.content)
			n.awaitProblem(p, c.object, c.reason)
			if ok, words := n.planned(); !ok {
				t.Errorf("%s: the rest does not work any more: %s", c.name, words)
			}
			if now := tunnel(); now != writes+c.writes {
				t.Errorf("%s: the working tunnel was touched: %g writes", c.name, now-writes)
			}
			n.sh("rm " + n.manifests + "/bad.yaml")
			p.await("the end of the problem with "+c.name, func() (bool, string) {
				m := n.metrics("raven_problem")
				return len(m) == 0, fmt.Sprint(m)
			})
		}

		before := n.kernel()
		n.sh("rm " + n.manifests + "/*")
		n.awaitProblem(p, "Folder/"+filepath.Base(n.manifests), "NothingLeft")
		if after := n.kernel(); after != before {
			t.Errorf("an empty folder changed the kernel:\n%s", difference(before, after))
		}
	})
}

// awaitProblem waits until a problem is named in a metric, in a log line and in the published status.
func (n *node) awaitProblem(p *process, object, reason string) {
	n.t.Helper()
	p.await("the problem "+reason+" of "+object, func() (bool, string) {
		status, err := os.ReadFile(filepath.Join(n.manifests, "tunnelendpoint-a1.yaml"))
		words := fmt.Sprintf("status %s %v", status, err)
		metric := n.metrics("raven_problem")
		if metric[fmt.Sprintf("raven_problem{object=%q,reason=%q}", object, reason)] != 1 {
			return false, fmt.Sprint(metric)
		}
		return strings.Contains(string(status), "object: "+object) && strings.Contains(string(status), "reason: "+reason) &&
			p.logged("object="+object+" reason="+reason), words
	})
}
