package route

import (
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	"github.com/ravencni/raven/pkg/datapath"
	"github.com/ravencni/raven/pkg/datapath/host"
	"github.com/ravencni/raven/pkg/datapath/overlay"
	"github.com/ravencni/raven/pkg/datapath/sysctl"
	"github.com/ravencni/raven/pkg/topology"
	"github.com/ravencni/raven/pkg/tunnel"
	"github.com/ravencni/raven/test/netns"
)

// plainName is a veth pair between the two gateways that stands in for a tunnel which carries Ethernet.
const plainName = "raven-plain0"

// world is pod -> member -> gateway -> cloud gateway -> pod, each a namespace, with a strict rp_filter on every device
// that is not Raven's and no route between the regions but Raven's.
type world struct {
	edgePod, member, gateway, cloud, cloudPod *netns.Namespace
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{netns.New(t), netns.New(t), netns.New(t), netns.New(t), netns.New(t)}
	for _, n := range []*netns.Namespace{w.member, w.gateway, w.cloud} {
		n.Do(t, func() { run(t, "sysctl -qw net.ipv4.conf.all.rp_filter=1 net.ipv4.conf.default.rp_filter=1") })
	}
	netns.Veth(t, netns.End{In: w.member, Name: "eth0", Addresses: []string{"10.0.0.5/24", "fd00::5/64"}},
		netns.End{In: w.gateway, Name: "eth0", Addresses: []string{"10.0.0.1/24", "fd00::1/64"}})
	netns.Veth(t, netns.End{In: w.gateway, Name: plainName, Addresses: []string{"10.0.0.1/32", "fd00::1/128"}},
		netns.End{In: w.cloud, Name: plainName, Addresses: []string{"172.16.0.1/32", "fd00:172::1/128"}})
	for n, own := range map[*netns.Namespace][]string{w.gateway: {gatewayIP, "fd00::1"}, w.cloud: {"172.16.0.1", "fd00:172::1"}} {
		n.Do(t, func() {
			// The next hops of IPv6 are the link-local addresses that follow from the MAC.
			run(t, "ip link set "+plainName+" down")
			run(t, "ip link set "+plainName+" address "+topology.VTEPMAC(addr(own[0])).String())
			run(t, "ip link set "+plainName+" up")
			run(t, "ip address replace "+own[1]+"/128 dev "+plainName+" nodad") // went with the device
		})
	}
	joinPod(t, w.member, w.edgePod, "10.1.2", "fd00:1:2:")
	joinPod(t, w.cloud, w.cloudPod, "10.2.1", "fd00:2:1:")
	// The pod network's way to the member's pods, without which the gateway's rp_filter has no way back.
	w.gateway.Do(t, func() { run(t, "ip route add default via 10.0.0.254 dev eth0") })
	return w
}

func joinPod(t *testing.T, node, pod *netns.Namespace, v4, v6 string) {
	t.Helper()
	netns.Veth(t, netns.End{In: node, Name: "pod", Addresses: []string{v4 + ".1/24", v6 + ":1/64"}},
		netns.End{In: pod, Name: "eth0", Addresses: []string{v4 + ".9/24", v6 + ":9/64"}})
	pod.Do(t, func() {
		run(t, "ip route add default via "+v4+".1")
		run(t, "ip -6 route add default via "+v6+":1")
	})
}

// cloudPlan is that of the gateway at the other end of the tunnel.
func cloudPlan() *topology.Plan {
	own := addr("172.16.0.1")
	plan := &topology.Plan{
		Node: "cloud-1", Region: "cloud", Role: topology.RoleGateway, NodeIP4: own, NodeIP6: addr("fd00:172::1"),
		LocalPrefixes: []netip.Prefix{prefix("10.2.1.0/24"), prefix("fd00:2:1::/64")},
		Tunnel:        &topology.Tunnel{Driver: "plain", MTU: 1405},
		NextHops: []topology.NextHop{
			{ID: "region/edge", Kind: topology.KindTunnel, Node: "edge-1", Underlay: addr(gatewayIP), MTU: 1405},
		},
	}
	for _, p := range []string{"10.0.0.1/32", "10.0.0.5/32", "10.1.2.0/24", "fd00::5/128", "fd00:1:2::/64"} {
		plan.Prefixes = append(plan.Prefixes, topology.Prefix{Prefix: prefix(p), Scope: topology.ScopeRemote, NextHop: "region/edge"})
	}
	return plan
}

