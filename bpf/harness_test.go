package bpf

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/vishvananda/netlink"

	"github.com/ravencni/raven/test/kernels"
)

// The verdicts of tc and XDP programs (include/uapi/linux/pkt_cls.h, bpf.h).
const (
	actUnspec   = -1
	actShot     = 2
	actRedirect = 7
	xdpDrop     = 1
	xdpPass     = 2
)

// The addresses of the tests: this node has pods in 10.244.1.0/24, its region the node 172.16.2.103 (the gateway, or
// the other member when this node is the gateway), another region has pods in 10.244.9.0/24 and the node 172.16.1.90.
var (
	localPod     = netip.MustParseAddr("10.244.1.5")
	localPod6    = netip.MustParseAddr("fd00:10:244:1::5")
	siblingPod   = netip.MustParseAddr("10.244.1.6") // local prefix, but no pod that Raven knows
	memberPod    = netip.MustParseAddr("10.244.2.7") // in this region, on the other node
	memberPod6   = netip.MustParseAddr("fd00:10:244:2::7")
	remotePod    = netip.MustParseAddr("10.244.9.9")
	remotePod6   = netip.MustParseAddr("fd00:10:244:9::9")
	strangerPod  = netip.MustParseAddr("10.99.0.1") // no prefix of anybody's
	strangerPod6 = netip.MustParseAddr("fd00:99::1")
	nodeIP       = netip.MustParseAddr("172.16.2.104")

	podMAC     = net.HardwareAddr{0x0a, 0, 0, 0, 0, 1}
	podGateway = net.HardwareAddr{0x0a, 0, 0, 0, 0, 2}
	vtepMAC    = net.HardwareAddr{0xaa, 0x0f, 172, 16, 2, 103}
	ownMAC     = net.HardwareAddr{0xaa, 0x0f, 172, 16, 2, 104}
)

// Slots of raven_nexthops in the tests.
const (
	slotOverlay = 1
	slotTunnel  = 2
	slotDirect  = 3
	slotDown    = 4
	slotEmpty   = 5
)

const testMTU = 1400

// node holds the five programs, their shared maps and the devices they speak of, in the test's own namespace.
type node struct {
	t        *testing.T
	programs map[string]*ebpf.Program
	maps     map[string]*ebpf.Map
	index    map[string]int // device name -> ifindex
	xfrm     bool           // the tunnel's packets were decrypted by XFRM
}

func decryptedByXFRM(n *node) { n.xfrm = true }

// newNode loads every program with shared maps and fills them for a member (gateway false) or a gateway. It must be
// called in a namespace made by netns.Run.
func newNode(t *testing.T, gateway, tunnelEthernet bool, with ...func(*node)) *node {
	t.Helper()
	n := &node{t: t, programs: map[string]*ebpf.Program{}, maps: map[string]*ebpf.Map{}, index: map[string]int{}}
	for _, set := range with {
		set(n)
	}
	for _, name := range []string{"pod0", "raven0", "tun0", "nic0"} {
		n.addDevice(name)
	}
	n.load(tunnelEthernet)
	n.fill(gateway)
	return n
}

func (n *node) addDevice(name string) {
	n.t.Helper()
	link := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name, HardwareAddr: ownMAC}, PeerName: name + "p"}
	if err := netlink.LinkAdd(link); err != nil {
		n.t.Fatalf("add device %s: %v", name, err)
	}
	for _, end := range []string{name, name + "p"} {
		l, err := netlink.LinkByName(end)
		if err != nil {
			n.t.Fatalf("find device %s: %v", end, err)
		}
		if err := netlink.LinkSetUp(l); err != nil {
			n.t.Fatalf("set device %s up: %v", end, err)
		}
		n.index[end] = l.Attrs().Index
	}
}

// The kernel's types and the compiled objects are read once for all tests: that is most of what loading takes.
var (
	kernelTypes = btf.NewCache()
	objects     = map[string]func() (*ebpf.CollectionSpec, error){
		"raven_from_pod":      sync.OnceValues(LoadFromPod),
		"raven_from_overlay":  sync.OnceValues(LoadFromOverlay),
		"raven_from_tunnel":   sync.OnceValues(LoadFromTunnel),
		"raven_from_underlay": sync.OnceValues(LoadFromUnderlay),
		"raven_xdp_underlay":  sync.OnceValues(LoadXdpUnderlay),
	}
)

