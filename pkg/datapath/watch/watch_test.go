package watch

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ravencni/raven/pkg/datapath"
	"github.com/ravencni/raven/pkg/datapath/host"
	"github.com/ravencni/raven/pkg/datapath/overlay"
	"github.com/ravencni/raven/pkg/datapath/route"
	"github.com/ravencni/raven/pkg/topology"
	"github.com/ravencni/raven/pkg/tunnel"
	"github.com/ravencni/raven/test/netns"
)

// patienceForSignal is how long a test waits for a signal that must come, on a busy machine.
const patienceForSignal = 5 * time.Second

// quiet is how long no signal may come for a test to believe that none does: several intervals.
const quiet = 150 * time.Millisecond

// undamped never waits, so that a signal belongs to what was done just before.
var undamped = Options{Interval: time.Millisecond, MaxInterval: time.Millisecond}

func plan() *topology.Plan {
	own, gw := netip.MustParseAddr("10.0.0.5"), netip.MustParseAddr("10.0.0.1")
	p := &topology.Plan{
		Role: topology.RoleMember, NodeIP4: own, NodeIP6: netip.MustParseAddr("fd00::5"),
		Overlay: &topology.Overlay{
			MTU: 1450, MAC: topology.VTEPMAC(own), Underlay: own, Members: []netip.Addr{gw},
			Neighbours: []topology.Neighbour{{Node: "gw", Underlay: gw, MAC: topology.VTEPMAC(gw)}},
		},
		NextHops: []topology.NextHop{
			{ID: "region/cloud", Kind: topology.KindOverlay, Node: "gw", Underlay: gw, MAC: topology.VTEPMAC(gw), MTU: 1400},
		},
		Throws: []netip.Addr{gw, netip.MustParseAddr("fd00::1")},
	}
	for i := range 50 {
		for _, text := range []string{fmt.Sprintf("10.2.%d.0/24", i), fmt.Sprintf("fd00:2:%x::/64", i)} {
			p.Prefixes = append(p.Prefixes,
				topology.Prefix{Prefix: netip.MustParsePrefix(text), Scope: topology.ScopeRemote, NextHop: "region/cloud"})
		}
	}
	return p
}

// rig is a node with everything applied and a running watcher.
type rig struct {
	*Watcher
	plan *topology.Plan
	host datapath.Host
}

func onNode(t *testing.T, o Options, f func(t *testing.T, r *rig)) {
	t.Helper()
	netns.Run(t, func(t *testing.T) {
		netns.Veth(t, netns.End{In: netns.Current(t), Name: "eth0", Addresses: []string{"10.0.0.5/24", "fd00::5/64"}},
			netns.End{In: netns.New(t), Name: "wire"})
		r := &rig{plan: plan()}
		var err error
		if r.host, err = host.Resolve(r.plan, tunnel.Device{}); err != nil {
			t.Fatal(err)
		}
		r.apply(t)
		if r.Watcher, err = New(o); err != nil {
			t.Fatal(err)
		}
		r.Track(r.host.Underlay.Index)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- r.Run(ctx) }()
		defer func() {
			cancel()
			if err := <-done; err != nil {
				t.Errorf("the watcher ended with %v", err)
			}
		}()
		r.settle()
		f(t, r)
	})
}

func (r *rig) apply(t *testing.T) (changes int) {
	t.Helper()
	for _, a := range []datapath.Applier{overlay.New(), route.New()} {
		n, err := a.Apply(t.Context(), r.plan, r.host)
		if err != nil {
			t.Fatal(err)
		}
		changes += n
	}
	return changes
}

// settle takes signals until none has come for a while, and returns how many of them were not for links.
func (r *rig) settle() (signals int) {
	for {
		select {
		case <-r.Kernel():
			signals++
		case <-r.Routes():
			signals++
		case <-r.Links():
		case <-time.After(quiet):
			return signals
		}
	}
}

func awaitSignal(t *testing.T, name string, c <-chan struct{}) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(patienceForSignal):
		t.Fatalf("no %s signal came", name)
	}
}

