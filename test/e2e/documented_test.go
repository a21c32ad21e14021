package e2e_test

import (
	"os"
	"path/filepath"
	"strings"
)

// documented is the block of a page, indented or between fences, that begins with a line; it goes up to the block's end.
func (w *world) documented(page, begin string) string {
	w.Helper()
	text, err := os.ReadFile(filepath.Join(w.root, page))
	w.must(err)
	var block strings.Builder
	inside, indent := false, ""
	for line := range strings.Lines(string(text)) {
		words := strings.TrimLeft(line, " ")
		if !inside && strings.HasPrefix(words, begin) {
			inside, indent = true, line[:len(line)-len(words)]
		}
		if inside && (!strings.HasPrefix(line, indent) || strings.HasPrefix(words, "```")) {
			break
		}
		if inside {
			block.WriteString(strings.TrimPrefix(line, indent))
		}
	}
	if !inside {
		w.Fatalf("%s has no block that begins with %q", page, begin)
	}
	return block.String()
}

// toolsFromAnywhere runs what the docs show for a person with kubectl's rights, on no node in particular.
func toolsFromAnywhere(w *world) {
	from, to := w.podIP("early-hangzhou-2").String(), w.podIP("early-qingdao-2").String()
	bench, _, _ := strings.Cut(w.documented("README.md", "ravenctl bench"), "\n")
	agent := w.kubectl("-n", "kube-system", "get", "pod", "-l", agentLabels, "-o", "jsonpath={.items[0].metadata.name}")
	script := strings.NewReplacer("edge-1", "hangzhou-2", "<raven-agent-ds-...>", agent, "10.244.19.3", from, "10.244.17.19", to).Replace(
		w.documented("docs/troubleshoot.md", "ravenctl doctor --node") + bench + "\n" +
			w.documented("docs/install.md", "kubectl -n kube-system get pods -l app.kubernetes.io/part-of=raven"))
	for line := range strings.Lines(script) {
		out := w.run("documented", "bash", "-euo", "pipefail", "-c", "export PATH="+w.root+"/bin:"+w.server.Binaries()+":$PATH; cd "+w.lab.Dir+"\n"+line)
		if strings.Contains(line, ">") == (out != "") {
			w.Errorf("%s prints %q", line, out)
		}
	}
}
