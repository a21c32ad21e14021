package e2e_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/ravencni/raven/test/lab"
)

// podsBeforeRaven starts a pod on each node: what an existing cluster has when Raven comes.
func podsBeforeRaven(w *world) {
	for _, name := range w.lab.Nodes() {
		w.apply(sleeper("early-"+name, name))
	}
	w.kubectl("wait", "pod", "-l", "app=sleeper", "--for=condition=Ready", "--timeout=5m")
	for _, name := range w.lab.Nodes() {
		if ip := w.podIP("early-" + name); !w.spec(name).Pods4.Contains(ip) {
			w.Errorf("the pod on %s has the address %s, which is not of %s", name, ip, w.spec(name).Pods4)
		}
	}
}

// sleeper is a pod on a node, which no scheduler decides about.
func sleeper(name, node string) string {
	return fmt.Sprintf(`{apiVersion: v1, kind: Pod, metadata: {name: %s, labels: {app: sleeper}}, spec: {nodeName: %s,
		terminationGracePeriodSeconds: 1, containers: [{name: busybox, image: busybox, command: [sleep, "100000"]}]}}`, name, node)
}

// deploy is `make deploy` as a user calls it, on the machine with kubectl's configuration: IPsec.
func deploy(w *world) {
	w.label()
	w.make("deploy")
	w.agentsRun()
}

// label puts the nodes into their regions.
func (w *world) label() {
	w.Helper()
	for _, r := range w.lab.Spec.Regions {
		args := []string{"label", "nodes"}
		for _, n := range labelled(r) {
			args = append(args, n.Name)
		}
		out := w.kubectl(append(args, "raven.openyurt.io/gateway=gw-"+r.Name)...)
		for _, n := range labelled(r) {
			if !strings.Contains(out, "node/"+n.Name+" labeled\n") {
				w.Errorf("kubectl label prints\n%s", out)
			}
		}
	}
}

// agentsRun holds what kubectl prints of the agents to what the tutorial shows.
func (w *world) agentsRun() {
	w.Helper()
	out := w.kubectl("get", "pod", "-n", "kube-system")
	agents := 0
	for line := range strings.Lines(out) {
		if strings.HasPrefix(line, "raven-agent-ds-") {
			agents++
			if !regexp.MustCompile(`^raven-agent-ds-\w{5}\s+1/1\s+Running\s`).MatchString(line) {
				w.Errorf("kubectl get pod | grep raven-agent-ds prints %s", line)
			}
		}
	}
	if agents != len(w.lab.Nodes()) {
		w.Errorf("%d agents on %d nodes:\n%s", agents, len(w.lab.Nodes()), out)
	}
}

// make runs one of the Makefile's targets against the cluster.
func (w *world) make(target string, variables ...string) string {
	w.Helper()
	return w.run("make-"+target, "make", append([]string{"-C", w.root, target,
		"KUBECTL=" + filepath.Join(w.server.Binaries(), "kubectl"), "VERSION=" + version()}, variables...)...)
}

// run runs a program beside the API server, as the cluster's admin, and returns what it prints; log names the file that keeps it.
func (w *world) run(log, program string, args ...string) string {
	w.Helper()
	cmd := exec.CommandContext(w.within(3*patience), program, args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+w.server.AdminKubeconfig(), "MAKEFLAGS=",
		"HELM_CACHE_HOME="+w.lab.Dir, "HELM_CONFIG_HOME="+w.lab.Dir, "HELM_DATA_HOME="+w.lab.Dir)
	file, err := os.Create(filepath.Join(w.logs(), log+".log"))
	w.must(err)
	defer file.Close()
	cmd.Stdout, cmd.Stderr = file, file
	err = w.lab.Host(master).Do(cmd.Start)
	if err == nil {
		err = cmd.Wait()
	}
	content, readErr := os.ReadFile(file.Name())
	w.must(readErr)
	if err != nil {
		w.Fatalf("%s %v: %v\n%s", program, args, err, content)
	}
	return string(content)
}

