package plain

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"github.com/ravencni/raven/pkg/datapath/gro"
	"github.com/ravencni/raven/pkg/topology"
	"github.com/ravencni/raven/pkg/tunnel"
	testns "github.com/ravencni/raven/test/netns"
)

// host is a thread in a network namespace of its own that runs what it is given.
type host struct {
	t    *testing.T
	ns   netns.NsHandle
	work chan func()
	*Driver
}

func newHost(t *testing.T) *host {
	t.Helper()
	d, err := New(Options{AllowUnencrypted: true})
	if err != nil {
		t.Fatal(err)
	}
	h := &host{t: t, work: make(chan func()), Driver: d}
	var wg sync.WaitGroup
	ready := make(chan error, 1)
	wg.Go(func() {
		testns.Run(t, func(*testing.T) {
			var err error
			h.ns, err = netns.Get()
			ready <- err
			for f := range h.work {
				f()
			}
		})
		close(ready)
	})
	if err, ok := <-ready; !ok || err != nil {
		t.Fatalf("make a host: %v", err)
	}
	t.Cleanup(func() {
		close(h.work)
		wg.Wait()
		h.ns.Close()
	})
	return h
}

func (h *host) do(f func() error) {
	h.t.Helper()
	done := make(chan error)
	h.work <- func() { done <- f() }
	if err := <-done; err != nil {
		h.t.Fatal(err)
	}
}

func (h *host) run(line string) string {
	h.t.Helper()
	var out []byte
	h.do(func() (err error) {
		args := strings.Fields(line)
		if out, err = exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			err = fmt.Errorf("%s: %w: %s", line, err, out)
		}
		return err
	})
	return string(out)
}

// apply applies plan and checks the number of writes; -1 takes any.
func (h *host) apply(plan *topology.Plan, changes int) (result tunnel.Result) {
	h.t.Helper()
	h.do(func() (err error) {
		result, err = h.Apply(context.Background(), plan)
		return err
	})
	if changes >= 0 && result.Changes != changes {
		h.t.Errorf("Apply made %d writes, want %d", result.Changes, changes)
	}
	return result
}

func (h *host) applyError(plan *topology.Plan) error {
	h.t.Helper()
	var err error
	h.do(func() error {
		_, err = h.Apply(context.Background(), plan)
		return nil
	})
	return err
}

// plan of a gateway with one peer; node addresses and endpoints differ, as behind a 1:1 NAT.
func plan(own string, peers ...[2]string) *topology.Plan {
	p := &topology.Plan{Role: topology.RoleGateway, Tunnel: &topology.Tunnel{Driver: Name, ListenPort: 4500, MTU: 1450}}
	if a := netip.MustParseAddr(own); a.Is4() {
		p.NodeIP4 = a
	} else {
		p.NodeIP6 = a
	}
	for i, peer := range peers {
		name := fmt.Sprintf("peer-%d", i)
		pl := topology.Peer{Region: name, Node: name}
		if peer[1] != "" {
			pl.Endpoint = netip.MustParseAddrPort(peer[1])
		}
		underlay := netip.MustParseAddr(peer[0])
		p.Tunnel.Peers = append(p.Tunnel.Peers, pl)
		p.NextHops = append(p.NextHops, topology.NextHop{
			ID: "region/" + name, Kind: topology.KindTunnel, Node: name, Underlay: underlay, MAC: topology.VTEPMAC(underlay),
		})
	}
	return p
}

// cabled makes two hosts on one cable.
func cabled(t *testing.T, addrA, addrB string) (a, b *host) {
	t.Helper()
	a, b = newHost(t), newHost(t)
	a.do(func() error {
		return netlink.LinkAdd(&netlink.Veth{
			LinkAttrs: netlink.LinkAttrs{Name: "eth0"}, PeerName: "eth0", PeerNamespace: netlink.NsFd(int(b.ns)),
		})
	})
	for h, addr := range map[*host]string{a: addrA, b: addrB} {
		h.run("ip addr add " + addr + " dev eth0 nodad")
		h.run("ip link set eth0 up")
	}
	return a, b
}

func TestPlainMustBeAllowedExplicitly(t *testing.T) {
	if _, err := New(Options{}); err == nil || !strings.Contains(err.Error(), "AllowUnencrypted") {
		t.Errorf("New without AllowUnencrypted: %v", err)
	}
}