// bring makes a node's kernel what its plan says.
func bring(t *testing.T, ns *netns.Namespace, plan *topology.Plan) {
	t.Helper()
	ns.Do(t, func() {
		var tun tunnel.Device
		if plan.Tunnel != nil {
			dev, err := net.InterfaceByName(plainName)
			if err != nil {
				t.Fatal(err)
			}
			tun = tunnel.Device{Name: plainName, Index: dev.Index, Ethernet: true, MTU: dev.MTU}
		}
		h := datapath.Host{Tunnel: tun}
		if plan.Overlay != nil {
			var err error
			if h, err = host.Resolve(plan, tun); err != nil {
				t.Fatal(err)
			}
		}
		for _, a := range []datapath.Applier{overlay.New(), sysctl.New(sysctl.Options{StateDir: t.TempDir()}), New()} {
			if _, err := a.Apply(t.Context(), plan, h); err != nil {
				t.Fatalf("%s: %v", a.Name(), err)
			}
		}
	})
}

// ping returns what ping(8) prints for one packet; each address answers or not, within two seconds.
func ping(t *testing.T, from *netns.Namespace, arguments string) (out string, answered bool) {
	t.Helper()
	from.Do(t, func() {
		b, err := exec.CommandContext(t.Context(), "ping", strings.Fields("-n -c 1 -W 2 "+arguments)...).CombinedOutput()
		out, answered = string(b), err == nil
	})
	return out, answered
}

func TestPacketsCrossThreeNodesUnderStrictReversePathFilters(t *testing.T) {
	netns.Run(t, func(t *testing.T) {
		w := newWorld(t)
		member, gateway := memberPlan(), gatewayPlan()
		for _, p := range []string{"172.16.0.1/32", "fd00:172::1/128"} {
			for _, plan := range []*topology.Plan{member, gateway} {
				plan.Prefixes = append(plan.Prefixes, topology.Prefix{Prefix: prefix(p), Scope: topology.ScopeRemote, NextHop: "region/cloud"})
			}
		}
		gateway.Prefixes = append(gateway.Prefixes, topology.Prefix{Prefix: prefix("fd00::5/128"), Scope: topology.ScopeInRegion, NextHop: "node/edge-2"})
		bring(t, w.member, member)
		bring(t, w.gateway, gateway)
		bring(t, w.cloud, cloudPlan())

		for _, way := range []struct {
			name string
			from *netns.Namespace
			to   string
			want string
		}{
			{"pod to pod", w.edgePod, "10.2.1.9", "ttl=61"},
			{"pod to pod, IPv6", w.edgePod, "fd00:2:1::9", "ttl=61"},
			{"pod to node", w.edgePod, "172.16.0.1", "ttl=62"},
			{"pod to node, IPv6", w.edgePod, "fd00:172::1", "ttl=62"},
			{"node to pod", w.member, "10.2.1.9", "ttl=62"},
			{"node to pod, IPv6", w.member, "fd00:2:1::9", "ttl=62"},
			{"node to node", w.member, "172.16.0.1", "ttl=63"},
			{"node to node, IPv6", w.member, "fd00:172::1", "ttl=63"},
			{"gateway to pod", w.gateway, "10.2.1.9", "ttl=63"},
			{"back, pod to pod", w.cloudPod, "10.1.2.9", "ttl=61"},
			{"back, pod to pod, IPv6", w.cloudPod, "fd00:1:2::9", "ttl=61"},
			{"back, pod to node", w.cloudPod, "10.0.0.5", "ttl=62"},
			{"back, node to node, IPv6", w.cloud, "fd00::5", "ttl=63"},
			{"oversize with DF", w.edgePod, "-M do -s 1472 10.2.1.9", "mtu = 1355"},
			{"oversize, IPv6", w.edgePod, "-M do -s 1400 fd00:2:1::9", "mtu=1355"},
			{"large without DF", w.edgePod, "-M dont -s 3000 10.2.1.9", "ttl=61"},
			{"a region without a way", w.member, "10.3.1.1", "No route"},
		} {
			if out, _ := ping(t, way.from, way.to); !strings.Contains(out, way.want) {
				t.Errorf("%s: no %q in\n%s", way.name, way.want, out)
			}
		}
		w.gateway.Do(t, func() {
			out := run(t, "ip -s link show raven0")
			if strings.Contains(strings.ReplaceAll(out, " ", ""), "RX:bytespacketserrorsdroppedmissedmcast\n000000") {
				t.Errorf("nothing came over the overlay:\n%s", out)
			}
		})
	})
}
