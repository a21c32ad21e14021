package filter

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ravencni/raven/pkg/topology"
)

// transitRules and vxlanRule are what iptables -S prints of ours, nft and legacy alike.
var (
	transitRules = []string{
		"-A FORWARD -i raven0 -o raven-wg0 -m comment --comment raven-transit -j ACCEPT",
		"-A FORWARD -i raven-wg0 -o raven0 -m comment --comment raven-transit -j ACCEPT",
		"-A FORWARD -i raven-wg0 -o raven-wg0 -m comment --comment raven-transit -j ACCEPT",
	}
	vxlanRule = "-A INPUT -i eth0 -p udp -m udp --dport 4472 -m comment --comment raven-vxlan -j ACCEPT"
)

// rules lists a chain, without its policy.
func (w *world) rules(iptables, chain string) []string {
	lines := strings.Split(strings.TrimSpace(w.node.run(iptables, "-S", chain)), "\n")
	if len(lines) == 1 {
		return nil
	}
	return lines[1:]
}

func (w *world) assertRules(t *testing.T, iptables, chain string, want ...string) {
	t.Helper()
	if d := cmp.Diff(want, w.rules(iptables, chain)); d != "" {
		t.Errorf("%s %s (-want +got):\n%s", iptables, chain, d)
	}
}

func bothIptables(t *testing.T, role topology.Role, f func(t *testing.T, w *world, iptables string)) {
	for _, iptables := range []string{"iptables-nft", "iptables-legacy"} {
		t.Run(iptables, func(t *testing.T) {
			inWorld(t, role, func(t *testing.T, w *world) { f(t, w, iptables) })
		})
	}
}

func TestTransitPassesAForwardPolicyOfDrop(t *testing.T) {
	bothIptables(t, topology.RoleGateway, func(t *testing.T, w *world, iptables string) {
		foreign := "-A FORWARD -s 203.0.113.0/24 -j DROP"
		w.node.run(iptables, strings.Fields(foreign)...)
		w.node.run(iptables, "-P", "FORWARD", "DROP")
		w.node.run(strings.Replace(iptables, "ip", "ip6", 1), "-P", "FORWARD", "DROP")
		w.apply(t)
		w.assertRules(t, iptables, "FORWARD", append(transitRules, foreign)...)
		w.assertRules(t, strings.Replace(iptables, "ip", "ip6", 1), "FORWARD", transitRules...)
		passes(t, w.lan, "10.1.2.2:7000", "10.2.0.5:7001", w.remote.listen("10.2.0.5:7001"))
		passes(t, w.remote, "10.2.0.5:7000", "10.1.2.2:7002", w.lan.listen("10.1.2.2:7002"))
		if n := w.apply(t); n != 0 {
			t.Errorf("a second apply took %d transactions", n)
		}
		// The ends' own traffic is still the host's to decide on.
		dropped := func() (bool, string) {
			out := w.node.run(iptables, "-nvxL", "FORWARD")
			return strings.Contains(out, "policy DROP 1 packets"), out
		}
		w.pod1.send("10.1.1.2:7000", "10.2.0.5:7003", "from a pod of the gateway")
		eventually(t, "the host's policy drops the pod's packet", dropped)

		if err := w.filter.Cleanup(t.Context()); err != nil {
			t.Fatalf("clean up: %v", err)
		}
		w.assertRules(t, iptables, "FORWARD", foreign)
	})
}

func TestVXLANPassesAnInputThatAdmitsOnlyEstablishedTraffic(t *testing.T) {
	bothIptables(t, topology.RoleMember, func(t *testing.T, w *world, iptables string) {
		established := "-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"
		w.node.run(iptables, strings.Fields(established)...)
		w.node.run(iptables, "-P", "INPUT", "DROP")
		w.apply(t)
		w.assertRules(t, iptables, "INPUT", vxlanRule, established)
		passes(t, w.lan, "10.2.0.5:7000", "10.1.1.2:7001", w.pod1.listen("10.1.1.2:7001"))
		w.counted(t, CounterVXLANStranger, 1, func() { w.lan.send("192.168.1.9:5555", "192.168.1.1:4472", "a stranger") })
		w.plan = &topology.Plan{Role: topology.RoleNone}
		w.apply(t)
		w.assertRules(t, iptables, "INPUT", established)
	})
}

