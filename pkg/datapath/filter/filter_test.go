package filter

import (
	"fmt"
	"net/netip"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/ravencni/raven/pkg/datapath"
	"github.com/ravencni/raven/pkg/topology"
	"github.com/ravencni/raven/pkg/tunnel"
	"github.com/ravencni/raven/test/netns"
)

func run(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return string(out)
}

func pfx(s string) netip.Prefix { return netip.MustParsePrefix(s) }
func addr(s string) netip.Addr  { return netip.MustParseAddr(s) }

// gatewayPlan is a small plan with something in every set.
func gatewayPlan() (*topology.Plan, datapath.Host) {
	return &topology.Plan{
			Node: "hangzhou-1", Region: "hangzhou", Role: topology.RoleGateway,
			NodeIP4: addr("192.168.1.1"), NodeIP6: addr("fd01::1"),
			LocalPrefixes: []netip.Prefix{pfx("10.1.1.0/24"), pfx("fd10:1:1::/64")},
			Overlay:       &topology.Overlay{MTU: 1450, Underlay: addr("192.168.1.1"), Members: []netip.Addr{addr("192.168.1.2"), addr("fd01::2")}},
			Tunnel:        &topology.Tunnel{Driver: "wireguard", ListenPort: 4500, MTU: 1400},
			Prefixes: []topology.Prefix{
				{Prefix: pfx("10.1.2.0/24"), Scope: topology.ScopeInRegion}, {Prefix: pfx("fd10:1:2::/64"), Scope: topology.ScopeInRegion},
				{Prefix: pfx("10.2.0.0/16"), Scope: topology.ScopeRemote}, {Prefix: pfx("fd10:2::/48"), Scope: topology.ScopeRemote},
			},
			Throws: []netip.Addr{addr("192.168.1.2"), addr("203.0.113.8"), addr("2001:db8::8")},
		}, datapath.Host{
			Underlay: datapath.Link{Name: "eth0", Index: 2, MTU: 1500}, Underlays: []datapath.Link{{Name: "eth0", Index: 2, MTU: 1500}},
			Tunnel: tunnel.Device{Name: "raven-wg0", MTU: 1400},
		}
}

func mustApply(t testing.TB, a *Applier, plan *topology.Plan, host datapath.Host) int {
	t.Helper()
	n, err := a.Apply(t.Context(), plan, host)
	if err != nil {
		t.Fatalf("apply: %v", err)
	}
	return n
}

// monitor receives every change to nftables in this namespace.
type monitor struct{ c *netlink.Conn }