func (n *node) load(tunnelEthernet bool) {
	n.t.Helper()
	for name, load := range objects {
		spec, err := load()
		if err != nil {
			n.t.Fatalf("read the object of %s: %v", name, err)
		}
		spec = spec.Copy()
		if os.Getenv(kernels.SmallMapsVariable) != "" {
			for _, m := range spec.Maps {
				m.MaxEntries = min(m.MaxEntries, 4096)
			}
		}
		for variable, set := range map[string]bool{"raven_tunnel_ethernet": tunnelEthernet, "raven_tunnel_xfrm": n.xfrm} {
			if v := spec.Variables[variable]; v != nil && set {
				if err := v.Set(uint8(1)); err != nil {
					n.t.Fatalf("set %s: %v", variable, err)
				}
			}
		}
		c, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{
			Maps: ebpf.MapOptions{PinPath: "/sys/fs/bpf"}, Cache: kernelTypes})
		if err != nil {
			var verifier *ebpf.VerifierError
			if errors.As(err, &verifier) {
				n.t.Fatalf("load %s: %+v", name, verifier)
			}
			n.t.Fatalf("load %s: %v", name, err)
		}
		n.t.Cleanup(c.Close)
		n.programs[name] = c.Programs[name]
		for k, m := range c.Maps {
			n.maps[k] = m
		}
	}
}

func addr(a netip.Addr) Addr { return Addr{Bytes: a.As16()} }

func mac(m net.HardwareAddr) (out [6]uint8) { copy(out[:], m); return out }

func (n *node) put(m string, key, value any) {
	n.t.Helper()
	if err := n.maps[m].Put(key, value); err != nil {
		n.t.Fatalf("write %s: %v", m, err)
	}
}

func (n *node) route(prefix string, entry FibEntry) {
	n.t.Helper()
	p := netip.MustParsePrefix(prefix)
	if p.Addr().Is4() {
		n.put("raven_fib4", Fib4Key{Prefixlen: uint32(p.Bits()), Addr: p.Addr().As4()}, entry)
		return
	}
	n.put("raven_fib6", Fib6Key{Prefixlen: uint32(p.Bits()), Addr: p.Addr().As16()}, entry)
}

func (n *node) configure(change func(*NodeConfig)) {
	n.t.Helper()
	var c NodeConfig
	if err := n.maps["raven_config"].Lookup(uint32(0), &c); err != nil {
		n.t.Fatalf("read raven_config: %v", err)
	}
	change(&c)
	n.put("raven_config", uint32(0), c)
}

