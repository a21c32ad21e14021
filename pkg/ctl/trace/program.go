package trace

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/vishvananda/netlink"

	"github.com/ravencni/raven/bpf"
	"github.com/ravencni/raven/pkg/ctl/drops"
	"github.com/ravencni/raven/pkg/datapath"
	"github.com/ravencni/raven/pkg/datapath/accel"
)

// acceleration looks dst up in the live maps, and runs the program of the device on a packet.
func (h *Hop) acceleration(ctx context.Context, in string, src, dst netip.Addr) error {
	tree := accel.TreePath(datapath.PinRoot)
	e, err := lookUp(tree, dst)
	switch {
	case errors.Is(err, ebpf.ErrKeyNotExist):
		h.say("map", "%s has no entry for %s", mapOf(dst), dst)
	case err != nil:
		return err
	case e.Scope == bpf.ScopeLocal || e.Scope == bpf.ScopeHost:
		h.say("map", "%s says that %s is local", mapOf(dst), dst)
	default:
		hop, err := nextHop(tree, e.Nexthop)
		if err != nil {
			return err
		}
		text := fmt.Sprintf("%s leads %s to next hop %d: %s", mapOf(dst), dst, e.Nexthop, hop)
		if strings.Contains(text, "DOWN") || strings.Contains(text, "EMPTY") {
			h.stop("map", "%s; such packets take the kernel's way", text)
		} else {
			h.say("map", "%s", text)
		}
	}
	if in == "" {
		h.say("program", "none runs on what this node itself sends")
		return nil
	}
	return h.testRun(ctx, tree, in, src, dst)
}

func mapOf(a netip.Addr) string {
	if a.Is4() {
		return "raven_fib4"
	}
	return "raven_fib6"
}

func lookUp(tree string, dst netip.Addr) (e bpf.FibEntry, err error) {
	m, err := ebpf.LoadPinnedMap(filepath.Join(tree, mapOf(dst)), nil)
	if err != nil {
		return e, fmt.Errorf("open the pinned map %s: %w", mapOf(dst), err)
	}
	defer m.Close() // it was only read
	if dst.Is4() {
		return e, m.Lookup(bpf.Fib4Key{Prefixlen: 32, Addr: dst.As4()}, &e)
	}
	return e, m.Lookup(bpf.Fib6Key{Prefixlen: 128, Addr: dst.As16()}, &e)
}

// nextHop describes a slot of raven_nexthops.
func nextHop(tree string, slot uint32) (string, error) {
	m, err := ebpf.LoadPinnedMap(filepath.Join(tree, "raven_nexthops"), nil)
	if err != nil {
		return "", fmt.Errorf("open the pinned map raven_nexthops: %w", err)
	}
	defer m.Close() // it was only read
	var n bpf.Nexthop
	if err := m.Lookup(slot, &n); err != nil {
		return "", fmt.Errorf("read slot %d of raven_nexthops: %w", slot, err)
	}
	if n.Kind == bpf.NexthopNone {
		return "EMPTY", nil
	}
	kinds := map[bpf.NexthopKind]string{
		bpf.NexthopOverlay: "overlay", bpf.NexthopDirect: "direct", bpf.NexthopTunnel: "tunnel",
	}
	device := fmt.Sprintf("device %d", n.Ifindex)
	if l, err := netlink.LinkByIndex(int(n.Ifindex)); err == nil {
		device = l.Attrs().Name
	}
	text := fmt.Sprintf("%s by %s, MTU %d", kinds[n.Kind], device, n.Mtu)
	if n.Flags&bpf.NexthopEthernet != 0 {
		text += ", to " + net.HardwareAddr(n.Dmac[:]).String()
	}
	if n.Flags&bpf.NexthopHealthy == 0 {
		text += ", DOWN"
	}
	return text, nil
}

// ports of the test packet: tcpmux at both ends, which no flow of anybody's has.
const testPort = 1

// skb is struct __sk_buff (include/uapi/linux/bpf.h), of which a test run takes the device.
type skb struct {
	_       [40]byte
	Ifindex uint32
	_       [148]byte
}