// applyGateways applies the tutorial's Gateways and waits until all say that they are ready.
func applyGateways(w *world) {
	for _, r := range w.lab.Spec.Regions {
		w.kubectl("apply", "-f", filepath.Join(w.lab.Manifests(), "gateway-"+r.Name+".yaml"))
	}
	for _, r := range w.lab.Spec.Regions {
		w.kubectl("wait", "gateway/gw-"+r.Name, "--for=condition=Ready", "--timeout=3m")
		if got := w.jsonPath("gateway/gw-"+r.Name, "{.status.activeEndpoints[*].nodeName}"); got != r.Gateway().Name+" "+r.Gateway().Name {
			w.Errorf("gw-%s has the active endpoints %q", r.Name, got)
		}
		var nodes []string
		for _, n := range labelled(r) {
			nodes = append(nodes, fmt.Sprintf("%s %s [%q]", n.Name, n.IP4, n.Pods4))
		}
		got := w.jsonPath("gateway/gw-"+r.Name, `{range .status.nodes[*]}{.nodeName} {.privateIP} {.subnets}{"\n"}{end}`)
		if got != strings.Join(nodes, "\n")+"\n" {
			w.Errorf("gw-%s has the nodes %q, want %q", r.Name, got, nodes)
		}
	}
	out := w.kubectl("get", "gateways")
	for _, r := range w.lab.Spec.Regions {
		if !strings.Contains(out, "\ngw-"+r.Name+" ") {
			w.Errorf("kubectl get gateways prints\n%s", out)
		}
	}
}

func (w *world) jsonPath(object, path string) string {
	w.Helper()
	return w.kubectl("get", object, "-o", "jsonpath="+path)
}

const busyBox = `apiVersion: apps/v1
kind: Deployment
metadata:
  name: busy-box
spec:
  replicas: 4
  selector:
    matchLabels:
      app: busy-box
  template:
    metadata:
      labels:
        app: busy-box
    spec:
      containers:
      - name: busy-box
        image: busybox
        command:
        - /bin/sh
        - -c
        - sleep 3000
      nodeSelector:
        openyurt.io/is-edge-worker: "true"
`

// pingAcrossEdges is the tutorial's own test: from a pod of hangzhou's member to one of qingdao's.
func pingAcrossEdges(w *world) {
	w.apply(busyBox)
	w.kubectl("rollout", "status", "deployment/busy-box", "--timeout=5m")
	w.pingPod(w.podOn("busy-box", "hangzhou-2"), w.podOn("busy-box", "qingdao-2"), "59") // as the tutorial prints it
	// The pods that were there before.
	w.pingPod("early-hangzhou-2", "early-qingdao-2", "59")
	w.pingPod("early-cloud-2", "early-hangzhou-2", "60")
	w.pingPod("early-qingdao-2", "early-cloud-2", "60")
}

// podOn is the name of the app's pod on a node.
func (w *world) podOn(app, node string) string {
	w.Helper()
	name := w.kubectl("get", "pod", "-l", "app="+app, "--field-selector=spec.nodeName="+node, "-o", "jsonpath={.items[0].metadata.name}")
	if name == "" {
		w.Fatalf("no pod of %s runs on %s", app, node)
	}
	return name
}

// pingPod pings from a pod to another, with what is left of a time to live of 64.
func (w *world) pingPod(from, to, ttl string) {
	w.Helper()
	ip := w.podIP(to)
	w.must(lab.Await(w.within(patience), fmt.Sprintf("a ping from %s to %s (%s)", from, to, ip), func(ctx context.Context) error {
		_, err := w.server.Kubectl(ctx, "", "exec", from, "--", "ping", ip.String(), "-c", "1", "-W", "2")
		return err
	}))
	out := w.kubectl("exec", from, "--", "ping", ip.String(), "-c", "4")
	if !strings.Contains(out, "4 packets transmitted, 4 packets received, 0% packet loss") || !strings.Contains(out, " ttl="+ttl+" ") {
		w.Errorf("ping from %s to %s prints\n%s", from, to, out)
	}
}

// nodesPingAcrossEdges pings from hangzhou's member to qingdao's and watches raven0 of three nodes.
func nodesPingAcrossEdges(w *world) {
	from, to := w.spec("hangzhou-2").IP4, w.spec("qingdao-2").IP4
	var captures []*lab.Capture
	for _, name := range []string{"hangzhou-1", "qingdao-1", "qingdao-2"} {
		c, err := w.lab.Host(name).Capture("raven0")
		w.must(err)
		captures = append(captures, c)
	}
	out, err := w.nodes["hangzhou-2"].Run(w.within(patience), "ping", to.String(), "-c", "4")
	w.must(err)
	for i, request := range []bool{true, false, false} {
		packets, err := captures[i].Stop()
		w.must(err)
		src, dst, kind := to, from, uint8(0) // an echo reply
		if request {
			src, dst, kind = from, to, 8
		}
		seen := 0
		for _, p := range packets {
			if p.Src == src && p.Dst == dst && p.Protocol == lab.ICMP && p.ICMPType == kind {
				seen++
			}
		}
		if seen < 4 {
			w.Errorf("raven0 of %s shows %d of 4 packets", []string{"hangzhou-1", "qingdao-1", "qingdao-2"}[i], seen)
		}
	}
	if !strings.Contains(out, "4 packets transmitted, 4 received, 0% packet loss") || !strings.Contains(out, "ttl=61") {
		w.Errorf("ping prints\n%s", out)
	}
}
