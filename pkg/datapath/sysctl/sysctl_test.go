package sysctl

import (
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ravencni/raven/pkg/datapath"
	"github.com/ravencni/raven/pkg/topology"
	"github.com/ravencni/raven/pkg/tunnel"
	"github.com/ravencni/raven/test/netns"
)

func plan(role topology.Role) *topology.Plan {
	p := &topology.Plan{
		Role: role, NodeIP4: netip.MustParseAddr("10.0.0.5"), NodeIP6: netip.MustParseAddr("fd00::5"),
		Overlay: &topology.Overlay{},
	}
	if role == topology.RoleGateway {
		p.Tunnel = &topology.Tunnel{}
	}
	return p
}

func none() *topology.Plan { return &topology.Plan{Role: topology.RoleNone} }

// hostWith makes the underlay and Raven's devices (bridges stand in for them) and returns what a pass finds.
func hostWith(t *testing.T) datapath.Host {
	t.Helper()
	for _, c := range []string{
		"ip link add eth0 type bridge", "ip link add raven0 type bridge", "ip link add raven-wg0 type bridge",
		"ip link set eth0 up", "ip link set raven0 up", "ip link set raven-wg0 up",
	} {
		run(t, c)
	}
	return datapath.Host{
		Underlays: []datapath.Link{{Name: "eth0"}}, Tunnel: tunnel.Device{Name: "raven-wg0"},
	}
}

