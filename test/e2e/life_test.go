package e2e_test

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cilium/ebpf"

	"github.com/ravencni/raven/bpf"
	"github.com/ravencni/raven/pkg/datapath"
	"github.com/ravencni/raven/pkg/datapath/accel/attach"
	"github.com/ravencni/raven/pkg/datapath/accel/pintree"
	"github.com/ravencni/raven/test/lab"
)

// tree is the folder of the pinned maps and links on a node.
var tree = filepath.Join(datapath.PinRoot, fmt.Sprintf("v%d", bpf.ABI))

// podLinks begins the names of the links at pods.
const podLinks = "raven_from_pod-"

// attached is what the programs of a node know of its pods: their addresses and the devices that are linked.
func (w *world) attached(node string) (map[netip.Addr]pintree.PodEntry, []string, error) {
	pods, err := ebpf.LoadPinnedMap(w.nodes[node].Path(filepath.Join(tree, "raven_pods")), &ebpf.LoadPinOptions{ReadOnly: true})
	if err != nil {
		return nil, nil, fmt.Errorf("open the map of pods on %s: %w", node, err)
	}
	defer pods.Close()
	entries := map[netip.Addr]pintree.PodEntry{}
	var key pintree.Address
	var value pintree.PodEntry
	all := pods.Iterate()
	for all.Next(&key, &value) {
		entries[pintree.AddrOf(key)] = value
	}
	if err := all.Err(); err != nil {
		return nil, nil, fmt.Errorf("read the map of pods on %s: %w", node, err)
	}
	links, err := os.ReadDir(w.nodes[node].Path(filepath.Join(tree, attach.LinksFolder)))
	if err != nil {
		return nil, nil, fmt.Errorf("list the links on %s: %w", node, err)
	}
	var names []string
	for _, l := range links {
		if strings.HasPrefix(l.Name(), podLinks) {
			names = append(names, l.Name())
		}
	}
	return entries, names, nil
}

// isAttached is an error where a pod's packets do not meet our program.
func (w *world) isAttached(node string, ip netip.Addr) error {
	_, err := w.linkOf(node, ip)
	return err
}

// linkOf is the name of the pin by which our program is linked to a pod's device.
func (w *world) linkOf(node string, ip netip.Addr) (string, error) {
	entries, links, err := w.attached(node)
	if err != nil {
		return "", err
	}
	entry, there := entries[ip]
	if !there {
		return "", fmt.Errorf("the map of pods on %s does not have %s", node, ip)
	}
	link := filepath.Base(attach.LinkPath("", attach.Hook{Program: "raven_from_pod", Index: int(entry.Ifindex)}))
	if !slices.Contains(links, link) {
		return "", fmt.Errorf("on %s no program is linked to the device of %s: there is no %s", node, ip, link)
	}
	return link, nil
}

// redirected counts the packets of pods that a node's program has sent on by itself.
func (w *world) redirected(node string) (packets float64) {
	w.Helper()
	for line := range strings.Lines(w.metrics(node)) {
		var n float64
		if strings.HasPrefix(line, "raven_packets_total{") && strings.Contains(line, `verdict="redirect"`) &&
			strings.Contains(line, `from_pod"`) {
			_, value, _ := strings.Cut(line, "} ")
			_, err := fmt.Sscan(value, &n)
			w.must(err)
			packets += n
		}
	}
	return packets
}

// metrics is what the agent on a node serves.
func (w *world) metrics(node string) string {
	w.Helper()
	out, err := w.nodes[node].Run(w.Context(), "busybox", "wget", "-qO-", "http://127.0.0.1:10265/metrics")
	w.must(err)
	return out
}

// earlyPodsAreAccelerated: what ran before Raven came is accelerated without a restart.
func earlyPodsAreAccelerated(w *world) {
	for _, name := range w.members() {
		ip := w.podIP("early-" + name)
		w.must(lab.Await(w.within(patience), "the pod that was on "+name+" before Raven to be attached", func(context.Context) error {
			return w.isAttached(name, ip)
		}))
		if restarts := w.jsonPath("pod/early-"+name, "{.status.containerStatuses[0].restartCount}"); restarts != "0" {
			w.Errorf("the pod on %s was restarted %s times", name, restarts)
		}
	}
	before := w.redirected("hangzhou-2")
	w.transfer("early-hangzhou-2", "early-qingdao-2")
	if after := w.redirected("hangzhou-2"); after < before+20 { // 64 KiB a piece, and acknowledgements
		w.Errorf("%g packets of a pod on hangzhou-2 were redirected before it sent 4 MiB, %g after", before, after)
	}
}

// transfer has a pod fetch 4 MiB by HTTP from another.
func (w *world) transfer(from, to string) {
	w.Helper()
	const size = 4 << 20
	w.kubectl("exec", from, "--", "sh", "-c", fmt.Sprintf("head -c %d /dev/zero >/tmp/blob && httpd -p 7000 -h /tmp", size))
	out := w.kubectl("exec", to, "--", "sh", "-c", fmt.Sprintf("timeout 60 wget -qO- http://%s:7000/blob | wc -c", w.podIP(from)))
	if strings.TrimSpace(out) != fmt.Sprint(size) {
		w.Errorf("%s of %d bytes came from %s to %s", strings.TrimSpace(out), size, from, to)
	}
	w.kubectl("exec", from, "--", "killall", "httpd")
}

// podsWithoutAgents: the agents' DaemonSet is deleted by hand. Pods start as ever, are accelerated, reach other regions, and
// leave nothing.
func podsWithoutAgents(w *world) {
	w.kubectl("-n", "kube-system", "delete", "daemonset", "raven-agent-ds", "--cascade=foreground", "--timeout=5m")
	nodes := []string{"hangzhou-1", "hangzhou-2", "qingdao-2"}
	w.settle()
	before := map[string]remains{}
	for _, name := range nodes {
		r, err := w.remains(name)
		w.must(err)
		before[name] = r
		w.apply(sleeper("alone-"+name, name))
	}
	for _, name := range nodes {
		w.kubectl("wait", "pod/alone-"+name, "--for=condition=Ready", "--timeout=5m")
		ip := w.podIP("alone-" + name)
		w.await("the plugin to have attached the pod on "+name, func(context.Context) error { return w.isAttached(name, ip) })
	}
	w.pingPod("alone-hangzhou-2", "alone-qingdao-2", "59")
	w.transfer("alone-hangzhou-2", "alone-qingdao-2")
	for _, name := range nodes {
		w.kubectl("delete", "pod", "alone-"+name)
		w.await("nothing of the pod to be left on "+name, func(context.Context) error {
			now, err := w.remains(name)
			if err != nil {
				return err
			}
			return before[name].same(now)
		})
	}
}
