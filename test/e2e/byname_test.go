package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ravencni/raven/test/lab"
)

// namesakes is the tutorial's cluster whose three regions have one another's subnet and node addresses.
func namesakes() lab.Spec {
	s := lab.Tutorial()
	cloud := s.Regions[0]
	for r := range s.Regions {
		s.Regions[r].LAN4 = cloud.LAN4
		for i := range s.Regions[r].Nodes {
			s.Regions[r].Nodes[i].IP4 = cloud.Nodes[i].IP4
		}
	}
	return s
}

// edges are the nodes that have namesakes in every other region.
var edges = []string{"hangzhou-1", "hangzhou-2", "qingdao-1", "qingdao-2"}

// egressSelector follows docs/proxy.md: a certificate, the file, the name server, and the API server's flags.
func egressSelector(w *world) {
	folder := filepath.Join(w.lab.Dir, "raven")
	w.must(os.Mkdir(folder, 0o700))
	script := fmt.Sprintf("export PATH=%s:$PATH; cd %s\n%s", w.server.Binaries(), folder, w.documented("docs/proxy.md", "openssl ecparam"))
	w.run("certificate", "bash", "-euc", script)
	manifest, err := os.ReadFile(filepath.Join(w.root, "manifests/proxy/egress-selector.yaml"))
	w.must(err)
	config := strings.NewReplacer("PROXY_ADDRESS", w.spec(master).IP4.String(), "/etc/kubernetes/raven", folder).Replace(string(manifest))
	selector := filepath.Join(folder, "egress-selector.yaml")
	w.must(os.WriteFile(selector, []byte(config), 0o600))

	w.kubectl("apply", "-f", filepath.Join(w.root, "manifests/proxy/coredns.yaml"))
	w.kubectl("-n", "kube-system", "rollout", "status", "deployment/raven-dns", "--timeout=5m")
	server := w.kubectl("-n", "kube-system", "get", "service", "raven-dns", "-o", "jsonpath={.spec.clusterIP}")
	resolver := filepath.Join(folder, "resolv.conf")
	w.must(os.WriteFile(resolver, []byte("nameserver "+server+"\n"), 0o644))
	// The API server shares the test's files. It stays so until the test ends, and the enclosure with it.
	w.must(unix.Mount(resolver, "/etc/resolv.conf", "", unix.MS_BIND, ""))

	w.restartAPIServer("--egress-selector-config-file=" + selector)
}

// restartAPIServer has the API server ask for nodes by name.
func (w *world) restartAPIServer(flags ...string) {
	w.Helper()
	w.must(w.server.StopAPIServer())
	w.server.SetAPIServer(append(flags, "--kubelet-preferred-address-types=Hostname,InternalIP")...)
	w.must(w.server.StartAPIServer(w.Context()))
}

// byDNS is the other way of docs/proxy.md: names lead to the internal Service, and TLS to kubelets carries a server name. What
// names nobody is refused, counted and explained; then the egress selector is back.
func byDNS(w *world) {
	authority := filepath.Join(w.lab.Dir, "kubelets.crt")
	w.must(os.WriteFile(authority, w.server.Authority(), 0o600))
	connect := w.streams("connect")
	w.restartAPIServer("--kubelet-certificate-authority=" + authority)
	w.kubectlReaches("dns")
	if now := w.streams("connect"); now != connect {
		w.Errorf("%v streams went by the egress selector", now-connect)
	}

	w.restartAPIServer()
	const refused = `raven_proxy_refused_total{front="tls",reason="no-server-name"}`
	before := w.metric(refused)
	if out, err := w.server.Kubectl(w.within(patience), "", "exec", "dns-hangzhou-2", "--", "hostname"); err == nil {
		w.Errorf("a request without a server name reaches %s", out)
	}
	if w.metric(refused) <= before {
		w.Error("what had no server name was not counted")
	}
	agent := w.kubectl("-n", "kube-system", "get", "pod", "-l", agentLabels, "--field-selector=spec.nodeName="+master, "-o", "jsonpath={.items[0].metadata.name}")
	// Its status tells of other findings, too.
	out, err := w.server.Kubectl(w.within(patience), "", "-n", "kube-system", "exec", agent, "--", "ravenctl", "doctor")
	for _, said := range []string{"no-server-name", "--kubelet-certificate-authority"} {
		if !strings.Contains(strings.Join(strings.Fields(out), " "), said) {
			w.Errorf("ravenctl doctor does not say %s: %v\n%s", said, err, out)
		}
	}
	w.restartAPIServer("--egress-selector-config-file=" + filepath.Join(w.lab.Dir, "raven", "egress-selector.yaml"))
}

// bySelector has kubectl reach every edge node by the egress selector.
func bySelector(w *world) { w.kubectlReaches("selector") }