func run(t *testing.T, command string) {
	t.Helper()
	fields := strings.Fields(command)
	if out, err := exec.Command(fields[0], fields[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", command, err, out)
	}
}

func TestRemovalOfAllForeignRulesAndRoutesIsRepairedWithin100Milliseconds(t *testing.T) {
	onNode(t, Options{}, func(t *testing.T, r *rig) {
		var took []time.Duration
		for range 5 {
			var removed time.Time
			done := netns.Current(t).Go(func() error {
				err := removeForeign()
				removed = time.Now()
				return err
			})
			awaitSignal(t, "routes", r.Routes())
			repaired := time.Time{}
			look := func() {
				if r.apply(t) > 0 {
					repaired = time.Now()
				}
			}
			for look(); done != nil; {
				select {
				case <-r.Routes():
					look()
				case err := <-done:
					if err != nil {
						t.Fatal(err)
					}
					done = nil
				}
			}
			for quiet := time.After(quiet); quiet != nil; {
				select {
				case <-r.Routes():
					look()
				case <-quiet:
					quiet = nil
				}
			}
			if n := r.apply(t); n != 0 {
				t.Errorf("%d writes were due when all was quiet", n)
			}
			took = append(took, repaired.Sub(removed))
		}
		slices.Sort(took)
		t.Logf("all was repaired after the last removal within %v", took)
		if median := took[len(took)/2]; median > 100*time.Millisecond { // single rounds feel the machine's other work
			t.Errorf("the median repair took %v", median)
		}
	})
}

// removeForeign does what systemd-networkd does with ManageForeignRoutes and ManageForeignRoutingPolicyRules when it
// starts: every rule and route that is not the kernel's own goes, in all tables. One that goes by itself meanwhile is
// no error.
func removeForeign() error {
	gone := func(err error) bool { return err == nil || errors.Is(err, unix.ESRCH) || errors.Is(err, unix.ENOENT) }
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		rules, err := netlink.RuleList(family)
		if err != nil {
			return err
		}
		for _, rule := range rules {
			if rule.Protocol == unix.RTPROT_KERNEL {
				continue
			}
			rule.Family = family
			if err := netlink.RuleDel(&rule); !gone(err) {
				return fmt.Errorf("delete rule %v: %w", rule, err)
			}
		}
		routes, err := netlink.RouteListFiltered(family, &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE)
		if err != nil {
			return err
		}
		for _, route := range routes {
			if route.Protocol == unix.RTPROT_KERNEL || route.Table == unix.RT_TABLE_LOCAL {
				continue
			}
			if err := netlink.RouteDel(&route); !gone(err) {
				return fmt.Errorf("delete route %v: %w", route, err)
			}
		}
	}
	return nil
}

func TestARepairCausesAtMostOneMoreLookAndNoLoop(t *testing.T) {
	onNode(t, Options{}, func(t *testing.T, r *rig) {
		run(t, "ip rule del priority 100 table 9027")
		awaitSignal(t, "routes", r.Routes())
		if n := r.apply(t); n != 1 {
			t.Errorf("the repair made %d writes", n)
		}
		looks := 0
		for {
			select {
			case <-r.Routes():
				if n := r.apply(t); n != 0 {
					t.Fatalf("a look made %d writes", n)
				}
				if looks++; looks > 1 {
					t.Fatal("own writes keep the watcher busy")
				}
				continue
			case <-time.After(quiet):
			}
			break
		}
	})
}

func TestAFightIsDamped(t *testing.T) {
	o := Options{Interval: 5 * time.Millisecond, MaxInterval: 160 * time.Millisecond}
	onNode(t, o, func(t *testing.T, r *rig) {
		run(t, "ip rule del priority 100 table 9027")
		rounds := 0
		for end := time.Now().Add(time.Second); time.Now().Before(end); rounds++ {
			awaitSignal(t, "routes", r.Routes())
			r.apply(t)
			run(t, "ip rule del priority 100 table 9027")
		}
		// 33 rounds at 5 ms, 5 while the interval doubles, then one each 160 ms.
		if rounds > 50 {
			t.Errorf("%d rounds in a second; undamped it would be 200", rounds)
		}
	})
}