func startMonitor(t *testing.T) *monitor {
	t.Helper()
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		t.Fatalf("open a netlink socket: %v", err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetReadBuffer(bufferBytes); err != nil {
		t.Fatalf("enlarge its buffer: %v", err)
	}
	if err := c.JoinGroup(unix.NFNLGRP_NFTABLES); err != nil {
		t.Fatalf("subscribe to nftables: %v", err)
	}
	return &monitor{c}
}

// messages returns all messages since the last call.
func (m *monitor) messages(t *testing.T) []netlink.Message {
	t.Helper()
	run(t, "nft", "add table ip marker; delete table ip marker")
	var out []netlink.Message
	for over := false; ; {
		if err := m.c.SetReadDeadline(time.Now().Add(2 * time.Second)); err != nil {
			t.Fatal(err)
		}
		msgs, err := m.c.Receive()
		if err != nil {
			t.Fatalf("receive nftables' changes: %v", err)
		}
		for _, msg := range msgs {
			switch kind := int(msg.Header.Type & 0xff); {
			case strings.Contains(string(msg.Data), "marker\x00"):
				over = kind == unix.NFT_MSG_DELTABLE
			case kind == unix.NFT_MSG_NEWGEN && over:
				return out
			default:
				out = append(out, msg)
			}
		}
	}
}

// since returns the kinds of all messages since the last call, and the number of batches that they came in.
func (m *monitor) since(t *testing.T) (kinds []int, batches int) {
	t.Helper()
	for _, msg := range m.messages(t) {
		if kind := int(msg.Header.Type & 0xff); kind == unix.NFT_MSG_NEWGEN {
			batches++
		} else {
			kinds = append(kinds, kind)
		}
	}
	return kinds, batches
}

func TestTenAppliesWithoutAChangeWriteNothing(t *testing.T) {
	netns.Run(t, func(t *testing.T) {
		run(t, "iptables-nft", "-P", "FORWARD", "DROP")
		run(t, "iptables-nft", "-P", "INPUT", "DROP")
		a := New(Options{})
		plan, host := gatewayPlan()
		mustApply(t, a, plan, host)
		m := startMonitor(t)
		for range 10 {
			if n := mustApply(t, a, plan, host); n != 0 {
				t.Errorf("apply without a change: %d transactions", n)
			}
		}
		if n := mustApply(t, New(Options{}), plan, host); n != 0 {
			t.Errorf("apply by a new process: %d transactions", n)
		}
		if kinds, _ := m.since(t); len(kinds) != 0 {
			t.Errorf("the kernel announced changes of kinds %v", kinds)
		}
	})
}

// listing is the table as text, its objects sorted, without what counts.
func listing(t *testing.T) string {
	t.Helper()
	text := regexp.MustCompile(`packets \d+ bytes \d+`).ReplaceAllString(run(t, "nft", "list", "table", "inet", "raven"), "")
	text = strings.TrimSuffix(strings.TrimPrefix(text, "table inet raven {\n"), "}\n")
	objects := strings.Split(strings.TrimSpace(text), "\n\n")
	for i := range objects {
		objects[i] = strings.TrimSpace(objects[i])
	}
	slices.Sort(objects)
	return strings.Join(objects, "\n")
}

// handle is the number of the nth rule of a chain.
func handle(t *testing.T, chain string, n int) string {
	t.Helper()
	var handles []string
	for _, m := range regexp.MustCompile(`(?m)^\t\t.* # handle (\d+)$`).FindAllStringSubmatch(run(t, "nft", "-a", "list", "chain", "inet", "raven", chain), -1) {
		handles = append(handles, m[1])
	}
	return handles[n]
}

func TestWhateverIsDamagedInTheTableComesBackWithOneTransaction(t *testing.T) {
	netns.Run(t, func(t *testing.T) {
		a := New(Options{})
		plan, host := gatewayPlan()
		if n := mustApply(t, a, plan, host); n != 1 {
			t.Errorf("the first apply took %d transactions", n)
		}
		want := listing(t)
		for _, c := range []struct {
			name   string
			damage func() string // nft commands
		}{
			{"the table deleted", func() string { return "delete table inet raven" }},
			{"the table dormant", func() string { return "add table inet raven { flags dormant; }" }},
			{"a rule deleted", func() string { return "delete rule inet raven prerouting handle " + handle(t, "prerouting", 2) }},
			{"a rule replaced", func() string { return "replace rule inet raven outer4 handle " + handle(t, "outer4", 1) + " accept" }},
			{"a rule added at the head", func() string { return "insert rule inet raven prerouting accept" }},
			{"a rule added at the end", func() string { return "add rule inet raven clamp accept" }},
			{"a chain flushed", func() string { return "flush chain inet raven keep_source" }},
			{"all chains flushed", func() string { return "flush table inet raven" }},
			{"a base chain deleted", func() string { return "flush chain inet raven nat; delete chain inet raven nat" }},
			{"a chain deleted", func() string {
				return "flush chain inet raven postrouting; flush chain inet raven clamp; delete chain inet raven clamp"
			}},
			{"a chain's policy changed", func() string { return "add chain inet raven forward { policy drop; }" }},
			{"a chain moved to another priority", func() string {
				return "flush chain inet raven nat; delete chain inet raven nat; add chain inet raven nat { type nat hook postrouting priority 200; }"
			}},
			{"an element deleted", func() string { return "delete element inet raven members4 { 192.168.1.2 }" }},
			{"an interval deleted", func() string { return "delete element inet raven remote4 { 10.2.0.0/16 }" }},
			{"an IPv6 interval deleted", func() string { return "delete element inet raven remote6 { fd10:2::/48 }" }},
			{"an element added", func() string { return "add element inet raven members4 { 192.168.1.9 }" }},
			{"an interval added", func() string { return "add element inet raven in_region4 { 10.9.0.0-10.9.0.77 }" }},
			{"the lowest interval added", func() string { return "add element inet raven remote4 { 0.0.0.0/8 }" }},
			{"the highest interval added", func() string { return "add element inet raven remote6 { ff00::/8 }" }},
			{"an interval narrowed", func() string {
				return "delete element inet raven remote4 { 10.2.0.0/16 }; add element inet raven remote4 { 10.2.0.0/24 }"
			}},
			{"a device's name deleted", func() string { return "delete element inet raven underlays { \"eth0\" }" }},
			{"a set flushed", func() string { return "flush set inet raven local6" }},
			{"a set deleted", func() string {
				return "flush chain inet raven to_remote4; delete set inet raven throws4"
			}},
			{"a set of another type", func() string {
				return "flush chain inet raven to_remote4; delete set inet raven throws4; add set inet raven throws4 { type ether_addr; }"
			}},
			{"a counter deleted", func() string {
				return "flush chain inet raven to_remote4; flush chain inet raven to_remote6; flush chain inet raven translated; delete counter inet raven spoofed_source"
			}},
			{"a stranger's chains added", func() string {
				return "add chain inet raven x; add chain inet raven y; add rule inet raven x jump y; add rule inet raven y ip saddr { 1.2.3.4, 5.6.7.8 } drop"
			}},
			{"a stranger's set and counter added", func() string { return "add set inet raven x { type ipv4_addr; }; add counter inet raven y" }},
		} {
			whole := run(t, "nft", "list", "ruleset")
			run(t, "nft", c.damage())
			if run(t, "nft", "list", "ruleset") == whole {
				t.Fatalf("%s: did no damage", c.name)
			}
			m := startMonitor(t)
			if n := mustApply(t, a, plan, host); n != 1 {
				t.Errorf("%s: repaired with %d transactions", c.name, n)
			}
			if _, batches := m.since(t); batches != 1 {
				t.Errorf("%s: repaired with %d batches", c.name, batches)
			}
			if d := cmp.Diff(want, listing(t)); d != "" {
				t.Errorf("%s: after the repair (-want +got):\n%s", c.name, d)
			}
			if n := mustApply(t, a, plan, host); n != 0 {
				t.Errorf("%s: a further apply took %d transactions", c.name, n)
			}
		}
	})
}

func TestOthersTablesStayByteForByte(t *testing.T) {
	netns.Run(t, func(t *testing.T) {
		for _, iptables := range []string{"iptables-nft", "ip6tables-nft"} {
			run(t, iptables, "-P", "FORWARD", "DROP")
			run(t, iptables, "-A", "INPUT", "-m", "conntrack", "--ctstate", "ESTABLISHED", "-j", "ACCEPT")
			run(t, iptables, "-t", "nat", "-A", "POSTROUTING", "-j", "MASQUERADE")
		}
		run(t, "nft", "add table inet firewall; add set inet firewall s { type ipv4_addr; elements = { 1.2.3.4 }; }; "+
			"add chain inet firewall raven { type filter hook forward priority 10; }; add rule inet firewall raven ip saddr @s drop; "+
			"add table ip raven; add chain ip raven prerouting; add rule ip raven prerouting accept")
		before := run(t, "nft", "-a", "list", "ruleset")
		a := New(Options{})
		plan, host := gatewayPlan()
		mustApply(t, a, plan, host)
		if run(t, "nft", "-a", "list", "ruleset") == before {
			t.Error("apply wrote nothing")
		}
		plan.Prefixes = plan.Prefixes[:2]
		mustApply(t, a, plan, host)
		if err := a.Cleanup(t.Context()); err != nil {
			t.Fatalf("clean up: %v", err)
		}
		if d := cmp.Diff(before, run(t, "nft", "-a", "list", "ruleset")); d != "" {
			t.Errorf("after the clean-up (-before +after):\n%s", d)
		}
		if err := a.Cleanup(t.Context()); err != nil {
			t.Errorf("a second clean-up: %v", err)
		}
		if n := mustApply(t, a, &topology.Plan{Role: topology.RoleNone}, datapath.Host{}); n != 0 {
			t.Errorf("an empty plan on a clean host took %d transactions", n)
		}
	})
}

func TestCountersSurviveEveryApply(t *testing.T) {
	inWorld(t, topology.RoleGateway, func(t *testing.T, w *world) {
		w.apply(t)
		w.counted(t, CounterVXLANStranger, 1, func() { w.lan.send("192.168.1.9:5555", "192.168.1.1:4472", "twelve bytes") })
		want := map[string]Counter{CounterVXLANStranger: {1, 40}, CounterVXLANFromPod: {}, CounterSpoofedSource: {}, CounterWrongRegionSource: {},
			CounterForeignDestination: {}}
		w.plan.Prefixes = append(w.plan.Prefixes, topology.Prefix{Prefix: pfx("10.4.0.0/16"), Scope: topology.ScopeRemote})
		w.plan.Overlay.Members = nil
		w.apply(t)
		w.host.Tunnel = tunnel.Device{}
		if n := w.apply(t); n != 1 {
			t.Errorf("a change of rules took %d transactions", n)
		}
		w.node.run("nft", "flush chain inet raven prerouting")
		w.apply(t)
		if d := cmp.Diff(want, w.counters(t)); d != "" {
			t.Errorf("counters (-want +got):\n%s", d)
		}
		if err := w.filter.Cleanup(t.Context()); err != nil {
			t.Fatal(err)
		}
		if c := w.counters(t); len(c) != 0 {
			t.Errorf("counters without a table: %v", c)
		}
	})
}

func TestWithoutAKnownUnderlayDeviceNothingIsTouched(t *testing.T) {
	netns.Run(t, func(t *testing.T) {
		a := New(Options{})
		plan, host := gatewayPlan()
		mustApply(t, a, plan, host)
		want := listing(t)
		if _, err := a.Apply(t.Context(), plan, datapath.Host{}); err == nil || !strings.Contains(err.Error(), "no device is known") {
			t.Errorf("error: %v", err)
		}
		if d := cmp.Diff(want, listing(t)); d != "" {
			t.Errorf("(-before +after):\n%s", d)
		}
	})
}

// bigPlan adds n remote prefixes of both families.
func bigPlan(n int) (*topology.Plan, datapath.Host) {
	plan, host := gatewayPlan()
	for i := range n / 2 {
		plan.Prefixes = append(plan.Prefixes,
			topology.Prefix{Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{11, byte(i >> 8), byte(i), 0}), 24), Scope: topology.ScopeRemote},
			topology.Prefix{Prefix: pfx(fmt.Sprintf("fd20:%x::/64", i)), Scope: topology.ScopeRemote})
	}
	return plan, host
}

