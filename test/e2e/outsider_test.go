package e2e_test

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/ravencni/raven/pkg/datapath"
	"github.com/ravencni/raven/test/lab"
)

// outsider is a node in the cloud's network that nobody puts into a region.
const outsider = "cloud-3"

func withOutsider(spec lab.Spec) lab.Spec {
	spec.Regions[0].Nodes = append(spec.Regions[0].Nodes, lab.Node{
		Name: outsider, IP4: netip.MustParseAddr("192.168.0.197"), IP6: netip.MustParseAddr("fd00:192:168::197"),
		Pods4: netip.MustParsePrefix("10.244.22.0/24"), Pods6: netip.MustParsePrefix("fd00:10:244:22::/64"),
	})
	return spec
}

// labelled are the nodes of a region that are in its Gateway.
func labelled(r lab.Region) []lab.Node {
	return slices.DeleteFunc(slices.Clone(r.Nodes), func(n lab.Node) bool { return n.Name == outsider })
}

// members are the nodes in regions.
func (w *world) members() []string {
	return slices.DeleteFunc(w.lab.Nodes(), func(name string) bool { return name == outsider })
}

// leftAlone: on a node of no region Raven has an agent, which says so, and nothing in the kernel. Its pods run.
func leftAlone(w *world) {
	agent := w.kubectl("-n", "kube-system", "get", "pod", "-l", agentLabels, "--field-selector=spec.nodeName="+outsider, "-o", "jsonpath={.items[0].metadata.name}")
	if out := w.kubectl("-n", "kube-system", "exec", agent, "--", "ravenctl", "status"); !strings.Contains(out, "in no region") {
		w.Errorf("on a node of no region ravenctl status prints\n%s", out)
	}
	for _, command := range []string{
		"ip rule", "ip -6 rule", "ip route show table all", "ip -6 route show table all", "ip -o link", "nft list tables",
	} {
		out, err := w.nodes[outsider].Run(w.Context(), "sh", "-c", command)
		w.must(err)
		for _, ours := range []string{"9027", "9028", "raven"} {
			if strings.Contains(out, ours) {
				w.Errorf("%s on a node of no region has %s:\n%s", command, ours, out)
			}
		}
	}
	links, err := filepath.Glob(w.nodes[outsider].Path(filepath.Join(datapath.PinRoot, "*", "links", "*")))
	w.must(err)
	if len(links) > 0 {
		w.Errorf("on a node of no region there are the attachments %v", links)
	}
	const name = "late-" + outsider
	w.apply(sleeper(name, outsider))
	w.kubectl("wait", "pod/"+name, "--for=condition=Ready", "--timeout=3m")
	if out := w.kubectl("exec", name, "--", "ping", w.podIP("early-"+outsider).String(), "-c", "2"); !strings.Contains(out, "0% packet loss") {
		w.Errorf("a pod of no region does not reach one beside it:\n%s", out)
	}
	if _, err := os.Stat(w.nodes[outsider].Path("/var/lib/raven/snapshot.json")); err != nil {
		w.Errorf("the agent of no region keeps no snapshot: %v", err)
	}
}
