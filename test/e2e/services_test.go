package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"

	"github.com/ravencni/raven/test/lab"
)

// web is a server in hangzhou with a ClusterIP, a NodePort and a headless Service.
const web = `
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec:
  nodeName: hangzhou-2
  terminationGracePeriodSeconds: 1
  containers:
  - name: busybox
    image: busybox
    command: [sh, -c, "echo the-web-of-hangzhou >/tmp/index.html; exec httpd -f -p 8080 -h /tmp"]
    readinessProbe: {httpGet: {path: /, port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {type: NodePort, selector: {app: web}, ports: [{port: 80, targetPort: 8080, nodePort: 30080}]}
---
apiVersion: v1
kind: Service
metadata: {name: web-headless}
spec: {clusterIP: None, selector: {app: web}, ports: [{port: 8080}]}
`

// services asks from every node for a server in another region, by each kind of Service and by name. The first packet
// counts: nothing is asked twice.
func services(w *world) {
	w.kubectl("apply", "-f", filepath.Join(w.root, "test/e2e/coredns.yaml"))
	w.apply(web)
	w.kubectl("-n", "kube-system", "rollout", "status", "deployment/coredns", "--timeout=5m")
	w.kubectl("wait", "pod/web", "--for=condition=Ready", "--timeout=5m")
	w.awaitProxies(netip.AddrPortFrom(w.podIP("web"), 8080))
	dns, err := netip.ParseAddr(w.kubectl("-n", "kube-system", "get", "pod", "-l", "k8s-app=kube-dns", "-o", "jsonpath={.items[0].status.podIP}"))
	w.must(err)
	w.awaitProxies(netip.AddrPortFrom(dns, 53))
	cluster := w.jsonPath("service/web", "{.spec.clusterIP}")
	for _, name := range w.lab.Nodes() {
		pod := "early-" + name
		for what, command := range map[string][]string{
			"the ClusterIP":           {"timeout", "10", "wget", "-qO-", "http://" + cluster},
			"the headless pod":        {"timeout", "10", "wget", "-qO-", "http://" + w.podIP("web").String() + ":8080"},
			"a NodePort of the cloud": {"timeout", "10", "wget", "-qO-", "http://" + w.spec("cloud-2").IP4.String() + ":30080"},
			"the name":                {"timeout", "20", "wget", "-qO-", "http://web.default.svc.cluster.local"},
			"the headless name":       {"timeout", "20", "wget", "-qO-", "http://web-headless.default.svc.cluster.local:8080"},
		} {
			out, err := w.server.Kubectl(w.within(patience), "", append([]string{"exec", pod, "--"}, command...)...)
			if err != nil || strings.TrimSpace(out) != "the-web-of-hangzhou" {
				w.Errorf("%s asks for %s: %v: %q %v", pod, what, command, out, err)
			}
		}
		// From the node itself, by its own NodePort.
		out, err := w.nodes[name].Run(w.within(patience), "busybox", "timeout", "10", "busybox", "wget", "-qO-", fmt.Sprintf("http://%s:30080", w.spec(name).IP4))
		if err != nil || strings.TrimSpace(out) != "the-web-of-hangzhou" {
			w.Errorf("%s asks its own NodePort: %q %v", name, out, err)
		}
	}
}

// awaitProxies waits until kube-proxy on every node knows of an endpoint.
func (w *world) awaitProxies(endpoint netip.AddrPort) {
	w.Helper()
	for _, name := range w.lab.Nodes() {
		w.must(lab.Await(w.within(patience), fmt.Sprintf("kube-proxy on %s to know %s", name, endpoint), func(ctx context.Context) error {
			out, err := w.nodes[name].Run(ctx, "sh", "-c", "iptables-save -t nat; nft list table ip kube-proxy 2>/dev/null || true")
			if err == nil && !strings.Contains(out, endpoint.String()) {
				err = errors.New("its rules do not name it")
			}
			return err
		}))
	}
}
