package faults

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/ravencni/raven/bpf"
	"github.com/ravencni/raven/pkg/ctl/doctor"
)

// stopped are faults of nodes whose agent does not run, since a running one repairs them at once.
var stopped = []fault{
	{name: "route dropped", at: "east-2", inject: "ip route del 10.244.32.0/24 dev raven0 table 9027",
		check: "routes", words: []string{"route 10.244.32.0/24 table 9027"}},
	{name: "foreign route in our table", at: "east-2", inject: "ip route add 10.244.99.0/24 via 172.16.1.1 table 9027",
		undo: "ip route del 10.244.99.0/24 table 9027", check: "routes", words: []string{"delete route 10.244.99.0/24"}},
	{name: "rule missing", at: "east-2", inject: "ip rule del priority 100",
		check: "routes", words: []string{"IPv4 rule", "priority 100 table 9027"}},
	{name: "foreign rule with lower priority", at: "east-2", inject: "ip rule add priority 50 lookup main",
		undo: "ip rule del priority 50", check: "rules", words: []string{"priority 50", "takes all packets"}},
	{name: "missing FDB entry", at: "east-2", inject: "bridge fdb del aa:0f:ac:10:01:0b dev raven0",
		check: "raven0", words: []string{"set forwarding entry aa:0f:ac:10:01:0b", "node east-1"}},
	{name: "wrong FDB entry", at: "east-1", inject: "bridge fdb replace aa:0f:ac:10:01:0c dev raven0 dst 172.16.1.99",
		check: "raven0", words: []string{"forwarding entry", "172.16.1.12", "node east-2"}},
	{name: "missing neighbour", at: "east-2", inject: "ip neigh del 172.16.1.11 dev raven0",
		check: "raven0", words: []string{"set neighbour 172.16.1.11", "node east-1"}},
	{name: "overlay device down", at: "east-2", inject: "ip link set raven0 down", check: "raven0", words: []string{"raven0 is down"}},
	{name: "overlay device deleted", at: "east-2", inject: "ip link del raven0", check: "raven0", words: []string{"raven0 is missing"}},
	{name: "overlay MTU cut", at: "east-2", inject: "ip link set raven0 mtu 1300", check: "raven0", words: []string{"raven0 has MTU 1300"}},
	{name: "overlay address removed", at: "east-2", inject: "ip addr del 172.16.1.12/32 dev raven0",
		check: "raven0", words: []string{"lacks the address 172.16.1.12/32"}},
	{name: "rp_filter strict", at: "east-1", inject: "echo 1 > /proc/sys/net/ipv4/conf/raven-wg0/rp_filter",
		undo: "echo 2 > /proc/sys/net/ipv4/conf/raven-wg0/rp_filter", check: "sysctls", words: []string{"raven-wg0/rp_filter is 1"}},
	{name: "forwarding off", at: "east-1", inject: "echo 0 > /proc/sys/net/ipv4/conf/raven-wg0/forwarding",
		undo: "echo 1 > /proc/sys/net/ipv4/conf/raven-wg0/forwarding", check: "sysctls", words: []string{"raven-wg0/forwarding is 0"}},
	{name: "conntrack refuses half-seen streams", at: "east-2", inject: "echo 0 > /proc/sys/net/netfilter/nf_conntrack_tcp_be_liberal",
		undo: "echo 1 > /proc/sys/net/netfilter/nf_conntrack_tcp_be_liberal", check: "sysctls", words: []string{"be_liberal is 0"}},
	{name: "nft table deleted", at: "east-1", inject: "nft delete table inet raven", check: "nft", words: []string{"raven is missing"}},
	{name: "nft chain emptied", at: "east-1", inject: "nft flush chain inet raven nat", check: "nft", words: []string{"differs from the plan"}},
	{name: "wrong private key", at: "east-1", inject: "wg genkey > /tmp/other; wg set raven-wg0 private-key /tmp/other",
		check: "tunnel", words: []string{"wrong key", "another private key"}},
	{name: "peer's key missing", at: "east-1", inject: "wg set raven-wg0 peer $(wg show raven-wg0 peers) remove",
		check: "tunnel", words: []string{"wrong key", "west-1"}},
	{name: "peer's prefixes not admitted", at: "east-1", inject: "wg set raven-wg0 peer $(wg show raven-wg0 peers) allowed-ips 192.0.2.1/32",
		check: "tunnel", words: []string{"AllowedIPs", "west-1"}},
	{name: "tunnel at another port", at: "east-1", inject: "wg set raven-wg0 listen-port 4600",
		check: "tunnel", words: []string{"listens at UDP port 4600", "planned is 4500"}},
	{name: "tunnel device down", at: "east-1", inject: "ip link set raven-wg0 down", check: "tunnel", words: []string{"raven-wg0 is down"}},
	{name: "tunnel MTU cut", at: "east-1", inject: "ip link set raven-wg0 mtu 1300", check: "mtu", words: []string{"raven-wg0 has MTU 1300"}},
	{name: "tunnel process killed", at: "east-1", inject: "kill -9 $(pgrep -f '[w]ireguard-device')", check: "tunnel", words: []string{"raven-wg0"}},
	{name: "program detached", at: "east-1", inject: "rm /sys/fs/bpf/raven/v*/links/raven_from_tunnel-*",
		check: "programs", words: []string{"raven_from_tunnel is not attached", "raven-wg0"}},
	{name: "FIB entry missing", at: "east-1",
		inject: "bpftool map delete pinned /sys/fs/bpf/raven/v4/raven_fib4 key 24 0 0 0 10 244 32 0",
		check:  "programs", words: []string{"FIB lacks the entry 10.244.32.0/24"}},
	{name: "next hop emptied", at: "east-2", do: emptyNextHops, check: "programs", words: []string{"which is not region/gw-west as planned"}},
	{name: "full map", at: "east-2", do: fillPods, check: "programs", words: []string{"raven_pods is full"}},
	{name: "clock stepped back", at: "east-2",
		inject: `cp /var/lib/raven/snapshot.json /tmp/kept; sed -i 's/"saved":"[0-9]*/"saved":"2099/' /var/lib/raven/snapshot.json`,
		undo:   "cp /tmp/kept /var/lib/raven/snapshot.json", check: "clock", words: []string{"the clock is wrong", "in the future"}},
}