func TestTheUnderlaysFamilyDecidesWhereVXLANIsAccepted(t *testing.T) {
	inWorld(t, topology.RoleMember, func(t *testing.T, w *world) {
		w.node.run("iptables-nft", "-P", "INPUT", "DROP")
		w.node.run("ip6tables-nft", "-P", "INPUT", "DROP")
		w.plan.Overlay.Underlay = addr("fd01::1")
		w.apply(t)
		w.assertRules(t, "iptables-nft", "INPUT")
		w.assertRules(t, "ip6tables-nft", "INPUT", vxlanRule)
		m := w.host.Underlays[0]
		m.Name = "eth1"
		w.host.Underlays = append(w.host.Underlays, m)
		w.apply(t)
		w.assertRules(t, "ip6tables-nft", "INPUT", vxlanRule, strings.Replace(vxlanRule, "eth0", "eth1", 1))
	})
}

func TestNoHostChainIsMadeWhereThereIsNone(t *testing.T) {
	inWorld(t, topology.RoleGateway, func(t *testing.T, w *world) {
		w.apply(t)
		if out := w.node.run("nft", "list", "tables"); out != "table inet raven\n" {
			t.Errorf("tables after apply:\n%s", out)
		}
		// A chain of that name that nothing calls is not the host's policy.
		w.node.run("nft", "add table ip filter; add chain ip filter FORWARD")
		if n := w.apply(t); n != 0 {
			t.Errorf("a chain without a hook was written to: %d transactions", n)
		}
		for _, v6 := range []bool{false, true} {
			w.node.in(func() {
				if used, err := legacyInUse(v6); err != nil || used {
					t.Errorf("iptables-legacy in use: %v, %v", used, err)
				}
			})
		}
	})
}

func TestHostRulesAreRepairedWhenRemovedMovedOrRestoredWithoutTheirUserData(t *testing.T) {
	bothIptables(t, topology.RoleGateway, func(t *testing.T, w *world, iptables string) {
		now := time.Now()
		w.filter.damper.now = func() time.Time { return now }
		foreign := "-A FORWARD -i docker0 -j ACCEPT"
		w.node.run(iptables, strings.Fields(foreign)...)
		w.apply(t)
		right := append(append([]string{}, transitRules...), foreign)
		w.assertRules(t, iptables, "FORWARD", right...)
		repaired := func(what string) {
			t.Helper()
			if n := w.apply(t); n != 1 {
				t.Errorf("%s: repaired with %d transactions", what, n)
			}
			w.assertRules(t, iptables, "FORWARD", right...)
			if n := w.apply(t); n != 0 {
				t.Errorf("%s: after the repair %d transactions", what, n)
			}
		}
		w.node.run(iptables, "-D", "FORWARD", "2")
		repaired("a rule removed")

		w.node.run(iptables, append([]string{"-A"}, strings.Fields(transitRules[0])[1:]...)...)
		repaired("a rule doubled")

		w.node.run(iptables, "-I", "FORWARD", "1", "-s", "203.0.113.0/24", "-j", "DROP")
		right = append(right[:3:3], "-A FORWARD -s 203.0.113.0/24 -j DROP", foreign)
		repaired("a refusing rule put above")

		w.node.run(iptables, "-N", "OTHER")
		w.node.run(iptables, "-I", "FORWARD", "1", "-j", "OTHER")
		right = append(right[:3:3], "-A FORWARD -j OTHER", "-A FORWARD -s 203.0.113.0/24 -j DROP", foreign)
		repaired("a jump put above")

		dump := filepath.Join(t.TempDir(), "rules")
		if err := os.WriteFile(dump, []byte(w.node.run(iptables+"-save")), 0o600); err != nil {
			t.Fatal(err)
		}
		w.node.run(iptables+"-restore", dump)
		if n := w.apply(t); n > 1 {
			t.Errorf("after save and restore %d transactions", n)
		}
		w.assertRules(t, iptables, "FORWARD", right...)

		if iptables == "iptables-nft" {
			w.node.run(iptables, "-F", "INPUT")
			if n := w.apply(t); n != 1 {
				t.Errorf("a flushed INPUT was repaired with %d transactions", n)
			}
			w.assertRules(t, iptables, "INPUT", vxlanRule)
		}
	})
}