// kubectlReaches has kubectl ask for all that goes through the API server to a kubelet, of a new pod on each edge node. Each node
// answers for itself.
func (w *world) kubectlReaches(way string) {
	w.Helper()
	for _, node := range edges {
		w.apply(fmt.Sprintf(`{apiVersion: v1, kind: Pod, metadata: {name: %[2]s-%[1]s}, spec: {nodeName: %[1]s, terminationGracePeriodSeconds: 1,
			containers: [{name: busybox, image: busybox, command: [sh, -c,
			"echo first of %[1]s; mkdir /tmp/www; echo web of %[1]s >/tmp/www/index.html; exec httpd -f -p 8080 -h /tmp/www"]}]}}`, node, way))
	}
	for _, node := range edges {
		pod := way + "-" + node
		w.kubectl("wait", "pod/"+pod, "--for=condition=Ready", "--timeout=3m")
		w.await("kubectl exec on "+node, func(ctx context.Context) error { // until the edge has dialled the cloud
			_, err := w.server.Kubectl(ctx, "", "exec", pod, "--", "true")
			return err
		})
		for what, c := range map[string]struct{ command, want string }{
			"exec":    {"exec " + pod + " -- hostname", pod + "\n"},
			"logs":    {"logs " + pod, "first of " + node + "\n"},
			"metrics": {"get --raw /api/v1/nodes/" + node + "/proxy/metrics", fmt.Sprintf("kubelet_node_name{node=%q} 1\n", node)},
		} {
			out, err := w.server.Kubectl(w.within(patience), "", strings.Fields(c.command)...)
			if err != nil || out != c.want && (what != "metrics" || !strings.Contains(out, c.want)) {
				w.Errorf("%s of %s: %v: %.200q", what, node, err, out)
			}
		}
		w.follow(pod, node)
		w.forward(pod, node)
		w.copies(pod, node)
	}
}

// background is a kubectl that runs until it is ended.
func (w *world) background(args ...string) (output *written, end func()) {
	w.Helper()
	ctx, cancel := context.WithCancel(w.Context())
	cmd := exec.CommandContext(ctx, filepath.Join(w.server.Binaries(), "kubectl"), args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+w.server.AdminKubeconfig(), "HOME="+w.lab.Dir)
	output = &written{}
	cmd.Stdout, cmd.Stderr = output, output
	w.must(w.lab.Host(master).Do(cmd.Start))
	return output, func() {
		cancel()
		_ = cmd.Wait() // it was killed
	}
}

// says waits until a program has said something, and returns it.
func (w *world) says(output *written, what *regexp.Regexp) []string {
	w.Helper()
	var found []string
	w.await(fmt.Sprintf("%q", what), func(context.Context) error {
		if found = what.FindStringSubmatch(output.String()); found == nil {
			return fmt.Errorf("it says %q", output)
		}
		return nil
	})
	return found
}

// follow is logs -f: what the pod says while somebody looks arrives.
func (w *world) follow(pod, node string) {
	w.Helper()
	output, end := w.background("logs", "-f", pod)
	defer end()
	w.says(output, regexp.MustCompile(`^first of `+node+"\n"))
	w.kubectl("exec", pod, "--", "sh", "-c", "echo second of "+node+" >/proc/1/fd/1")
	w.says(output, regexp.MustCompile(`^first of `+node+"\nsecond of "+node+"\n$"))
}

// forward is port-forward.
func (w *world) forward(pod, node string) {
	w.Helper()
	output, end := w.background("port-forward", "pod/"+pod, ":8080")
	defer end()
	port := w.says(output, regexp.MustCompile(`Forwarding from 127\.0\.0\.1:(\d+) -> 8080`))[1]
	out, err := w.nodes[master].Run(w.within(patience), "busybox", "timeout", "20", "busybox", "wget", "-qO-", "http://127.0.0.1:"+port)
	if err != nil || out != "web of "+node+"\n" {
		w.Errorf("through port-forward %s answers %q: %v", node, out, err)
	}
}

// copies is cp, both ways.
func (w *world) copies(pod, node string) {
	w.Helper()
	sent, back := filepath.Join(w.lab.Dir, "sent-"+pod), filepath.Join(w.lab.Dir, "back-"+pod)
	content := strings.Repeat("for "+node+" alone\n", 20000)
	w.must(os.WriteFile(sent, []byte(content), 0o600))
	w.kubectl("cp", sent, pod+":/tmp/copied")
	w.kubectl("cp", pod+":/tmp/copied", back)
	returned, err := os.ReadFile(back)
	w.must(err)
	if string(returned) != content {
		w.Errorf("of %d bytes that were copied to %s came back %d: %.100q", len(content), node, len(returned), returned)
	}
}

// namesakesTalk: pods reach one another by their addresses; those of their nodes are routed nowhere, and named.
func namesakesTalk(w *world) {
	address := w.spec("qingdao-2").IP4.String()
	for _, r := range w.lab.Spec.Regions {
		w.await("gw-"+r.Name+" to name a conflict", func(ctx context.Context) error {
			out, err := w.server.Kubectl(ctx, "", "get", "gateway", "gw-"+r.Name, "-o", `jsonpath={.status.conditions[?(@.type=="CIDRConflict")].message}`)
			if err == nil && !strings.Contains(out, address) {
				err = errors.New("it says " + out)
			}
			return err
		})
	}
	w.pingPod("early-hangzhou-2", "early-qingdao-2", "59")
	w.pingPod("early-qingdao-1", "early-hangzhou-1", "61")
	w.pingPod("early-qingdao-2", "early-hangzhou-1", "60")
	for _, name := range w.lab.Nodes() {
		out, err := w.nodes[name].Run(w.Context(), "ip", "route", "show", "table", "9027")
		w.must(err)
		for line := range strings.Lines(out) {
			if strings.HasPrefix(line, "192.168.0.") {
				w.Errorf("%s routes a conflicting address: %s", name, line)
			}
		}
	}
}