func TestEveryKindOfDamageSignals(t *testing.T) {
	onNode(t, undamped, func(t *testing.T, r *rig) {
		for _, damage := range []string{
			"ip rule del priority 100 table 9027",
			"ip -6 rule del priority 100 table 9027",
			"ip route del 10.2.0.0/24 table 9027",
			"ip -6 route del fd00:2:1::/64 table 9027",
			"ip route add default dev eth0 table 9028",
			"ip neighbour del 10.0.0.1 dev raven0",
			"bridge fdb del aa:0f:0a:00:00:01 dst 10.0.0.1 dev raven0",
			"ip address del 10.0.0.5/32 dev raven0",
			"ip address del fd00::5/128 dev raven0",
			"ip link set raven0 down",
			"ip link del raven0",
			"ip link set eth0 mtu 1400",
			"ip address add 10.7.0.1/24 dev eth0",
			"ip route add default via 10.0.0.254 dev eth0",
			"sysctl -qw net.ipv4.ip_forward=1",
			"sysctl -qw net.ipv6.conf.all.forwarding=1",
			"sysctl -qw net.ipv4.conf.raven0.rp_filter=1",
			"ip link add raven-x type bridge",
		} {
			run(t, damage)
			signal := r.Kernel()
			if strings.HasPrefix(damage, "ip rule") || strings.Contains(damage, " table ") {
				signal = r.Routes()
			}
			select {
			case <-signal:
			case <-time.After(patienceForSignal):
				t.Errorf("%s: no signal came", damage)
			}
			r.apply(t)
			r.settle()
		}
	})
}

func TestPodsComingAndGoingSignalLinksAndDisturbNoApplier(t *testing.T) {
	onNode(t, undamped, func(t *testing.T, r *rig) {
		for _, step := range []string{
			"ip link add pod1 type veth peer name pod1-in",
			"ip link set pod1 up",
			"tc qdisc add dev pod1 clsact",
			"tc filter add dev pod1 ingress protocol all u32 match u32 0 0",
			"ip link del pod1",
		} {
			run(t, step)
			select {
			case <-r.Links():
			case <-time.After(patienceForSignal):
				t.Errorf("%s: no links signal came", step)
			}
		}
		run(t, "ip link add pod2 type veth peer name pod2-in")
		run(t, "ip link set pod2 up")
		run(t, "ip link set pod2-in up")
		r.settle()
		for _, step := range []string{
			"ip route add 10.1.2.9 dev pod2",
			"ip neighbour add 10.1.2.9 lladdr 02:00:00:00:00:09 dev pod2",
			"ip rule add priority 100 table 77",
			"ip rule add priority 99 table 9027",
			"ip route add 198.51.100.0/24 dev pod2 table 77",
			"ip link del pod2",
		} {
			run(t, step)
		}
		if n := r.settle(); n != 0 {
			t.Errorf("%d signals came for what is not Raven's", n)
		}
	})
}

func TestEventsThatWereLostInABurstSignalToo(t *testing.T) {
	netns.Run(t, func(t *testing.T) {
		w, err := New(Options{})
		if err != nil {
			t.Fatal(err)
		}
		// The smallest queue that the kernel allows holds a few events.
		conn, err := w.file.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		var sizeErr error
		err = conn.Control(func(fd uintptr) {
			sizeErr = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 1)
		})
		if err = errors.Join(err, sizeErr); err != nil {
			t.Fatal(err)
		}
		run(t, "ip link add noise type bridge")
		run(t, "ip link set noise up")
		for i := range 20 {
			run(t, fmt.Sprintf("ip route add 198.51.100.%d dev noise table 77", i))
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- w.Run(ctx) }()
		awaitSignal(t, "kernel", w.Kernel())
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestRunEndsWithItsContext(t *testing.T) {
	netns.Run(t, func(t *testing.T) {
		w, err := New(Options{})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- w.Run(ctx) }()
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(patienceForSignal):
			t.Fatal("it did not end")
		}
	})
}