func TestOneMoreOfFiveThousandPrefixesIsOneSmallTransaction(t *testing.T) {
	netns.Run(t, func(t *testing.T) {
		a := New(Options{})
		plan, host := bigPlan(5000)
		start := time.Now()
		if n := mustApply(t, a, plan, host); n != 1 {
			t.Errorf("the first apply took %d transactions", n)
		}
		t.Logf("5,000 prefixes written in %v", time.Since(start))
		m := startMonitor(t)
		start = time.Now()
		if n := mustApply(t, a, plan, host); n != 0 {
			t.Errorf("a second apply took %d transactions", n)
		}
		t.Logf("no change found in %v", time.Since(start))

		for _, c := range []struct {
			name   string
			change func()
			want   []int
		}{
			{"a prefix added", func() {
				plan.Prefixes = append(plan.Prefixes, topology.Prefix{Prefix: pfx("12.0.0.0/24"), Scope: topology.ScopeRemote})
			}, []int{unix.NFT_MSG_NEWSETELEM, unix.NFT_MSG_NEWSETELEM}}, // its start and its end
			{"a prefix removed", func() { plan.Prefixes = slices.Delete(plan.Prefixes, 1000, 1001) },
				[]int{unix.NFT_MSG_DELSETELEM, unix.NFT_MSG_DELSETELEM}},
			{"a member added", func() { plan.Overlay.Members = append(plan.Overlay.Members, addr("192.168.1.77")) },
				[]int{unix.NFT_MSG_NEWSETELEM}},
		} {
			c.change()
			m.since(t)
			start := time.Now()
			if n := mustApply(t, a, plan, host); n != 1 {
				t.Errorf("%s: %d transactions", c.name, n)
			}
			t.Logf("%s in %v", c.name, time.Since(start))
			if kinds, batches := m.since(t); !slices.Equal(kinds, c.want) || batches != 1 {
				t.Errorf("%s: the kernel announced kinds %v in %d batches, want %v in 1", c.name, kinds, batches, c.want)
			}
		}
	})
}