func TestAUsersRuleStaysThoughItsCommentLooksLikeOurs(t *testing.T) {
	bothIptables(t, topology.RoleGateway, func(t *testing.T, w *world, iptables string) {
		for _, comment := range []string{"raven-db", "raven-", "raven-transit2", "raven-vxlan of old", "no --comment raven-vxlan \"here"} {
			for _, chain := range []string{"FORWARD", "INPUT"} {
				w.node.run(iptables, "-A", chain, "-s", "203.0.113.0/24", "-m", "comment", "--comment", comment, "-j", "ACCEPT")
			}
		}
		forward, input := w.rules(iptables, "FORWARD"), w.rules(iptables, "INPUT")
		w.apply(t)
		w.assertRules(t, iptables, "FORWARD", append(slices.Clone(transitRules), forward...)...)
		w.assertRules(t, iptables, "INPUT", append([]string{vxlanRule}, input...)...)
		if n := w.apply(t); n != 0 {
			t.Errorf("a second apply took %d transactions", n)
		}
		if err := w.filter.Cleanup(t.Context()); err != nil {
			t.Fatalf("clean up: %v", err)
		}
		w.assertRules(t, iptables, "FORWARD", forward...)
		w.assertRules(t, iptables, "INPUT", input...)
	})
}

func TestAFightForTheHeadOfAChainIsDamped(t *testing.T) {
	inWorld(t, topology.RoleGateway, func(t *testing.T, w *world) {
		now := time.Now()
		w.filter.damper.now = func() time.Time { return now }
		w.node.run("iptables-nft", "-N", "OTHER")
		w.node.run("iptables-nft", "-A", "FORWARD", "-j", "OTHER")
		w.apply(t)
		displace := func() {
			w.node.run("iptables-nft", "-D", "FORWARD", "-j", "OTHER")
			w.node.run("iptables-nft", "-I", "FORWARD", "1", "-j", "OTHER")
		}
		for i, pause := range []time.Duration{0, time.Second, 2 * time.Second, 4 * time.Second} {
			displace()
			if pause > 0 {
				now = now.Add(pause - time.Millisecond)
				if n := w.apply(t); n != 0 {
					t.Errorf("round %d: repaired %v after the last repair", i, pause)
				}
				now = now.Add(time.Millisecond)
			}
			if n := w.apply(t); n != 1 {
				t.Errorf("round %d: %d transactions %v after the last repair", i, n, pause)
			}
		}
		// Never waits for what keeps packets from passing.
		w.node.run("iptables-nft", "-I", "FORWARD", "1", "-j", "DROP")
		if n := w.apply(t); n != 1 {
			t.Errorf("below a drop: %d transactions", n)
		}
		// Peace forgets.
		now = now.Add(time.Hour)
		displace()
		if n := w.apply(t); n != 1 {
			t.Errorf("after peace: %d transactions", n)
		}
		now = now.Add(time.Second)
		displace()
		if n := w.apply(t); n != 1 {
			t.Errorf("one second after that: %d transactions", n)
		}
	})
}

func TestAHostWithoutTheLegacyProgramIsToldWhatToDo(t *testing.T) {
	inWorld(t, topology.RoleGateway, func(t *testing.T, w *world) {
		w.node.run("iptables-legacy", "-P", "FORWARD", "DROP")
		t.Setenv("PATH", t.TempDir())
		n, err := w.filter.Apply(t.Context(), w.plan, w.host)
		if n != 1 {
			t.Errorf("%d transactions: the table should be written all the same", n)
		}
		if got := fmt.Sprint(err); !strings.Contains(got, "iptables-legacy is not to be found") || !strings.Contains(got, "agent's image") {
			t.Errorf("error: %s", got)
		}
		if err := w.filter.Cleanup(t.Context()); err != nil {
			t.Errorf("clean up: %v", err)
		}
	})
}