// running are faults that the agent cannot repair, or that are not of its node.
var running = []fault{
	{name: "blocked port", at: "east-1", inject: "nft 'table inet fw { chain input { type filter hook input priority 0; udp dport 4500 drop; }; }'",
		undo: "nft delete table inet fw", check: "firewall", words: []string{"chain input of nft table fw", "port 4500"}},
	{name: "NAT rule in the way", at: "east-2", inject: "nft 'table ip cni { chain post { type nat hook postrouting priority 50; masquerade; }; }'",
		undo: "nft delete table ip cni", check: "firewall", words: []string{"chain post of nft table cni", "translates sources at priority 50"}},
	{name: "way between the regions cut", at: "internet", inject: "ip link set to-west-1 down", undo: "ip link set to-west-1 up",
		asked: "east-1", check: "peers", words: []string{"west-1", "203.0.113.42:4500"}},
	{name: "MTU cut on the underlay", at: "internet", inject: "ip link set to-west-1 mtu 1300", undo: "ip link set to-west-1 mtu 1500",
		do: narrowWay, asked: "east-1", check: "mtu", words: []string{"west-1", "carries only 1300 bytes"}},
	{name: "no route to the peer", at: "east-1", inject: "ip route del default", undo: "ip route add default via 203.0.113.17 dev eth1",
		check: "underlay", words: []string{"no route leads to 203.0.113.42:4500", "west-1"}},
	{name: "gateway cut from its region", at: "east-nat", inject: "ip link set east-1 down", undo: "ip link set east-1 up",
		asked: "east-2", check: "neighbours", blames: "east-1", words: []string{"east-1 does not answer at 172.16.1.11"}},
	{name: "underlay cable out", at: "east-nat", inject: "ip link set east-2 down", undo: "ip link set east-2 up",
		asked: "east-2", check: "underlay", words: []string{"eth0 is down"}},
	{name: "key may be read by others", at: "east-1", inject: "chmod 644 /var/lib/raven/wireguard.key", undo: "chmod 600 /var/lib/raven/wireguard.key",
		check: "state", words: []string{"wireguard.key may be read by others"}},
	{name: "snapshot damaged", at: "east-1", inject: "cp /var/lib/raven/snapshot.json /tmp/kept; echo x > /var/lib/raven/snapshot.json",
		undo: "cp /tmp/kept /var/lib/raven/snapshot.json", check: "state", words: []string{"no usable snapshot"}},
	{name: "conflicting CIDR", at: "east-1", do: conflictingNode, undo: removeExtra,
		check: "conflicts", words: []string{"10.244.22.0/24", "Node/west-9"}},
	{name: "malformed CIDR", at: "west-1", do: malformedNode, undo: removeExtra,
		check: "input", blames: "west-9", words: []string{"MalformedCIDR"}},
	{name: "foreign shaper at a pod", at: "east-2", inject: "tc qdisc add dev veth0af41602 root tbf rate 100mbit burst 100k latency 50ms",
		undo: "tc qdisc del dev veth0af41602 root", check: "programs", words: []string{"veth0af41602", "qdisc tbf"}},
	{name: "plugin not chained", at: "east-2",
		inject: `mkdir -p /tmp/bin /tmp/conf; touch /tmp/bin/raven-cni; echo '{"plugins":[{"type":"ptp"}]}' > /tmp/conf/10.conflist`,
		undo:   "rm -r /tmp/bin /tmp/conf", flags: []string{"--cni-conf-dir=/tmp/conf", "--cni-bin-dir=/tmp/bin"},
		check: "cni", words: []string{"10.conflist does not chain raven-cni"}},
	{name: "BPF file system gone", at: "east-2", inject: "mount -t tmpfs none /sys/fs/bpf", undo: "umount /sys/fs/bpf",
		check: "kernel", words: []string{"no BPF file system"}},
}

