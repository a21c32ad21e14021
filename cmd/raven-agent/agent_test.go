package main

import (
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestTheAgentOutlivesItselfAndLeavesANodeAsItFoundIt(t *testing.T) {
	onNode(t, func(t *testing.T, n *node) {
		before := n.kernel()

		first := n.start()
		first.awaitReady()
		if ok, words := n.planned(); !ok {
			t.Fatal(words)
		}
		second, code := n.run("--node-name=a1", "--vpn-driver=wireguard", "--manifests="+n.manifests)
		if code != 1 || !strings.Contains(second, fmt.Sprintf("process %d", first.cmd.Process.Pid)) {
			t.Errorf("a second agent ended with %d: %s", code, second)
		}
		if out, code := n.run("--cleanup"); code != 1 || !strings.Contains(out, "stop it first") {
			t.Errorf("a cleanup beside a running agent ended with %d: %s", code, out)
		}
		during := n.kernel()
		key := n.sh("cat /var/lib/raven/wireguard.key")

		first.end(syscall.SIGKILL)
		if after := n.kernel(); after != during {
			t.Errorf("killing the agent changed the kernel:\n%s", difference(during, after))
		}
		again := n.start()
		again.awaitReady()
		for series, value := range n.metrics("raven_applier_changes_total") {
			if value != 0 {
				t.Errorf("the restarted agent wrote: %s %g\n%s", series, value, again.log)
			}
		}
		again.end(syscall.SIGTERM)
		if after := n.kernel(); after != during {
			t.Errorf("ending the agent changed the kernel:\n%s", difference(during, after))
		}
		if n.sh("cat /var/lib/raven/wireguard.key") != key {
			t.Error("the key changed")
		}

		out, code := n.run("--cleanup")
		if code != 0 || !strings.Contains(out, "removed device raven0") || !strings.Contains(out, "removed rule 100") {
			t.Errorf("the cleanup ended with %d:\n%s", code, out)
		}
		if after := n.kernel(); after != before {
			t.Errorf("the cleanup left or took something:\n%s", difference(before, after))
		}
		if out, code := n.run("--cleanup"); code != 0 || !strings.Contains(out, "nothing of Raven's") {
			t.Errorf("a second cleanup ended with %d:\n%s", code, out)
		}
		if got := n.sh("ls /var/lib/raven"); !strings.Contains(got, "wireguard.key") || !strings.Contains(got, "snapshot.json") {
			t.Errorf("the cleanup took keys or snapshot; left: %s", got)
		}

		// The node has no routes now; an agent that finds no manifests comes back to the same state.
		gone := n.start("--manifests=" + filepath.Join(n.manifests, "gone"))
		gone.await("the planned state from the snapshot", n.planned)
		if code, body, err := n.get(10275, "/readyz"); err != nil || code != http.StatusServiceUnavailable || !strings.Contains(body, "snapshot") {
			t.Errorf("an agent on its snapshot says %d %s, %v", code, body, err)
		}
		gone.end(syscall.SIGTERM)
		if out, code := n.run("--cleanup", "--cleanup-state"); code != 0 || n.sh("ls /var/lib/raven") != "" {
			t.Errorf("the cleanup of the state ended with %d and left %s:\n%s", code, n.sh("ls /var/lib/raven"), out)
		}
	})
}

func TestWhatSomebodyDeletesComesBackWithOneWrite(t *testing.T) {
	onNode(t, func(t *testing.T, n *node) {
		p := n.start()
		p.awaitReady()
		for _, c := range []struct{ part, remove, there string }{
			{"route", "ip route del 10.2.1.0/24 table 9027", "ip route show table 9027 | grep -q ^10.2.1.0/24"},
			{"route", "ip rule del priority 100 iif raven-wg0", "ip rule | grep -q 'iif raven-wg0 lookup 9028'"},
			{"filter", "nft delete table inet raven", "nft list table inet raven >/dev/null 2>&1"},
		} {
			series := fmt.Sprintf("raven_applier_changes_total{applier=%q}", c.part)
			before := n.metrics("raven_applier_changes_total")[series]
			n.sh(c.remove)
			p.await("the repair of "+c.remove, func() (bool, string) {
				return n.sh("if "+c.there+"; then echo yes; fi") != "", n.sh("ip rule; ip route show table 9027")
			})
			// The write counts when the pass that made it has ended.
			p.await("the count of the repair", func() (bool, string) {
				now := n.metrics("raven_applier_changes_total")[series]
				return now == before+1, fmt.Sprintf("%s went from %g to %g", series, before, now)
			})
		}
	})
}

func TestAForcedBPFFailureLeavesTheBaselineAndSaysSo(t *testing.T) {
	onNode(t, func(t *testing.T, n *node) {
		p := n.start("--force-bpf-failure")
		p.awaitReady()
		if ok, words := n.planned(); !ok {
			t.Error(words)
		}
		if m := n.metrics("raven_datapath_accelerated"); m["raven_datapath_accelerated"] != 0 {
			t.Errorf("the metric says %v", m)
		}
		p.await("the published status", func() (bool, string) {
			status := n.sh("cat " + filepath.Join(n.manifests, "tunnelendpoint-a1.yaml") + " 2>&1 || true")
			return strings.Contains(status, "datapath: Baseline") && strings.Contains(status, "datapathReason: "), status
		})
	})
}

func TestANodeOfNoRegionAndANodeWithoutL3OwnNothing(t *testing.T) {
	for name, change := range map[string]func(n *node) []string{
		"no region": func(n *node) []string {
			n.write("stranger.yaml", "apiVersion: v1\nkind: Node\nmetadata: {name: stranger}\n")
			return []string{"--node-name=stranger"}
		},
		"L3 disabled": func(n *node) []string { n.write("cfg.yaml", switchedOff); return nil },
	} {
		t.Run(name, func(t *testing.T) {
			onNode(t, func(t *testing.T, n *node) {
				before := n.kernel()
				p := n.start(change(n)...)
				p.awaitReady()
				if after := n.kernel(); after != before {
					t.Errorf("the agent made:\n%s", difference(before, after))
				}
				p.end(syscall.SIGTERM)
			})
		})
	}
}

const switchedOff = `apiVersion: v1
kind: ConfigMap
metadata: {name: raven-cfg, namespace: kube-system}
data: {enable-l3-tunnel: "false"}
`

func TestSwitchingL3OffAndOnTakesEverythingDownAndBuildsItUp(t *testing.T) {
	onNode(t, func(t *testing.T, n *node) {
		before := n.kernel()
		p := n.start()
		p.awaitReady()
		n.write("cfg.yaml", switchedOff)
		p.await("an empty kernel", func() (bool, string) {
			d := difference(before, n.kernel())
			return d == "", d
		})
		n.write("cfg.yaml", strings.Replace(switchedOff, "false", "True", 1))
		p.await("the planned state", n.planned)
	})
}