func TestTwoGatewaysPingOverVXLANAndTenMoreAppliesWriteNothing(t *testing.T) {
	for name, c := range map[string]struct{ underA, underB, nodeA, nodeB string }{
		"IPv4": {"192.0.2.1", "192.0.2.2", "10.0.0.1", "10.0.1.1"},
		"IPv6": {"2001:db8::1", "2001:db8::2", "2001:db8::1", "2001:db8::2"},
	} {
		t.Run(name, func(t *testing.T) {
			bits := map[string]string{"IPv4": "/24", "IPv6": "/64"}[name]
			a, b := cabled(t, c.underA+bits, c.underB+bits)
			planA := plan(c.nodeA, [2]string{c.nodeB, netip.AddrPortFrom(netip.MustParseAddr(c.underB), 4500).String()})
			planB := plan(c.nodeB, [2]string{c.nodeA, netip.AddrPortFrom(netip.MustParseAddr(c.underA), 4500).String()})
			result := a.apply(planA, -1)
			if !result.Device.Ethernet || result.Device.Index == 0 {
				t.Errorf("Apply reports the device %+v", result.Device)
			}
			// The programs take the encapsulation off over IPv4 only.
			want := map[string]tunnel.VXLAN{"IPv4": {VNI: VNI, Address: netip.MustParseAddr(c.underA)}}[name]
			if result.Device.VXLAN != want {
				t.Errorf("Apply reports VXLAN %+v, want %+v", result.Device.VXLAN, want)
			}
			a.do(func() error {
				if on, err := gro.Off(DefaultDevice); on || err != nil {
					return fmt.Errorf("the device merges segments: %v, %w", on, err)
				}
				return nil
			})
			b.apply(planB, -1)
			for h, podOfPeer := range map[*host][2]string{a: {"10.2.0.1", "fd00:2::1"}, b: {"10.1.0.1", "fd00:1::1"}} {
				peer := map[*host]string{a: c.nodeB, b: c.nodeA}[h]
				own := map[*host][2]string{a: {"10.1.0.1/32", "fd00:1::1/128"}, b: {"10.2.0.1/32", "fd00:2::1/128"}}[h]
				h.run("ip addr add " + own[0] + " dev lo nodad")
				h.run("ip addr add " + own[1] + " dev lo nodad")
				ll := topology.LinkLocalFromMAC(topology.VTEPMAC(netip.MustParseAddr(peer))).String()
				h.run("ip -6 route add " + podOfPeer[1] + " via " + ll + " dev " + DefaultDevice + " src " + strings.TrimSuffix(own[1], "/128"))
				if name == "IPv4" {
					h.run("ip route add " + podOfPeer[0] + " via " + peer + " dev " + DefaultDevice + " onlink src " + strings.TrimSuffix(own[0], "/32"))
				}
			}
			a.run("ping -c 2 -i 0.01 -W 5 fd00:2::1")
			if name == "IPv4" {
				a.run("ping -c 2 -i 0.01 -W 5 10.2.0.1")
			}
			before := a.tables()
			for range 10 {
				a.apply(planA, 0)
			}
			if after := a.tables(); after != before {
				t.Errorf("the tables changed from\n%sto\n%s", before, after)
			}
			a.do(func() error {
				list, err := a.Status(context.Background())
				if err == nil && (len(list) != 1 || list[0].State != tunnel.StateUp) {
					err = fmt.Errorf("status %+v", list)
				}
				return err
			})
		})
	}
}

// tables is all that the driver writes. The link-local address is the kernel's, which tries it for a second.
func (h *host) tables() string {
	return h.run("bridge fdb show dev "+DefaultDevice) + h.run("ip -4 neigh show dev "+DefaultDevice+" nud permanent") +
		h.run("ip -6 neigh show dev "+DefaultDevice+" nud permanent") + h.run("ip -o addr show dev "+DefaultDevice+" scope global") +
		h.run("ip -d -o link show dev "+DefaultDevice)
}

func TestEachEntryDeletedByHandComesBackWithOneWrite(t *testing.T) {
	a, _ := cabled(t, "192.0.2.1/24", "192.0.2.2/24")
	p := plan("10.0.0.1", [2]string{"10.0.1.1", "192.0.2.2:4500"}, [2]string{"10.0.2.1", "192.0.2.3:4500"})
	a.apply(p, -1)
	want := a.tables()
	for _, damage := range []string{
		"bridge fdb del aa:0f:0a:00:01:01 dev raven-plain0 dst 192.0.2.2",
		"bridge fdb replace aa:0f:0a:00:01:01 dev raven-plain0 dst 192.0.2.9",
		"bridge fdb append 00:00:00:00:00:00 dev raven-plain0 dst 192.0.2.9",
		"bridge fdb add aa:0f:0a:00:09:09 dev raven-plain0 dst 192.0.2.9",
		"ip neigh del 10.0.1.1 dev raven-plain0",
		"ip neigh replace 10.0.2.1 lladdr aa:aa:aa:aa:aa:aa dev raven-plain0",
		"ip neigh add 10.0.9.9 lladdr aa:aa:aa:aa:aa:aa dev raven-plain0",
		"ip neigh del fe80::a80f:aff:fe00:101 dev raven-plain0",
		"ip addr add 10.0.0.2/24 dev raven-plain0",
		"ip link set raven-plain0 mtu 1300",
	} {
		a.run(damage)
		if r := a.apply(p, -1); r.Changes != 1 {
			t.Errorf("after %q Apply made %d writes, want 1", damage, r.Changes)
		}
		if got := a.tables(); sorted(got) != sorted(want) {
			t.Errorf("after %q:\n%swant\n%s", damage, got, want)
		}
	}
	// With the last IPv4 address the kernel drops the IPv4 neighbours.
	a.run("ip addr del 10.0.0.1/32 dev raven-plain0")
	a.apply(p, 3)
	if got := a.tables(); sorted(got) != sorted(want) {
		t.Errorf("after the address went:\n%swant\n%s", got, want)
	}
}