func TestMoreThanASocketTakesIsWrittenInSeveralBatchesWithTheRulesLast(t *testing.T) {
	netns.Run(t, func(t *testing.T) {
		a := New(Options{})
		plan, host := bigPlan(5000)
		m := startMonitor(t)
		n, err := a.withSession(t.Context(), func(s *session) (int, error) {
			s.batchBytes = 2 * messageBytes
			return applyTable(t.Context(), s, wantedSets(plan, host), rolesOf(plan, host, true).wantedChains())
		})
		if err != nil {
			t.Fatal(err)
		}
		kinds, batches := m.since(t)
		if n < 5 || batches != n {
			t.Errorf("%d transactions reported, %d seen", n, batches)
		}
		if first, last := slices.Index(kinds, unix.NFT_MSG_NEWRULE), len(kinds)-1-slices.Index(reversed(kinds), unix.NFT_MSG_NEWSETELEM); first < last {
			t.Error("rules were written before the last element")
		}
		if n := mustApply(t, a, plan, host); n != 0 {
			t.Errorf("a second apply took %d transactions", n)
		}
	})
}

func reversed(s []int) []int {
	out := slices.Clone(s)
	slices.Reverse(out)
	return out
}

func TestTwentyThousandPrefixesFit(t *testing.T) {
	netns.Run(t, func(t *testing.T) {
		a := New(Options{})
		plan, host := bigPlan(20000)
		start := time.Now()
		mustApply(t, a, plan, host)
		t.Logf("20,000 prefixes written in %v", time.Since(start))
		start = time.Now()
		if n := mustApply(t, a, plan, host); n != 0 {
			t.Errorf("a second apply took %d transactions", n)
		}
		t.Logf("no change found in %v", time.Since(start))
		c, err := nftables.New()
		if err != nil {
			t.Fatal(err)
		}
		s, err := readTable(c)
		if err != nil {
			t.Fatal(err)
		}
		if got := len(s.elements["remote4"]) + len(s.elements["remote6"]); got != 20002 {
			t.Errorf("%d remote prefixes in the kernel", got)
		}
	})
}
