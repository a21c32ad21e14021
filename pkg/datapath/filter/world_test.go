package filter

import (
	"fmt"
	"net"
	"os"
	"strings"
	"testing"

	vnetns "github.com/vishvananda/netns"

	"github.com/ravencni/raven/pkg/datapath"
	"github.com/ravencni/raven/pkg/topology"
	"github.com/ravencni/raven/pkg/tunnel"
	"github.com/ravencni/raven/test/netns"
)

// world is a node with the filter under test, a LAN that it shares with the others of its region, two pods behind
// devices of their own, and the other regions at the far end of a tunnel.
//
//	pod1 10.1.1.2 ---veth1-+
//	pod2 10.1.1.3 ---veth2-+- node 192.168.1.1 ---raven-wg0--- remote 10.2.0.5, 10.3.0.5
//	                       |        raven0 (VXLAN 200)
//	lan 192.168.1.2 ..9 ---eth0
type world struct {
	node, lan, pod1, pod2, remote *box
	filter                        *Applier
	plan                          *topology.Plan
	host                          datapath.Host
	mac                           net.HardwareAddr // of the node's raven0
}

func newBox(t testing.TB) *box {
	t.Helper()
	old, err := vnetns.Get()
	if err != nil {
		t.Fatalf("get the current namespace: %v", err)
	}
	defer old.Close()
	ns, err := vnetns.New()
	if err != nil {
		t.Fatalf("make a namespace: %v", err)
	}
	if err := vnetns.Set(old); err != nil {
		t.Fatalf("go back to the first namespace: %v", err)
	}
	b := &box{t, ns}
	t.Cleanup(func() { ns.Close() })
	return b
}

// inWorld makes a world and calls f; the filter is not applied yet.
func inWorld(t *testing.T, role topology.Role, f func(t *testing.T, w *world)) {
	netns.Run(t, func(t *testing.T) {
		f(t, newWorld(t, role))
	})
}

