package e2e_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/ravencni/raven/bpf"
	"github.com/ravencni/raven/pkg/datapath"
)

const agentLabels = "app.kubernetes.io/component=agent"

// rollingUpdate replaces every agent by one whose maps have another layout, and then goes back. Nothing is lost on the way.
func rollingUpdate(w *world) {
	old, later := fmt.Sprintf("v%d", bpf.ABI), fmt.Sprintf("v%d", bpf.ABI+1)
	early := map[string]string{}
	for _, name := range w.members() {
		link, err := w.linkOf(name, w.podIP("early-"+name))
		w.must(err)
		early[name] = link
	}
	pins := w.pins(old, early)
	w.underTraffic("update", func() { w.replaceAgents("VERSION=" + version() + "-" + nextVersion) })
	if now := w.pins(later, early); now != pins {
		w.Errorf("pins of all nodes before the update:\n%s\nand after it:\n%s", pins, now)
	}
	w.underTraffic("rollback", func() { w.replaceAgents() })
	if now := w.pins(old, early); now != pins {
		w.Errorf("pins of all nodes before the update:\n%s\nand after the rollback:\n%s", pins, now)
	}
	for _, name := range w.members() {
		w.check(w.isAttached(name, w.podIP("early-"+name)))
	}
}

// replaceAgents is another `make deploy`, which has to replace every agent's pod.
func (w *world) replaceAgents(variables ...string) {
	w.Helper()
	old := w.agentPods()
	w.make("deploy", variables...)
	now := w.agentPods()
	for name := range strings.FieldsSeq(old) {
		if strings.Contains(now, name) {
			w.Errorf("the agent's pod %s is still there", name)
		}
	}
}

func (w *world) agentPods() string {
	w.Helper()
	return w.kubectl("-n", "kube-system", "get", "pods", "-l", agentLabels, "-o", "jsonpath={.items[*].metadata.name}")
}

// pins lists what is pinned on each node, but for pods that come and go; there has to be one tree, of this version. early are
// the names of the links at pods that stay.
func (w *world) pins(version string, early map[string]string) string {
	w.Helper()
	var all strings.Builder
	for _, name := range w.members() {
		root := w.nodes[name].Path(datapath.PinRoot)
		trees, err := os.ReadDir(root)
		w.must(err)
		if len(trees) != 1 || trees[0].Name() != version {
			w.Errorf("%s has the trees %v, not %s alone", name, trees, version)
		}
		err = filepath.WalkDir(filepath.Join(root, version), func(path string, d os.DirEntry, err error) error {
			if err == nil && (d.Name() == early[name] || !strings.HasPrefix(d.Name(), podLinks)) {
				fmt.Fprintln(&all, name, strings.TrimPrefix(path, filepath.Join(root, version)))
			}
			return err
		})
		w.must(err)
	}
	return all.String()
}
