package checks

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/ravencni/raven/pkg/datapath"
	"github.com/ravencni/raven/pkg/topology"
	"github.com/ravencni/raven/test/lab"
)

// forged is how many packets of a kind are sent; each must be counted.
const forged = 10

// tracer is the UDP port by which a forged packet is recognised wherever it should not be.
const tracer = 47123

// attack is one kind of packet that must be dropped and counted.
type attack struct {
	name string
	// send sends one forged packet.
	send func() error
	// node drops it for reason; in BPF where accelerated, else in the nft table.
	node, reason string
	accelerated  bool
	// victim must not see the inner packet.
	victim *lab.Host
}

// Spoofing: what a pod, a stranger on the LAN or a member of the region forges is dropped and counted.
var Spoofing = Check{
	Name: "spoofing",
	Says: "a pod's spoofed source, a stranger's VXLAN, and an inner source from the wrong region are dropped and counted",
	Run: func(ctx context.Context, l *lab.Lab) (string, error) {
		total := 0
		for _, family := range []int{4, 6} {
			attacks, err := attacksOf(l, family)
			if err != nil {
				return "", err
			}
			for _, a := range attacks {
				if err := a.run(ctx, l); err != nil {
					return "", fmt.Errorf("IPv%d, %s: %w", family, a.name, err)
				}
				total += forged
			}
		}
		return fmt.Sprintf("%d forged packets dropped, each under its own reason, none delivered", total), nil
	},
}

func attacksOf(l *lab.Lab, family int) ([]attack, error) {
	ends := map[string]end{}
	for _, name := range []string{"hangzhou-1", "hangzhou-2", "hangzhou-2/a", "hangzhou-1/a", "qingdao-2/a", "cloud-2/a"} {
		e, err := findEnd(l, name)
		if err != nil {
			return nil, err
		}
		ends[name] = e
	}
	ip := func(name string) netip.Addr { return ends[name].addr(family) }
	packet := func(from, to netip.Addr) []byte {
		return lab.UDPPacket(netip.AddrPortFrom(from, tracer), netip.AddrPortFrom(to, tracer), 64, []byte("forged"))
	}
	stranger := netip.MustParseAddr("192.0.2.66")
	if family == 6 {
		stranger = netip.MustParseAddr("2001:db8:bad::66")
	}
	accelerated := l.Options().Accelerated()
	gatewayMAC, memberMAC := topology.VTEPMAC(ends["hangzhou-1"].node.IP4), topology.VTEPMAC(ends["hangzhou-2"].node.IP4)
	// VXLAN itself goes over IPv4 here; the inner packet is of either family.
	vxlan := func(host string, to netip.Addr) func() error {
		inner := packet(ip("qingdao-2/a"), ip("hangzhou-2/a"))
		return sendDatagram(l.Host(host), netip.AddrPortFrom(to, datapath.OverlayPort),
			lab.VXLAN(datapath.OverlayVNI, memberMAC, gatewayMAC, inner))
	}
	pod, victim := l.Host("hangzhou-2/a"), l.Host("qingdao-2/a")
	return []attack{
		{"a pod with a stranger's source", sender(pod, packet(stranger, ip("qingdao-2/a"))),
			"hangzhou-2", "spoofed_source", accelerated, victim},
		{"a pod with the source of another node's pod", sender(pod, packet(ip("hangzhou-1/a"), ip("qingdao-2/a"))),
			"hangzhou-2", "spoofed_source", accelerated, victim},
		{"a pod with the source of another region's pod", sender(pod, packet(ip("cloud-2/a"), ip("qingdao-2/a"))),
			"hangzhou-2", "spoofed_source", accelerated, victim},
		{"VXLAN from a host of the LAN that is no member", vxlan(lab.Box("hangzhou"), ends["hangzhou-2"].node.IP4),
			"hangzhou-2", "vxlan_stranger", false, pod},
		{"VXLAN from a pod to its own node", vxlan("hangzhou-2/a", ends["hangzhou-2"].node.IP4),
			"hangzhou-2", "vxlan_from_pod", false, l.Host("hangzhou-2/b")},
		{"VXLAN from a pod to another node", vxlan("hangzhou-2/a", ends["hangzhou-1"].node.IP4),
			"hangzhou-2", "vxlan_from_pod", false, l.Host("hangzhou-1/a")},
		{"a member that claims another region's source", func() error {
			return l.Host("hangzhou-2").SendBy("raven0", gatewayMAC, packet(ip("qingdao-2/a"), ip("cloud-2/a")))
		}, "hangzhou-1", "wrong_region_source", accelerated, l.Host("cloud-2/a")},
		{"a gateway that claims its own region's source", func() error {
			return l.Host("hangzhou-1").SendBy("raven0", memberMAC, packet(ip("hangzhou-1/a"), ip("hangzhou-2/a")))
		}, "hangzhou-2", "wrong_region_source", accelerated, pod},
	}, nil
}

func sender(h *lab.Host, packet []byte) func() error { return func() error { return h.SendIP(packet) } }

func sendDatagram(h *lab.Host, to netip.AddrPort, payload []byte) func() error {
	return func() error {
		c, err := h.Dial(context.Background(), "udp", netip.Addr{}, to)
		if err != nil {
			return err
		}
		_, err = c.Write(payload)
		return errors.Join(err, c.Close())
	}
}

func (a attack) run(ctx context.Context, l *lab.Lab) error {
	capture, err := a.victim.Capture("eth0")
	if err != nil {
		return err
	}
	err = a.counted(ctx, l)
	packets, stopErr := capture.Stop()
	err = errors.Join(err, stopErr)
	for _, p := range packets {
		if p.Protocol == lab.UDP && p.DstPort == tracer && !p.Outgoing {
			err = errors.Join(err, fmt.Errorf("%s saw %s", a.victim.Name, p))
		}
	}
	return err
}

// counted sends the packets and waits until the node has counted just as many.
func (a attack) counted(ctx context.Context, l *lab.Lab) error {
	inBPF, inNFT, err := a.counts(ctx, l)
	if err != nil {
		return err
	}
	for range forged {
		if err := a.send(); err != nil {
			return err
		}
	}
	return lab.Await(ctx, fmt.Sprintf("%s to count %d packets as %s", a.node, forged, a.reason), func(ctx context.Context) error {
		bpfNow, nftNow, err := a.counts(ctx, l)
		if err != nil {
			return err
		}
		wantBPF, wantNFT := 0.0, float64(forged)
		if a.accelerated {
			wantBPF, wantNFT = forged, 0
		}
		if bpfNow-inBPF != wantBPF || nftNow-inNFT != wantNFT {
			return fmt.Errorf("BPF programs counted %g more, want %g; the nft table counted %g more, want %g",
				bpfNow-inBPF, wantBPF, nftNow-inNFT, wantNFT)
		}
		return nil
	})
}

func (a attack) counts(ctx context.Context, l *lab.Lab) (inBPF, inNFT float64, err error) {
	m, err := l.Metrics(ctx, a.node)
	if err != nil {
		return 0, 0, err
	}
	return m.Sum("raven_packets_total", "verdict", "drop", "reason", a.reason),
		m.Sum("raven_filter_dropped_packets_total", "reason", a.reason), nil
}