func (n *node) fill(gateway bool) {
	n.t.Helper()
	flags := FlagAccelerate
	remote := uint32(slotOverlay)
	if gateway {
		flags |= FlagGateway
		remote = slotTunnel
	}
	n.put("raven_config", uint32(0), NodeConfig{Flags: flags, TcpEstablishedS: 432000, UdpS: 30, UdpStreamS: 120,
		TickNs: tickNanoseconds(n.t), HandshakesPerSecond: 5, TunnelPort: 4500, OverlayPort: 4472,
		OverlayVni: 200, OverlayIfindex: uint32(n.index["raven0"]), Underlay: nodeIP.As4()})

	healthy := NexthopHealthy
	n.put("raven_nexthops", uint32(slotOverlay), Nexthop{Group: 1, Ifindex: uint32(n.index["raven0"]), Mtu: testMTU,
		Kind: NexthopOverlay, Flags: healthy | NexthopEthernet, Dmac: mac(vtepMAC), Smac: mac(ownMAC)})
	n.put("raven_nexthops", uint32(slotTunnel), Nexthop{Group: 2, Ifindex: uint32(n.index["tun0"]), Mtu: testMTU,
		Kind: NexthopTunnel, Flags: healthy})
	n.put("raven_nexthops", uint32(slotDirect), Nexthop{Group: 3, Ifindex: uint32(n.index["nic0"]), Mtu: testMTU,
		Kind: NexthopDirect, Flags: healthy, Via: addr(netip.MustParseAddr("172.16.2.103"))})
	n.put("raven_nexthops", uint32(slotDown), Nexthop{Group: 4, Ifindex: uint32(n.index["tun0"]), Mtu: testMTU,
		Kind: NexthopTunnel})

	n.route("10.244.9.0/24", FibEntry{Nexthop: remote, Scope: ScopeRemote})
	n.route("fd00:10:244:9::/64", FibEntry{Nexthop: remote, Scope: ScopeRemote})
	n.route("172.16.1.90/32", FibEntry{Nexthop: remote, Scope: ScopeRemote})
	n.route("10.244.1.0/24", FibEntry{Scope: ScopeLocal})
	n.route("fd00:10:244:1::/64", FibEntry{Scope: ScopeLocal})
	n.route("172.16.2.104/32", FibEntry{Scope: ScopeHost})
	n.route("10.244.44.0/24", FibEntry{Nexthop: slotDown, Scope: ScopeRemote})
	n.route("10.244.45.0/24", FibEntry{Nexthop: slotEmpty, Scope: ScopeRemote})
	if gateway {
		n.route("10.244.2.0/24", FibEntry{Nexthop: slotOverlay, Scope: ScopeInRegion})
		n.route("fd00:10:244:2::/64", FibEntry{Nexthop: slotOverlay, Scope: ScopeInRegion})
		n.route("172.16.2.103/32", FibEntry{Nexthop: slotOverlay, Scope: ScopeInRegion})
	}
	for _, a := range []netip.Addr{localPod, localPod6} {
		n.put("raven_pods", addr(a), Pod{Ifindex: uint32(n.index["pod0"]), Mac: mac(podMAC), GwMac: mac(podGateway),
			Mtu: 1500})
	}
	n.put("raven_members", addr(netip.MustParseAddr("172.16.2.103")), MemberOfRegion)
}

// direct turns the region's next hops to kind direct, over nic0.
func (n *node) direct(gateway bool) {
	n.configure(func(c *NodeConfig) { c.Flags |= FlagDirect })
	if gateway {
		n.route("10.244.2.0/24", FibEntry{Nexthop: slotDirect, Scope: ScopeInRegion})
		return
	}
	n.route("10.244.9.0/24", FibEntry{Nexthop: slotDirect, Scope: ScopeRemote})
}

// counter sums one reason's packets and bytes of a program over all CPUs.
func (n *node) counter(program string, reason Reason) (packets, bytes uint64) {
	n.t.Helper()
	var perCPU []ProgramCounters
	if err := n.maps["raven_counters"].Lookup(reason, &perCPU); err != nil {
		n.t.Fatalf("read raven_counters: %v", err)
	}
	for _, c := range perCPU {
		switch program {
		case "raven_from_pod":
			packets, bytes = packets+c.FromPod.Packets, bytes+c.FromPod.Bytes
		case "raven_from_overlay":
			packets, bytes = packets+c.FromOverlay.Packets, bytes+c.FromOverlay.Bytes
		case "raven_from_tunnel":
			packets, bytes = packets+c.FromTunnel.Packets, bytes+c.FromTunnel.Bytes
		case "raven_from_underlay":
			packets, bytes = packets+c.FromUnderlay.Packets, bytes+c.FromUnderlay.Bytes
		case "raven_xdp_underlay":
			packets, bytes = packets+c.XdpUnderlay.Packets, bytes+c.XdpUnderlay.Bytes
		default:
			n.t.Fatalf("no program %s", program)
		}
	}
	return packets, bytes
}

// skb is struct __sk_buff (include/uapi/linux/bpf.h), of which test runs take the device and the GSO size.
type skb struct {
	_       [40]byte
	Ifindex uint32
	_       [132]byte
	GsoSize uint32
	_       [12]byte
}

// run hands frame to a tc program as if it came in by the named device, and returns verdict and frame afterwards.
func (n *node) run(program, device string, frame []byte, gsoSize uint32) (int, []byte) {
	n.t.Helper()
	opts := &ebpf.RunOptions{Data: frame, DataOut: make([]byte, len(frame)+256), Repeat: 1,
		Context: &skb{Ifindex: uint32(n.index[device]), GsoSize: gsoSize}}
	ret, err := n.programs[program].Run(opts)
	if err != nil {
		n.t.Fatalf("test-run %s: %v", program, err)
	}
	return int(int32(ret)), opts.DataOut
}