// newWorld makes the current namespace the node of a world.
func newWorld(t testing.TB, role topology.Role) *world {
	t.Helper()
	self, err := vnetns.Get()
	if err != nil {
		t.Fatalf("get the current namespace: %v", err)
	}
	t.Cleanup(func() { self.Close() })
	w := &world{node: &box{t, self}, lan: newBox(t), pod1: newBox(t), pod2: newBox(t), remote: newBox(t), filter: New(Options{})}
	w.mac = topology.VTEPMAC(addr("192.168.1.1"))
	for _, b := range []*box{w.node, w.lan, w.pod1, w.pod2, w.remote} {
		b.sysctl("net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.default.rp_filter=0", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
	}
	link := func(dev string, b *box) string {
		return fmt.Sprintf("link add %s type veth peer name eth0 netns /proc/%d/fd/%d", dev, os.Getpid(), int(b.ns))
	}
	w.node.ip(
		link("eth0", w.lan), link("veth1", w.pod1), link("veth2", w.pod2), link("raven-wg0", w.remote),
		"link add raven0 address "+w.mac.String()+" type vxlan id 200 dstport 4472 local 192.168.1.1 nolearning",
		"link set eth0 up", "link set veth1 up", "link set veth2 up", "link set raven-wg0 up", "link set raven0 up",
		"addr add 192.168.1.1/24 dev eth0", "addr add fd01::1/64 dev eth0",
		"addr add 169.254.1.1/32 dev veth1", "addr add 169.254.1.1/32 dev veth2",
		"addr add 192.168.1.1/32 dev raven0", "addr add 192.168.1.1/32 dev raven-wg0", "addr add fd01::1/128 dev raven-wg0",
		"route add 10.1.1.2/32 dev veth1", "route add 10.1.1.3/32 dev veth2",
		"route add fd10:1:1::2/128 dev veth1", "route add fd10:1:1::3/128 dev veth2",
	)
	w.lan.ip("link set lo up", "link set eth0 up", "addr add 192.168.1.2/24 dev eth0", "addr add 192.168.1.9/24 dev eth0",
		"addr add fd01::2/64 dev eth0", "addr add fd01::9/64 dev eth0",
		"link add raven0 address "+topology.VTEPMAC(addr("192.168.1.2")).String()+" type vxlan id 200 dstport 4472 local 192.168.1.2 nolearning",
		"link set raven0 up", "addr add 10.1.2.2/32 dev lo", "addr add fd10:1:2::2/128 dev lo",
		"neigh add 192.168.1.1 lladdr "+w.mac.String()+" dev raven0 nud permanent",
		"route add default via 192.168.1.1 dev eth0 ", "route add default via fd01::1 dev eth0",
	)
	w.lan.run("bridge", "fdb", "append", w.mac.String(), "dev", "raven0", "dst", "192.168.1.1")
	w.node.run("bridge", "fdb", "append", topology.VTEPMAC(addr("192.168.1.2")).String(), "dev", "raven0", "dst", "192.168.1.2")
	w.node.ip("neigh add 192.168.1.2 lladdr " + topology.VTEPMAC(addr("192.168.1.2")).String() + " dev raven0 nud permanent")
	for i, p := range []*box{w.pod1, w.pod2} {
		a4, a6 := fmt.Sprintf("10.1.1.%d", i+2), fmt.Sprintf("fd10:1:1::%d", i+2)
		p.ip("link set lo up", "link set eth0 up", "addr add "+a4+"/32 dev eth0", "addr add "+a6+"/128 dev eth0",
			"route add 169.254.1.1/32 dev eth0", "route add default via 169.254.1.1 dev eth0", "route add default via fe80::1 dev eth0")
		w.node.ip(fmt.Sprintf("addr add fe80::1/64 dev veth%d", i+1))
	}
	w.remote.ip("link set lo up", "link set eth0 up", "addr add 10.2.0.5/32 dev eth0", "addr add 10.3.0.5/32 dev lo",
		"addr add fd10:2::5/128 dev eth0", "route add default via 192.168.1.1 dev eth0 onlink",
		"route add default via fe80::1 dev eth0")
	w.node.ip("addr add fe80::1/64 dev raven-wg0")
	w.plan, w.host = gatewayPlan()
	w.plan.Role = role
	switch role {
	case topology.RoleGateway:
		w.node.ip("route add 10.2.0.0/16 dev raven-wg0", "route add 10.3.0.0/16 dev raven-wg0", "route add fd10:2::/48 dev raven-wg0",
			"route add 10.1.2.0/24 via 192.168.1.2 dev raven0 onlink")
		w.lan.ip("route add 10.2.0.0/16 via 192.168.1.1 dev raven0 onlink src 10.1.2.2")
	case topology.RoleMember:
		w.node.ip("link del raven-wg0", "route add 10.2.0.0/16 via 192.168.1.2 dev raven0 onlink")
		w.lan.ip("addr add 10.2.0.5/32 dev lo", "route add 10.1.1.0/24 via 192.168.1.1 dev raven0 onlink src 10.2.0.5")
		w.plan.Tunnel, w.host.Tunnel = nil, tunnel.Device{}
		w.plan.Prefixes = w.plan.Prefixes[2:]
	}
	return w
}

func (w *world) apply(t testing.TB) int {
	t.Helper()
	return mustApply(t, w.filter, w.plan, w.host)
}

// counted asserts that f, which sends packets that must not arrive, adds n to the counter and nothing to the others.
func (w *world) counted(t *testing.T, name string, n uint64, f func()) {
	t.Helper()
	before := w.counters(t)
	f()
	eventually(t, fmt.Sprintf("%d packets more in %s", n, name), func() (bool, string) {
		after := w.counters(t)
		for k := range after {
			want := before[k].Packets
			if k == name {
				want += n
			}
			if after[k].Packets != want {
				return false, fmt.Sprintf("before %v, after %v", before, after)
			}
		}
		return true, ""
	})
}

func (w *world) counters(t *testing.T) map[string]Counter {
	t.Helper()
	c, err := w.filter.Counters(t.Context())
	if err != nil {
		t.Fatalf("read the counters: %v", err)
	}
	return c
}

// conntrack lists the node's connections that mention an address.
func (w *world) conntrack(t *testing.T, address string) string {
	t.Helper()
	var out []string
	for _, family := range []string{"ipv4", "ipv6"} {
		for line := range strings.Lines(w.node.run("conntrack", "-L", "-f", family, "-o", "extended")) {
			if strings.Contains(line, address+" ") {
				out = append(out, line)
			}
		}
	}
	return strings.Join(out, "")
}
