package e2e_test

import (
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

// helm runs Helm as the cluster's admin.
func (w *world) helm(args ...string) string {
	w.Helper()
	where, err := exec.CommandContext(w.Context(), filepath.Join(w.root, "test/cluster/helm/build.sh"), "--where").Output()
	w.must(err)
	return w.run("helm-"+args[0], filepath.Join(strings.TrimSpace(string(where)), "helm"), append(args, "--namespace", "kube-system")...)
}

// chart is the archive that `make chart` packs.
func (w *world) chart() string {
	w.Helper()
	out := w.make("chart")
	m := regexp.MustCompile(`bundle: (\S+/raven-agent-\S+\.tgz)`).FindStringSubmatch(out)
	if m == nil {
		w.Fatalf("make chart says\n%s", out)
	}
	return filepath.Join(w.root, m[1])
}

// helmInstall installs the release raven-agent as docs/install.md says, with the other driver than deploy.
func helmInstall(w *world) {
	w.label()
	w.helm("install", "raven-agent", w.chart(), "--set", "vpnDriver=wireguard")
	w.rolledOut()
	w.agentsRun()
	if out := w.helm("list"); !regexp.MustCompile(`(?m)^raven-agent\s+kube-system\s+1\s.*\bdeployed\b`).MatchString(out) {
		w.Errorf("helm list prints\n%s", out)
	}
}

// rolledOut waits for what an installation or update starts.
func (w *world) rolledOut() {
	w.Helper()
	for _, what := range []string{"deployment/raven-controller", "daemonset/raven-agent-ds"} {
		w.kubectl("-n", "kube-system", "rollout", "status", what, "--timeout=5m")
	}
}

// helmUpgrade replaces every agent by the same version with another setting. Nothing is lost on the way.
func helmUpgrade(w *world) {
	old := w.agentPods()
	w.underTraffic("upgrade", func() {
		w.helm("upgrade", "raven-agent", w.chart(), "--reuse-values", "--set", "image.pullPolicy=Always")
		w.rolledOut()
	})
	now := w.agentPods()
	for name := range strings.FieldsSeq(old) {
		if strings.Contains(now, name) {
			w.Errorf("the agent's pod %s is still there", name)
		}
	}
}

// helmUninstall runs the cleanup on every node before anything is deleted.
func helmUninstall(w *world) {
	w.removed("helm-uninstall", func() { w.helm("uninstall", "raven-agent", "--timeout", "20m") })
	if out := w.kubectl("get", "daemonsets,deployments,jobs,serviceaccounts", "-n", "kube-system", "-l", "app.kubernetes.io/part-of=raven", "-o", "name"); out != "" {
		w.Errorf("still there: %s", out)
	}
	if out := w.kubectl("get", "gateways", "-o", "name"); strings.Count(out, "gateway") < len(w.lab.Spec.Regions) {
		w.Errorf("of the Gateways are left: %s", out)
	}
}