func run(t *testing.T, command string) {
	t.Helper()
	fields := strings.Fields(command)
	if out, err := exec.Command(fields[0], fields[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", command, err, out)
	}
}

func apply(t *testing.T, a *Applier, p *topology.Plan, h datapath.Host) int {
	t.Helper()
	n, err := a.Apply(t.Context(), p, h)
	if err != nil {
		t.Fatalf("apply: %v", err)
	}
	return n
}

func set(t *testing.T, key, value string) {
	t.Helper()
	if err := Write(key, value); err != nil {
		t.Fatal(err)
	}
}

func expect(t *testing.T, want map[string]string) {
	t.Helper()
	for key, value := range want {
		if got, err := Read(key); err != nil || got != value {
			t.Errorf("%s is %q, %v; want %q", key, got, err, value)
		}
	}
}

// all reads every sysctl of the namespace that can be read, to compare before with after.
func all(t *testing.T) map[string]string {
	t.Helper()
	values := map[string]string{}
	for _, dir := range []string{"net/ipv4", "net/ipv6", "net/netfilter"} {
		err := filepath.WalkDir(filepath.Join(root, dir), func(path string, d os.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			if b, err := os.ReadFile(path); err == nil {
				values[path[len(root)+1:]] = string(b)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, counter := range []string{"net/netfilter/nf_conntrack_count", "net/ipv4/route/gc_thresh"} {
		delete(values, counter)
	}
	return values
}

func compare(t *testing.T, before, after map[string]string) {
	t.Helper()
	if len(before) < 100 {
		t.Fatalf("only %d values were read", len(before))
	}
	for key, want := range before {
		if got := after[key]; got != want {
			t.Errorf("%s was %q and is %q", key, want, got)
		}
	}
}

func TestAGatewaysSettingsAreMadeOnceAndRecorded(t *testing.T) {
	netns.Run(t, func(t *testing.T) {
		h := hostWith(t)
		a := New(Options{Acceleration: true})
		if n := apply(t, a, plan(topology.RoleGateway), h); n == 0 {
			t.Error("the first apply counted no write")
		}
		want := map[string]string{
			forward4: "1", forward6: "1", sendRedirects: "0", beLiberal: "1", ignoreInvalidRST: "1",
			"net/ipv6/conf/eth0/accept_ra": "2",
		}
		for _, device := range []string{"raven0", "raven-wg0"} {
			want["net/ipv4/conf/"+device+"/rp_filter"] = "2"
			want["net/ipv4/conf/"+device+"/accept_redirects"] = "0"
			want["net/ipv4/conf/"+device+"/send_redirects"] = "0"
			want["net/ipv6/conf/"+device+"/accept_ra"] = "0"
			want["net/ipv6/conf/"+device+"/accept_redirects"] = "0"
		}
		expect(t, want)
		before := all(t)
		for range 10 {
			if n := apply(t, a, plan(topology.RoleGateway), h); n != 0 {
				t.Fatalf("an apply of the same plan counted %d writes", n)
			}
		}
		compare(t, before, all(t))
		b, err := os.ReadFile(filepath.Join(datapath.StateDir, "sysctls.json"))
		if err != nil || !strings.Contains(string(b), `"key": "net/ipv4/ip_forward"`) || strings.Contains(string(b), "rp_filter") {
			t.Errorf("%v, record:\n%s", err, b)
		}
	})
}

func TestCleanupRestoresEveryValue(t *testing.T) {
	netns.Run(t, func(t *testing.T) {
		h := hostWith(t)
		// A host that forwards between some devices only: switching the whole family overwrites these.
		set(t, "net/ipv4/conf/eth0/forwarding", "1")
		set(t, "net/ipv6/conf/eth0/forwarding", "1")
		set(t, "net/ipv4/conf/default/forwarding", "1")
		set(t, beLiberal, "0")
		a := New(Options{Acceleration: true})
		before := all(t)
		apply(t, a, plan(topology.RoleGateway), h)
		run(t, "ip link del raven0")
		run(t, "ip link del raven-wg0")
		for range 2 {
			if err := a.Cleanup(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		for key := range before {
			if strings.Contains(key, "/raven") {
				delete(before, key)
			}
		}
		compare(t, before, all(t))
		if _, err := os.Stat(filepath.Join(datapath.StateDir, "sysctls.json")); !os.IsNotExist(err) {
			t.Errorf("the record is still there: %v", err)
		}
	})
}

func TestARoleOrSwitchThatEndsGivesItsSettingsBack(t *testing.T) {
	netns.Run(t, func(t *testing.T) {
		h := hostWith(t)
		apply(t, New(Options{Acceleration: true}), plan(topology.RoleGateway), h)
		apply(t, New(Options{Acceleration: false}), plan(topology.RoleGateway), h)
		expect(t, map[string]string{beLiberal: "0", ignoreInvalidRST: "0", sendRedirects: "0", forward4: "1"})
		apply(t, New(Options{}), plan(topology.RoleMember), h)
		expect(t, map[string]string{sendRedirects: "1", forward4: "1", forward6: "1"})
		apply(t, New(Options{}), none(), datapath.Host{})
		expect(t, map[string]string{forward4: "0", forward6: "0", "net/ipv6/conf/eth0/accept_ra": "1"})
		if n := apply(t, New(Options{}), none(), datapath.Host{}); n != 0 {
			t.Errorf("%d writes were left over", n)
		}
	})
}

func TestAValueThatSomebodyElseChangedSinceStays(t *testing.T) {
	netns.Run(t, func(t *testing.T) {
		h := hostWith(t)
		a := New(Options{Acceleration: true})
		apply(t, a, plan(topology.RoleMember), h)
		set(t, "net/ipv6/conf/eth0/accept_ra", "0")
		if err := a.Cleanup(t.Context()); err != nil {
			t.Fatal(err)
		}
		expect(t, map[string]string{"net/ipv6/conf/eth0/accept_ra": "0", forward4: "0", beLiberal: "0"})
	})
}

func TestAValueThatWasRightBeforeIsNotOurs(t *testing.T) {
	netns.Run(t, func(t *testing.T) {
		h := hostWith(t)
		set(t, forward4, "1")
		set(t, forward6, "1")
		set(t, ignoreInvalidRST, "1")
		a := New(Options{Acceleration: true})
		apply(t, a, plan(topology.RoleMember), h)
		// With IPv6 forwarding on already, advertisements were not accepted before either.
		expect(t, map[string]string{"net/ipv6/conf/eth0/accept_ra": "1"})
		if err := a.Cleanup(t.Context()); err != nil {
			t.Fatal(err)
		}
		expect(t, map[string]string{forward4: "1", forward6: "1", ignoreInvalidRST: "1", beLiberal: "0"})
	})
}

func TestAnUndoneValueIsSetAgainAndTheFirstOldValueIsKept(t *testing.T) {
	netns.Run(t, func(t *testing.T) {
		h := hostWith(t)
		a := New(Options{Acceleration: true})
		apply(t, a, plan(topology.RoleMember), h)
		for _, key := range []string{forward4, beLiberal, "net/ipv4/conf/raven0/rp_filter"} {
			set(t, key, "0")
			if n := apply(t, a, plan(topology.RoleMember), h); n == 0 {
				t.Errorf("%s was not repaired", key)
			}
		}
		expect(t, map[string]string{forward4: "1", beLiberal: "1", "net/ipv4/conf/raven0/rp_filter": "2"})
		if err := a.Cleanup(t.Context()); err != nil {
			t.Fatal(err)
		}
		expect(t, map[string]string{forward4: "0", beLiberal: "0"})
	})
}

func TestDevicesThatAreNotThereYetAreSkipped(t *testing.T) {
	netns.Run(t, func(t *testing.T) {
		apply(t, New(Options{}), plan(topology.RoleGateway), datapath.Host{Tunnel: tunnel.Device{Name: "raven-wg0"}})
		expect(t, map[string]string{forward4: "1"})
	})
}

func TestARecordOfAnotherBootIsVoid(t *testing.T) {
	netns.Run(t, func(t *testing.T) {
		h := hostWith(t)
		a := New(Options{})
		apply(t, a, plan(topology.RoleMember), h)
		b, err := os.ReadFile(a.path)
		if err != nil {
			t.Fatal(err)
		}
		life, err := currentLife()
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(a.path, []byte(strings.Replace(string(b), life, "another", 1)), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := a.Cleanup(t.Context()); err != nil {
			t.Fatal(err)
		}
		expect(t, map[string]string{forward4: "1"}) // as the new boot's own configuration has it
	})
}

func TestARecordThatCannotBeReadOrWrittenLeavesTheHostAlone(t *testing.T) {
	for name, spoil := range map[string]func(t *testing.T, path string){
		"unreadable": func(t *testing.T, path string) {
			if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
				t.Fatal(err)
			}
		},
		"unwritable": func(t *testing.T, path string) {
			if err := os.RemoveAll(filepath.Dir(path)); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Dir(path), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			netns.Run(t, func(t *testing.T) {
				h := hostWith(t)
				a := New(Options{Acceleration: true})
				spoil(t, a.path)
				if _, err := a.Apply(t.Context(), plan(topology.RoleGateway), h); err == nil {
					t.Error("no error")
				}
				expect(t, map[string]string{forward4: "0", beLiberal: "0", "net/ipv4/conf/raven0/rp_filter": "2"})
			})
		})
	}
}

func TestAPlanOfOneFamilyLeavesForwardingOfTheOtherAlone(t *testing.T) {
	netns.Run(t, func(t *testing.T) {
		h := hostWith(t)
		p := plan(topology.RoleMember)
		p.NodeIP6 = netip.Addr{}
		apply(t, New(Options{}), p, h)
		expect(t, map[string]string{forward4: "1", forward6: "0", "net/ipv6/conf/eth0/accept_ra": "1"})
	})
}

func TestIPv6OnTheOverlayEndsWhereTheFarthestNextHopDoes(t *testing.T) {
	netns.Run(t, func(t *testing.T) {
		h := hostWith(t)
		a := New(Options{})
		p := plan(topology.RoleMember)
		p.Overlay.MTU = 1450
		hops := func(mtus ...int) {
			p.NextHops = nil
			for _, mtu := range mtus {
				p.NextHops = append(p.NextHops, topology.NextHop{Kind: topology.KindOverlay, MTU: mtu})
			}
		}
		const key = "net/ipv6/conf/raven0/mtu"
		for _, c := range []struct {
			hops []int
			want string
		}{{[]int{1405, 1300}, "1405"}, {[]int{1300}, "1300"}, {[]int{1279}, "1300"}, {[]int{1451}, "1300"}, {nil, "1300"}} {
			hops(c.hops...)
			apply(t, a, p, h)
			expect(t, map[string]string{key: c.want})
		}
		hops(1405)
		if first, second := apply(t, a, p, h), apply(t, a, p, h); first != 1 || second != 0 {
			t.Errorf("a new MTU took %d writes, and the next apply %d", first, second)
		}
	})
}