func TestEveryFaultIsDiagnosed(t *testing.T) {
	w := newWorld(t)
	for _, node := range w.lab.Nodes() {
		if found, took := w.examine(t, node); doctor.Worst(found) != doctor.OK || took > diagnosisTakes {
			t.Fatalf("a healthy node is called ill (in %s):%s", took, bad(found))
		}
	}
	w.look(t)
	t.Run("every metric that is watched exists", func(t *testing.T) { w.awaitWatched(t) })
	t.Run("bundle and picture", func(t *testing.T) { w.packed(t) })
	t.Run("trace", func(t *testing.T) { w.followThrough(t) })
	for _, f := range running {
		t.Run(f.name, func(t *testing.T) { w.diagnose(t, f, true) })
		if f.undo == removeExtra {
			if err := w.lab.RemoveManifest("extra.yaml"); err != nil {
				t.Fatal(err)
			}
		}
	}
	t.Run("what is watched tells of changes", w.stir)
	for _, node := range []string{"east-1", "east-2"} {
		w.stop(t, node)
		found, _ := w.examine(t, node)
		if !says(found, "agent", node, "does not run") {
			t.Errorf("nobody says that the agent of %s is down:%s", node, bad(found))
		}
		for _, f := range found {
			if f.Check != "agent" && f.Level != doctor.OK {
				t.Errorf("without its agent %s is called ill in %s: %s", node, f.Check, f.Says)
			}
		}
	}
	t.Run("trace of a stray", func(t *testing.T) { w.strayed(t) })
	for _, f := range stopped {
		t.Run(f.name, func(t *testing.T) { w.diagnose(t, f, false) })
	}
	w.look(t)
	t.Run("every metric that is watched has moved", func(t *testing.T) { w.haveMoved(t) })
	t.Logf("%d faults", 1+len(running)+len(stopped))
}

// change opens a pinned map of a node.
func change(t *testing.T, w *world, node, name string, f func(*ebpf.Map) error) {
	t.Helper()
	m, err := ebpf.LoadPinnedMap(w.lab.Host(node).Path("/sys/fs/bpf/raven/v4/"+name), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if err := f(m); err != nil {
		t.Fatal(err)
	}
}

func fillPods(t *testing.T, w *world) {
	change(t, w, "east-2", "raven_pods", func(m *ebpf.Map) error {
		keys := make([]bpf.Addr, m.MaxEntries()-16)
		at := netip.MustParseAddr("2001:db8::1")
		for i := range keys {
			keys[i], at = bpf.Addr{Bytes: at.As16()}, at.Next()
		}
		_, err := m.BatchUpdate(keys, make([]bpf.Pod, len(keys)), nil)
		return err
	})
}

func emptyNextHops(t *testing.T, w *world) {
	change(t, w, "east-2", "raven_nexthops", func(m *ebpf.Map) error {
		for slot := range uint32(8) {
			if err := m.Put(slot, bpf.Nexthop{}); err != nil {
				return err
			}
		}
		return nil
	})
}

// narrowWay cuts the MTU and lets the node learn of it, as traffic would.
func narrowWay(t *testing.T, w *world) {
	w.sh(t, "internet", "ip link set to-west-1 mtu 1300")
	w.sh(t, "east-1", "ping -M do -s 1400 -c 1 -W 1 203.0.113.42 || true")
}

// removeExtra is the undo of a fault that is a manifest.
const removeExtra = "true"

const extraNode = "apiVersion: v1\nkind: Node\nmetadata: {name: west-9, labels: {raven.openyurt.io/gateway: gw-west}}\n" +
	"spec: {podCIDRs: [PREFIX]}\nstatus: {addresses: [{type: InternalIP, address: 172.16.2.99}]}\n"

func addNode(t *testing.T, w *world, cidr string) {
	t.Helper()
	if err := w.lab.WriteManifest("extra.yaml", strings.ReplaceAll(extraNode, "PREFIX", cidr)); err != nil {
		t.Fatal(err)
	}
}

func conflictingNode(t *testing.T, w *world) { addNode(t, w, "10.244.22.0/24") }

func malformedNode(t *testing.T, w *world) { addNode(t, w, "10.244.40.0/33") }
