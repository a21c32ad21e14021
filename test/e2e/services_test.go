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

// services asks from every node for a server in another region, by each kind of Service and by name, over TCP and UDP. The
// first packet counts: nothing is asked twice, and each pod's own counters must not show that its kernel or resolver did.
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
	for _, name := range w.members() {
		for what, command := range map[string]string{
			"the ClusterIP":                     "wget -qO- http://" + cluster,
			"the headless pod":                  "wget -qO- http://" + w.podIP("web").String() + ":8080",
			"a NodePort of the cloud":           "wget -qO- http://" + w.spec("cloud-2").IP4.String() + ":30080",
			"the name":                          "wget -qO- http://web.default.svc.cluster.local",
			"the headless name":                 "wget -qO- http://web-headless.default.svc.cluster.local:8080",
			"a name, over UDP by a ClusterIP":   lookUp("10.96.0.10"),
			"a name, over UDP of a pod":         lookUp(dns.String()),
			"a name, over UDP by a NodePort":    lookUp(w.spec("cloud-2").IP4.String() + ":30053"),
			"a name, by the gateway's NodePort": lookUp(w.spec("cloud-1").IP4.String() + ":30053"),
			"a name, over UDP by its NodePort":  lookUp(w.spec(name).IP4.String() + ":30053"),
		} {
			w.asksOnce("early-"+name, what, command)
		}
		// From the node itself, by its own NodePort.
		out, err := w.nodes[name].Run(w.within(patience), "busybox", "timeout", "10", "busybox", "wget", "-qO-", fmt.Sprintf("http://%s:30080", w.spec(name).IP4))
		if err != nil || strings.TrimSpace(out) != "the-web-of-hangzhou" {
			w.Errorf("%s asks its own NodePort: %q %v", name, out, err)
		}
	}
}

// lookUp asks a name server, and answers as the web does where it says a pod's address.
func lookUp(server string) string {
	return "nslookup -type=a web-headless.default.svc.cluster.local " + server + ` | grep -q "^Address: 10[.]244[.]19[.]" && echo the-web-of-hangzhou`
}

// asksOnce runs a command in a pod that must print what the web says, with one packet for each question and each SYN.
func (w *world) asksOnce(pod, what, command string) {
	w.Helper()
	const counted = `
		counters() {
			awk '/^Udp:/ { if (++n == 2) print "datagrams", $5 - $2 }' /proc/net/snmp
			awk '/^TcpExt:/ { if (at) print "SYNs again", $at; else for (i = 2; i <= NF; i++) if ($i == "TCPSynRetrans") at = i }' /proc/net/netstat
		}
		before=$(counters)
		timeout 20 sh -c "$1"
		[ "$before" = "$(counters)" ] || echo "unanswered before: $before; afterwards:" $(counters)`
	out, err := w.server.Kubectl(w.within(patience), "", "exec", pod, "--", "sh", "-c", counted, "sh", command)
	if err != nil || strings.TrimSpace(out) != "the-web-of-hangzhou" {
		w.Errorf("%s asks for %s: %s: %q %v", pod, what, command, out, err)
	}
}

// awaitProxies waits until kube-proxy on every node knows of an endpoint.
func (w *world) awaitProxies(endpoint netip.AddrPort) {
	w.Helper()
	for _, name := range w.members() {
		w.must(lab.Await(w.within(patience), fmt.Sprintf("kube-proxy on %s to know %s", name, endpoint), func(ctx context.Context) error {
			out, err := w.nodes[name].Run(ctx, "sh", "-c", "iptables-save -t nat; nft list table ip kube-proxy 2>/dev/null || true")
			if err == nil && !strings.Contains(out, endpoint.String()) {
				err = errors.New("its rules do not name it")
			}
			return err
		}))
	}
}