// conntrack runs the conntrack tool in the test's namespace.
func (n *node) conntrack(args ...string) {
	n.t.Helper()
	if out, err := exec.CommandContext(n.t.Context(), "conntrack", args...).CombinedOutput(); err != nil {
		n.t.Fatalf("conntrack %s: %v: %s", strings.Join(args, " "), err, out)
	}
}

// packet builds an Ethernet frame; TCP, UDP and ICMP checksums and lengths are right.
type packet struct {
	src, dst       netip.Addr
	srcMAC, dstMAC net.HardwareAddr
	proto          layers.IPProtocol
	sport, dport   uint16
	syn, fin, rst  bool
	ttl            uint8 // 0: 64
	payload        int
	fragment       bool
	options        bool // IPv4 option, IPv6 hop-by-hop header
}

func (p packet) frame(t *testing.T) []byte {
	t.Helper()
	if p.ttl == 0 {
		p.ttl = 64
	}
	if p.srcMAC == nil {
		p.srcMAC = podMAC
	}
	eth := &layers.Ethernet{SrcMAC: p.srcMAC, DstMAC: p.dstMAC, EthernetType: layers.EthernetTypeIPv4}
	stack := []gopacket.SerializableLayer{eth}
	var network gopacket.NetworkLayer
	if p.src.Is4() {
		ip := &layers.IPv4{Version: 4, TTL: p.ttl, Protocol: p.proto, SrcIP: p.src.AsSlice(), DstIP: p.dst.AsSlice(), Id: 7}
		if p.fragment {
			ip.Flags = layers.IPv4MoreFragments
		}
		if p.options {
			ip.Options = []layers.IPv4Option{{OptionType: 148, OptionLength: 4, OptionData: []byte{0, 0}}} // router alert
		}
		network, stack = ip, append(stack, ip)
	} else {
		eth.EthernetType = layers.EthernetTypeIPv6
		ip := &layers.IPv6{Version: 6, HopLimit: p.ttl, NextHeader: p.proto, SrcIP: p.src.AsSlice(), DstIP: p.dst.AsSlice()}
		network, stack = ip, append(stack, ip)
		switch {
		case p.fragment:
			ip.NextHeader = layers.IPProtocolIPv6Fragment
			stack = append(stack, gopacket.Payload([]byte{byte(p.proto), 0, 0, 1, 0, 0, 0, 9}))
		case p.options:
			ip.NextHeader = layers.IPProtocolIPv6HopByHop
			stack = append(stack, gopacket.Payload([]byte{byte(p.proto), 0, 1, 4, 0, 0, 0, 0}))
		}
	}
	switch p.proto {
	case layers.IPProtocolTCP:
		tcp := &layers.TCP{SrcPort: layers.TCPPort(p.sport), DstPort: layers.TCPPort(p.dport), SYN: p.syn, FIN: p.fin,
			RST: p.rst, ACK: !p.syn, Seq: 1, Window: 1000}
		must(t, tcp.SetNetworkLayerForChecksum(network))
		stack = append(stack, tcp)
	case layers.IPProtocolUDP:
		udp := &layers.UDP{SrcPort: layers.UDPPort(p.sport), DstPort: layers.UDPPort(p.dport)}
		must(t, udp.SetNetworkLayerForChecksum(network))
		stack = append(stack, udp)
	case layers.IPProtocolICMPv4:
		stack = append(stack, &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(layers.ICMPv4TypeEchoRequest, 0), Id: 1, Seq: 1})
	case layers.IPProtocolICMPv6:
		icmp := &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(layers.ICMPv6TypeEchoRequest, 0)}
		must(t, icmp.SetNetworkLayerForChecksum(network))
		stack = append(stack, icmp)
	}
	stack = append(stack, gopacket.Payload(make([]byte, p.payload)))
	buf := gopacket.NewSerializeBuffer()
	must(t, gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, stack...))
	return buf.Bytes()
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
