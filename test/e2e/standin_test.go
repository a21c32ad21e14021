package e2e_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// standIn starts a pod with test/e2e/cmd/standin on a node, in the node's own network or in one of its own, and waits for it.
func (w *world) standIn(name, node string, ownNetwork bool, hosts []string, args ...string) {
	w.Helper()
	certificate, key, err := w.server.IssueServer(hosts...)
	w.must(err)
	secret := func(content []byte) string { return base64.StdEncoding.EncodeToString(content) }
	w.apply(fmt.Sprintf(`
apiVersion: v1
kind: Secret
metadata: {name: %[1]s}
data: {tls.crt: %[2]s, tls.key: %[3]s, ca.crt: %[4]s}
---
apiVersion: v1
kind: Pod
metadata: {name: %[1]s, labels: {app: %[1]s}}
spec:
  nodeName: %[5]s
  hostNetwork: %[6]t
  terminationGracePeriodSeconds: 1
  containers: [{name: standin, image: "raven-test/standin:e2e", args: ["--name=%[5]s", "%[7]s"], volumeMounts: [{name: tls, mountPath: /tls}]}]
  volumes: [{name: tls, secret: {secretName: %[1]s}}]
`, name, secret(certificate), secret(key), secret(w.server.Authority()), node, !ownNetwork, strings.Join(args, `", "`)))
	w.kubectl("wait", "pod/"+name, "--for=condition=Ready", "--timeout=3m")
}

// curlReaches asks a server on each edge node by the commands of docs/proxy.md, from a node of the cloud that is no proxy. Only
// the node of that name may answer: its namesakes in other regions listen at the same addresses and ports.
func curlReaches(w *world) {
	for _, node := range edges {
		w.standIn("served-by-"+node, node, false, []string{node}, "--http=10255,9445", "--https=9100")
	}
	const from = "cloud-2"
	authority := filepath.Join(w.lab.Dir, "authority.crt")
	w.must(os.WriteFile(authority, w.server.Authority(), 0o644))
	service := w.kubectl("-n", "kube-system", "get", "service", "x-raven-proxy-internal-svc", "-o", "jsonpath={.spec.clusterIP}")
	hosts := fmt.Sprintf("127.0.0.1 localhost\n%s x-raven-proxy-internal-svc.kube-system.svc\n", service) // as a pod resolves it
	w.must(os.WriteFile(w.nodes[from].Path("/etc/hosts"), []byte(hosts), 0o644))
	commands := w.documented("docs/proxy.md", "curl --connect-to ::x-raven")
	for _, node := range edges {
		for _, port := range []string{"10255", "9445"} {
			asked := strings.NewReplacer("hangzhou-2", node, "10255", port).Replace(commands)
			script := fmt.Sprintf("curl() { command curl -sS --max-time 20 --cacert %s \"$@\"; }\n%s", authority, asked)
			want := node + "\n" + node + "\n"
			w.await("curl of "+node, func(ctx context.Context) error { // kube-proxy and the edge's tunnel may be a moment behind
				out, err := w.nodes[from].Run(ctx, "bash", "-euc", script)
				if err == nil && out != want {
					err = fmt.Errorf("%s prints %q, not %q", asked, out, want)
				}
				return err
			})
		}
	}
}

// behindAPIServer has the API server call a webhook and an aggregated API through the egress selector. The pod is one of the cloud:
// where all nodes have namesakes, no answer of an edge finds its way back to a node by its address.
func behindAPIServer(w *world) {
	const name, node = "standin", "cloud-2"
	w.standIn(name, node, true, []string{name + ".default.svc"}, "--https=8443", "--nodes="+strings.Join(w.lab.Nodes(), ","))
	authority := base64.StdEncoding.EncodeToString(w.server.Authority())
	before := w.streams("connect")
	w.apply(fmt.Sprintf(`
apiVersion: v1
kind: Service
metadata: {name: %[1]s}
spec: {selector: {app: %[1]s}, ports: [{port: 443, targetPort: 8443}]}
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingWebhookConfiguration
metadata: {name: %[1]s}
webhooks:
- name: standin.raven.test
  clientConfig: {caBundle: %[2]s, service: {name: %[1]s, namespace: default, path: /validate}}
  rules: [{apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [configmaps]}]
  objectSelector: {matchLabels: {asked: standin}}
  sideEffects: None
  admissionReviewVersions: [v1]
---
apiVersion: apiregistration.k8s.io/v1
kind: APIService
metadata: {name: v1beta1.metrics.k8s.io}
spec: {group: metrics.k8s.io, version: v1beta1, service: {name: %[1]s, namespace: default}, caBundle: %[2]s, groupPriorityMinimum: 100, versionPriority: 100}
`, name, authority))
	asked := func(ctx context.Context, wanted bool) error {
		_, err := w.server.Kubectl(ctx, fmt.Sprintf(`{apiVersion: v1, kind: ConfigMap, metadata: {name: asked-%[1]t, labels: {asked: standin}, annotations: {wanted: "%[1]t"}}}`, wanted),
			"apply", "-f", "-")
		return err
	}
	w.await("the webhook to refuse", func(ctx context.Context) error {
		err := asked(ctx, false)
		switch {
		case err == nil:
			return errors.New("what it refuses was let in")
		case !strings.Contains(err.Error(), "refused by the webhook of "+node):
			return err
		}
		return nil
	})
	w.must(asked(w.Context(), true))
	w.await("kubectl top", func(ctx context.Context) error { // until the API server has seen the new API answer
		out, err := w.server.Kubectl(ctx, "", "top", "nodes")
		for i, node := range w.lab.Nodes() {
			if line := regexp.MustCompile(fmt.Sprintf(`(?m)^%s +%dm .* 64Mi `, node, 101+i)); err == nil && !line.MatchString(out) {
				err = fmt.Errorf("it prints\n%s", out)
			}
		}
		return err
	})
	if now := w.streams("connect"); now <= before {
		w.Errorf("of all that, nothing went through the proxy: %v streams before, %v now", before, now)
	}
	w.kubectl("delete", "apiservice/v1beta1.metrics.k8s.io", "validatingwebhookconfiguration/"+name, "service/"+name)
}

// streams is how many streams the active proxy has carried for a front end.
func (w *world) streams(front string) float64 {
	w.Helper()
	return w.metric(`raven_proxy_streams_total{front="` + front + `"}`)
}

// metric is one of the agent's on the API server's node; 0 where it is not there.
func (w *world) metric(name string) (n float64) {
	w.Helper()
	for line := range strings.Lines(w.metrics(master)) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			_, err := fmt.Sscan(value, &n)
			w.must(err)
		}
	}
	return n
}
