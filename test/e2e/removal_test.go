package e2e_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/ravencni/raven/test/cluster/node"
)

// undeploy is `make undeploy`: every node is as it was, and its pods go on.
func undeploy(w *world) { w.removed("make-undeploy", func() { w.make("undeploy") }) }

// undeployWithoutAgents is the same after somebody has deleted the agents' DaemonSet by hand. Then all is deployed again.
func undeployWithoutAgents(w *world) {
	w.removed("by-hand", func() {
		if out := w.make("undeploy"); !strings.Contains(out, "somebody has deleted raven-agent-ds") {
			w.Errorf("make undeploy does not say what it found:\n%s", out)
		}
	})
	w.make("deploy", "VPN_DRIVER=wireguard")
	for _, name := range w.members() {
		w.await("the pod that was on "+name+" all the time to be attached again", func(context.Context) error {
			return w.isAttached(name, w.podIP("early-"+name))
		})
	}
	w.pingPod("early-hangzhou-2", "early-qingdao-2", "59")
}

// removed takes Raven away in some way and looks at every node. New pods start without a restart of anything.
func (w *world) removed(how string, remove func()) {
	w.Helper()
	before := map[string]string{}
	for _, name := range w.lab.Nodes() {
		before[name] = w.jsonPath("pod/early-"+name, "{.status.containerStatuses[0].containerID}")
		if conflist := w.readConflist(name); !strings.Contains(conflist, `"raven-cni"`) {
			w.Errorf("%s had no raven-cni in its list:\n%s", name, conflist)
		}
	}
	remove()
	for _, name := range w.lab.Nodes() {
		w.restored(name)
		if now := w.jsonPath("pod/early-"+name, "{.status.containerStatuses[0].containerID}"); now != before[name] {
			w.Errorf("the pod on %s was container %s and is %s", name, before[name], now)
		}
		w.apply(sleeper("after-"+how+"-"+name, name))
	}
	for _, name := range w.lab.Nodes() {
		w.kubectl("wait", "pod/after-"+how+"-"+name, "--for=condition=Ready", "--timeout=5m")
	}
}

func (w *world) readConflist(name string) string {
	w.Helper()
	content, err := os.ReadFile(w.nodes[name].Path(filepath.Join(node.ConflistFolder, node.ConflistFile)))
	w.must(err)
	return string(content)
}

// restored holds a node to what it was before the installation.
func (w *world) restored(name string) {
	w.Helper()
	n := w.nodes[name]
	if got, want := w.readConflist(name), w.listOf(name); got != want {
		w.Errorf("the list on %s is\n%s\nand was\n%s", name, got, want)
	}
	files, err := os.ReadDir(n.Path(node.ConflistFolder))
	w.must(err)
	if len(files) != 1 {
		w.Errorf("%s has %v in %s", name, files, node.ConflistFolder)
	}
	for _, path := range []string{filepath.Join(node.PluginFolder, "raven-cni"), "/sys/fs/bpf/raven"} {
		if _, err := os.Lstat(n.Path(path)); !errors.Is(err, fs.ErrNotExist) {
			w.Errorf("%s still has %s (%v)", name, path, err)
		}
	}
	links, err := n.Netlink().LinkList()
	w.must(err)
	for _, l := range links {
		if strings.HasPrefix(l.Attrs().Name, "raven") {
			w.Errorf("%s still has the device %s", name, l.Attrs().Name)
		}
	}
	for what, args := range map[string][]string{
		"a rule": {"ip", "rule", "show"}, "the nft table": {"nft", "list", "tables"},
	} {
		out, err := n.Run(w.Context(), args[0], args[1:]...)
		w.must(err)
		if strings.Contains(out, "raven") || strings.Contains(out, "9027") {
			w.Errorf("%s still has %s:\n%s", name, what, out)
		}
	}
}
