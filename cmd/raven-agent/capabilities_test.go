package main

import (
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	"sigs.k8s.io/yaml"
)

// capabilities are those that a DaemonSet of the manifests gives its container, as setpriv writes them.
func capabilities(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile("../../manifests/workloads/" + file)
	if err != nil {
		t.Fatal(err)
	}
	var ds appsv1.DaemonSet
	if err := yaml.UnmarshalStrict(text, &ds); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	set := "-all"
	for _, c := range ds.Spec.Template.Spec.Containers[0].SecurityContext.Capabilities.Add {
		set += ",+" + strings.ToLower(string(c))
	}
	return set
}

// confined starts the program with no more than these capabilities, and no way to gain others.
func (n *node) confined(set string, args ...string) *process {
	n.t.Helper()
	self, err := os.Executable() // "/proc/self/exe" would be setpriv
	if err != nil {
		n.t.Fatal(err)
	}
	p := &process{n: n, log: &logText{}}
	p.cmd = exec.Command("setpriv", append([]string{"--no-new-privs", "--bounding-set=" + set, "--inh-caps=-all", self}, args...)...)
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	if err := p.cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
	n.started = append(n.started, p)
	return p
}

// The manifests' two processes, with the manifests' flags and capabilities, bring a gateway up and take it down again.
func TestTheDaemonSetsCapabilitiesSuffice(t *testing.T) {
	for _, driver := range []struct{ name, device string }{{"ipsec", "raven-ipsec0"}, {"wireguard", "raven-wg0"}} {
		t.Run(driver.name, func(t *testing.T) {
			if driver.name == "ipsec" && !strongSwanThere() {
				t.Skip("needs strongSwan (hack/install-deps.sh ipsec)")
			}
			onNode(t, func(t *testing.T, n *node) { capabilitiesSuffice(t, n, driver.name, driver.device) })
		})
	}
}

func strongSwanThere() bool {
	_, err := os.Stat("/usr/sbin/charon-systemd")
	return err == nil
}

func capabilitiesSuffice(t *testing.T, n *node, driver, device string) {
	n.write("cluster.yaml", strings.ReplaceAll(manifests, "driver: wireguard", "driver: "+driver))
	before := n.kernel()
	tunnels := n.confined(capabilities(t, "tunnel.yaml"), "tunnels")
	tunnels.await("the process that holds tunnels", func() (bool, string) { return tunnels.logged("IPsec daemon is ready"), "" })
	if out := n.sh("ip -br link"); strings.Contains(out, "raven") {
		t.Errorf("a tunnel device without a request:\n%s", out)
	}

	secret := filepath.Join(t.TempDir(), "vpn-connection-psk")
	if err := os.WriteFile(secret, []byte("of this test"), 0o400); err != nil {
		t.Fatal(err)
	}
	set := capabilities(t, "agent.yaml")
	agent := n.confined(set, "--node-name=a1", "--vpn-driver="+driver, "--external-tunnel-process",
		"--vpn-psk-file="+secret, "--publish-dir="+n.manifests, "--manifests="+n.manifests)
	agent.awaitReady()
	agent.await("the planned state", func() (bool, string) { return n.plannedBy(device) })
	if m := n.metrics("raven_datapath_accelerated"); m["raven_datapath_accelerated"] != 1 {
		t.Errorf("not accelerated: %v\n%s", m, agent.log)
	}
	if code, body, err := n.get(10275, "/healthz"); err != nil || code != http.StatusOK {
		t.Errorf("/healthz says %d %s, %v", code, body, err)
	}
	for _, p := range []*process{agent, tunnels} {
		for _, complaint := range []string{"level=ERROR", "not permitted", "permission denied", "keep their small buffers"} {
			if p.logged(complaint) {
				t.Errorf("a process complains:\n%s", p.log)
			}
		}
	}
	agent.end(syscall.SIGTERM)

	cleanup := n.confined(set, "--cleanup", "--external-tunnel-process")
	if err := cleanup.cmd.Wait(); err != nil {
		t.Errorf("the cleanup: %v\n%s", err, cleanup.log)
	}
	if after := n.kernel(); after != before {
		t.Errorf("the cleanup left or took something:\n%s", difference(before, after))
	}
	tunnels.end(syscall.SIGTERM)
}