// testRun runs the program of an Ethernet device on a TCP segment. A tunnel without Ethernet has no test runs: the
// kernel always puts an Ethernet header before the packet.
func (h *Hop) testRun(ctx context.Context, tree, in string, src, dst netip.Addr) error {
	name := accel.FromPod
	switch {
	case in == datapath.OverlayDevice:
		name = accel.FromOverlay
	case strings.HasPrefix(in, "raven-"):
		h.say("program", "%s decides by the map alone (it cannot be test-run on a device without Ethernet)", accel.FromTunnel)
		return nil
	}
	l, err := netlink.LinkByName(in)
	if err != nil {
		return fmt.Errorf("find the device %s: %w", in, err)
	}
	program, err := ebpf.LoadPinnedProgram(filepath.Join(tree, name), nil)
	if errors.Is(err, os.ErrNotExist) {
		h.stop("program", "%s is not loaded: see ravenctl doctor", name)
		return nil
	}
	if err != nil {
		return fmt.Errorf("open the pinned program %s: %w", name, err)
	}
	defer program.Close() // it was only run
	frame, err := segment(src, dst, l.Attrs().HardwareAddr)
	if err != nil {
		return err
	}
	before, err := drops.Read(ctx)
	if err != nil {
		return err
	}
	ret, err := program.Run(&ebpf.RunOptions{
		Data: frame, DataOut: make([]byte, len(frame)+256), Repeat: 1, Context: &skb{Ifindex: uint32(l.Attrs().Index)},
	})
	if err != nil {
		return fmt.Errorf("test-run %s: %w", name, err)
	}
	after, err := drops.Read(ctx)
	if err != nil {
		return err
	}
	verdict := map[int32]string{-1: "pass", 2: "drop", 7: "redirect"}[int32(ret)]
	// Other packets are counted meanwhile: all reasons of that verdict that moved may be meant.
	var reasons []string
	for _, c := range drops.Since(before, after) {
		if c.Where == name && c.Verdict == verdict && c.Packets > 0 {
			reasons = append(reasons, fmt.Sprintf("%s (%s)", c.Reason, c.Meaning))
		}
	}
	text := fmt.Sprintf("%s on a TCP segment of a new flow: %s, %s", name, verdict, strings.Join(reasons, " or "))
	if verdict == "drop" {
		h.stop("test run", "%s", text)
		return nil
	}
	h.say("test run", "%s", text)
	return nil
}

func segment(src, dst netip.Addr, to net.HardwareAddr) ([]byte, error) {
	eth := &layers.Ethernet{SrcMAC: net.HardwareAddr{2, 0, 0, 0, 0, 1}, DstMAC: to, EthernetType: layers.EthernetTypeIPv4}
	tcp := &layers.TCP{SrcPort: testPort, DstPort: testPort, ACK: true, Window: 1024}
	var ip gopacket.SerializableLayer
	if src.Is4() {
		v4 := &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolTCP, SrcIP: src.AsSlice(), DstIP: dst.AsSlice()}
		ip = v4
		if err := tcp.SetNetworkLayerForChecksum(v4); err != nil {
			return nil, fmt.Errorf("make a test packet: %w", err)
		}
	} else {
		eth.EthernetType = layers.EthernetTypeIPv6
		v6 := &layers.IPv6{Version: 6, HopLimit: 64, NextHeader: layers.IPProtocolTCP, SrcIP: src.AsSlice(), DstIP: dst.AsSlice()}
		ip = v6
		if err := tcp.SetNetworkLayerForChecksum(v6); err != nil {
			return nil, fmt.Errorf("make a test packet: %w", err)
		}
	}
	b := gopacket.NewSerializeBuffer()
	o := gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}
	if err := gopacket.SerializeLayers(b, o, eth, ip, tcp, gopacket.Payload("raven")); err != nil {
		return nil, fmt.Errorf("make a test packet: %w", err)
	}
	return b.Bytes(), nil
}
