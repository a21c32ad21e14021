package filter

import (
	"strings"
	"testing"

	"github.com/ravencni/raven/pkg/topology"
)

// assertWarnings applies and asserts that there is one warning for each list of words, in order, each with all of them.
func (w *world) assertWarnings(t *testing.T, what string, want ...[]string) {
	t.Helper()
	w.apply(t)
	got := w.filter.Warnings()
	if len(got) != len(want) {
		t.Errorf("%s: %d warnings, want %d: %q", what, len(got), len(want), got)
		return
	}
	for i, words := range want {
		for _, word := range words {
			if !strings.Contains(got[i], word) {
				t.Errorf("%s: %q does not say %q", what, got[i], word)
			}
		}
	}
}

const (
	forwardRemedy = `iifname { "raven0", "raven-wg0" } oifname { "raven0", "raven-wg0" } accept comment "raven-transit"`
	inputRemedy   = `iifname { "eth0" } udp dport 4472 accept comment "raven-vxlan"`
)

func TestAFirewallThatRefusesRavensPacketsIsNamedWithItsRemedyUntilItIsApplied(t *testing.T) {
	inWorld(t, topology.RoleGateway, func(t *testing.T, w *world) {
		w.assertWarnings(t, "no firewall")
		w.node.run("nft", "add table inet fw; add chain inet fw in { type filter hook input priority 0; policy drop; }; "+
			"add chain inet fw through { type filter hook forward priority 0; policy drop; }; "+
			"add chain inet fw out { type filter hook output priority 0; policy drop; }; "+
			"add rule inet fw in ct state established,related accept; add rule inet fw out accept; "+
			"add rule inet fw in udp dport 4472 drop; add rule inet fw in tcp dport 22 accept; add rule inet fw through iifname docker0 accept")
		input, forward := []string{"inet fw in (hook input) has policy drop", "the VXLAN", inputRemedy},
			[]string{"inet fw through (hook forward) has policy drop", "raven0 and raven-wg0", forwardRemedy}
		w.assertWarnings(t, "a policy of drop", input, forward)
		w.assertWarnings(t, "once more", input, forward)
		w.node.run("nft", "insert rule inet fw in "+inputRemedy)
		w.assertWarnings(t, "VXLAN admitted", forward)
		w.node.run("nft", "add rule inet fw through "+forwardRemedy)
		w.assertWarnings(t, "both admitted")
		passes(t, w.lan, "10.1.2.2:7000", "10.2.0.5:7001", w.remote.listen("10.2.0.5:7001"))
		w.node.run("nft", "flush chain inet fw through")
		w.assertWarnings(t, "the rule removed again", forward)
		w.plan = &topology.Plan{Role: topology.RoleNone}
		w.assertWarnings(t, "a node in no region")
	})
}

func TestTheWaysInWhichAFirewallRefusesAndAdmits(t *testing.T) {
	const (
		in      = "add table inet fw; add chain inet fw in { type filter hook input priority 10; }; add rule inet fw in ct state established accept; "
		through = "add table inet fw; add chain inet fw through { type filter hook forward priority 10; policy drop; }; add chain inet fw zones; add rule inet fw through jump zones; "
	)
	cases := []struct{ name, ruleset, want string }{
		{"a last rule that rejects", in + "add rule inet fw in counter log prefix \"no \" reject with icmpx admin-prohibited", "refuses all in its last rule"},
		{"a last rule that drops", in + "add rule inet fw in drop", "refuses all in its last rule"},
		{"a last rule that drops some", in + "add rule inet fw in ct state invalid drop", ""},
		{"a chain of routing", "add table ip fw; add chain ip fw out { type route hook output priority 0; policy drop; }", ""},
		{"of IPv4", "add table ip fw; add chain ip fw in { type filter hook input priority 0; policy drop; }", "ip fw in"},
		{"of IPv6, where VXLAN goes by IPv4", "add table ip6 fw; add chain ip6 fw in { type filter hook input priority 0; policy drop; }", ""},
		{"of IPv6, transit", "add table ip6 fw; add chain ip6 fw through { type filter hook forward priority 0; policy drop; }", "ip6 fw through"},
		{"iptables' own chains", "add table ip filter; add chain ip filter INPUT { type filter hook input priority 0; policy drop; }; " +
			"add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }", ""},
		{"a set of ports", in + "add rule inet fw in udp dport { 53, 4472 } accept; add rule inet fw in drop", ""},
		{"a named set of ports", in + "add set inet fw open { type inet_service; elements = { 4472 }; }; add rule inet fw in udp dport @open accept; add rule inet fw in drop", ""},
		{"all but the port", in + "add rule inet fw in udp dport != 4472 accept; add rule inet fw in drop", "refuses"},
		{"a rule with a comment", in + "add rule inet fw in ip saddr 192.168.1.0/24 accept comment \"raven-vxlan of members\"; add rule inet fw in drop", ""},
		{"zones", through + "add rule inet fw zones iifname raven0 accept; add rule inet fw zones iifname \"raven-wg*\" accept", ""},
		{"a zone for one device alone", through + "add rule inet fw zones iifname raven0 accept", "hook forward"},
		{"pairs", through + "add rule inet fw zones iifname . oifname { raven0 . raven-wg0, raven-wg0 . raven0 } accept", ""},
		{"another device", through + "add rule inet fw zones iifname raven01 accept; add rule inet fw zones iifname raven-wg01 accept", "hook forward"},
	}
	inWorld(t, topology.RoleGateway, func(t *testing.T, w *world) {
		for _, c := range cases {
			w.node.run("nft", c.ruleset)
			if c.want == "" {
				w.assertWarnings(t, c.name)
			} else {
				w.assertWarnings(t, c.name, []string{c.want})
			}
			table, _, _ := strings.Cut(c.ruleset, ";")
			w.node.run("nft", strings.Replace(table, "add", "delete", 1))
		}
	})
}

func TestAMemberForwardsNothingForOthersAndSoIsWarnedOfInputAlone(t *testing.T) {
	inWorld(t, topology.RoleMember, func(t *testing.T, w *world) {
		w.node.run("nft", "add table inet fw; add chain inet fw in { type filter hook input priority 0; policy drop; }; "+
			"add chain inet fw through { type filter hook forward priority 0; policy drop; }")
		w.assertWarnings(t, "a policy of drop", []string{"hook input"})
	})
}
