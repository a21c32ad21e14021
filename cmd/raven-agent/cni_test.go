package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestTheAgentInstallsTheCNIPluginAndTheCleanupTakesItAway(t *testing.T) {
	const list = `{"cniVersion": "1.0.0", "name": "pods", "plugins": [ {"type": "ptp", "x": 1} ] }` + "\n"
	onNode(t, func(t *testing.T, n *node) {
		dir := t.TempDir()
		conf, bin, plugin := filepath.Join(dir, "net.d"), filepath.Join(dir, "bin"), filepath.Join(dir, "plugin")
		path := filepath.Join(conf, "10-pods.conflist")
		for _, err := range []error{os.Mkdir(conf, 0o755), os.WriteFile(path, []byte(list), 0o644), os.WriteFile(plugin, []byte("binary"), 0o755)} {
			if err != nil {
				t.Fatal(err)
			}
		}
		read := func() string {
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			return string(b)
		}
		flags := []string{"--cni-conf-dir=" + conf, "--cni-bin-dir=" + bin, "--cni-plugin=" + plugin}
		p := n.start(flags...)
		installed := func() (bool, string) { return strings.Contains(read(), "raven-cni"), read() }
		n.await("the plugin in the list", installed)
		p.awaitReady()
		if b, err := os.ReadFile(filepath.Join(bin, "raven-cni")); err != nil || string(b) != "binary" {
			t.Errorf("binary %q, %v", b, err)
		}
		// Somebody writes the list anew: it is repaired, and the node says who.
		if err := os.WriteFile(path, []byte(list), 0o644); err != nil {
			t.Fatal(err)
		}
		n.await("the repair", installed)
		n.await("the problem", func() (bool, string) {
			text := n.sh("cat " + n.manifests + "/*")
			return strings.Contains(text, "CNIConfigRewritten") && strings.Contains(text, "most likely the installer of ptp"), text
		})
		p.end(syscall.SIGTERM)
		if ok, text := installed(); !ok {
			t.Errorf("ending the agent changed the list: %s", text)
		}
		out, code := n.run(append([]string{"--cleanup"}, flags...)...)
		if code != 0 || !strings.Contains(out, "removed raven-cni from the CNI configuration") || read() != list {
			t.Errorf("the cleanup ended with %d:\n%s\nleft %s", code, out, read())
		}
		lines := strings.Split(strings.TrimSpace(out), "\n")
		if last := lines[len(lines)-1]; last != "removed "+filepath.Join(bin, "raven-cni") {
			t.Errorf("the last line is %q, not the binary's", last)
		}
	})
}