// sorted puts the lines in order, since a row that comes back goes to the end of its table.
func sorted(s string) string {
	return strings.Join(slices.Sorted(strings.Lines(s)), "")
}

func TestADeletedDeviceIsMadeAgainAndALostRoleRemovesIt(t *testing.T) {
	a, _ := cabled(t, "192.0.2.1/24", "192.0.2.2/24")
	p := plan("10.0.0.1", [2]string{"10.0.1.1", "192.0.2.2:4500"})
	a.apply(p, -1)
	a.run("ip link del raven-plain0")
	a.apply(p, -1)
	a.apply(p, 0)
	p.Tunnel.ListenPort, p.Tunnel.Peers[0].Endpoint = 4501, netip.MustParseAddrPort("192.0.2.2:4501")
	a.apply(p, -1)
	if got := a.run("ip -d link show dev raven-plain0"); !strings.Contains(got, "dstport 4501") {
		t.Errorf("the port has not changed: %s", got)
	}
	a.apply(&topology.Plan{}, 1)
	a.apply(&topology.Plan{}, 0)
	a.apply(p, -1)
	a.do(func() error { return errors.Join(a.Cleanup(context.Background()), a.Cleanup(context.Background())) })
	if got := a.run("ip -o link"); strings.Contains(got, DefaultDevice) {
		t.Errorf("the device is still there: %s", got)
	}
}

func TestOneUnreachablePeerCostsOnlyItself(t *testing.T) {
	a, _ := cabled(t, "192.0.2.1/24", "192.0.2.2/24")
	p := plan("10.0.0.1",
		[2]string{"10.0.1.1", "192.0.2.2:4500"},
		[2]string{"10.0.2.1", ""},                   // behind a NAT
		[2]string{"10.0.3.1", "192.0.2.4:4501"},     // another port
		[2]string{"10.0.1.1", "192.0.2.5:4500"},     // the same node address
		[2]string{"10.0.5.1", "[2001:db8::5]:4500"}, // another family
		[2]string{"10.0.0.1", "192.0.2.6:4500"},     // our own address
	)
	err := a.applyError(p)
	for i, want := range []string{1: "behind a NAT", 2: "another port", 3: "node peer-0's too", 4: "another family", 5: "this node's own"} {
		if name := fmt.Sprintf("region peer-%d (node peer-%d)", i, i); i > 0 && (!strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), want)) {
			t.Errorf("no word of %s, %s in: %v", name, want, err)
		}
	}
	if got := a.run("bridge fdb show dev raven-plain0"); !strings.Contains(got, "aa:0f:0a:00:01:01 dst 192.0.2.2") || strings.Count(got, " dst ") != 1 {
		t.Errorf("the FDB is\n%s", got)
	}
}

func TestAPortHeldByAnotherProgramIsNamed(t *testing.T) {
	a, _ := cabled(t, "192.0.2.1/24", "192.0.2.2/24")
	var other net.PacketConn
	a.do(func() (err error) {
		other, err = net.ListenPacket("udp4", ":4500")
		return err
	})
	p := plan("10.0.0.1", [2]string{"10.0.1.1", "192.0.2.2:4500"})
	if err := a.applyError(p); err == nil || !strings.Contains(err.Error(), "UDP port 4500 is held by another program") {
		t.Errorf("Apply with a busy port: %v", err)
	}
	other.Close()
	a.apply(p, 1)
}

func TestAForeignDeviceOfTheSameNameStays(t *testing.T) {
	a := newHost(t)
	a.run("ip link add raven-plain0 type bridge")
	if err := a.applyError(plan("10.0.0.1", [2]string{"10.0.1.1", "192.0.2.2:4500"})); err == nil || !strings.Contains(err.Error(), "type bridge") {
		t.Errorf("Apply over a bridge: %v", err)
	}
	if err := a.applyError(&topology.Plan{}); err == nil {
		t.Error("a lost role deletes a bridge")
	}
	a.run("ip link show dev raven-plain0")
}
