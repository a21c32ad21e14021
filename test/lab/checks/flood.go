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

// FloodLimit is the number of handshakes per second and source that HandshakeFlood expects its agents to admit.
const FloodLimit = 20

// flood is how many handshakes are sent from each source.
const flood = 2000

// HandshakeFlood needs agents with --xdp and --handshakes-per-second=FloodLimit: what one source sends beyond the limit
// is dropped before it costs anything, and neither other sources nor established tunnels suffer.
var HandshakeFlood = Check{
	Name:  "handshake-flood",
	Flags: []string{"--xdp", fmt.Sprintf("--handshakes-per-second=%d", FloodLimit)},
	Says:  "handshake floods beyond the limit per source are dropped in XDP, and established peers do not notice",
	Run: func(ctx context.Context, l *lab.Lab) (evidence string, err error) {
		relay, err := findEnd(l, "cloud-1")
		if err != nil {
			return "", err
		}
		hangzhou := &l.Spec.Regions[1]
		prober, err := probe(ctx, l, "hangzhou-2/a", "qingdao-2/a", 4)
		if err != nil {
			return "", err
		}
		before, err := tunnels(ctx, l)
		if err != nil {
			return "", err
		}
		for _, source := range []netip.Addr{
			netip.MustParseAddr("198.51.100.77"),
			hangzhou.Box.Addr(), // a peer's own address, behind which others may sit
		} {
			e, err := floodFrom(ctx, l, source, relay)
			if err != nil {
				return "", fmt.Errorf("from %s: %w", source, err)
			}
			evidence += e + "; "
		}
		err = prober.AwaitAnswers(ctx, 50)
		r, stopErr := prober.Stop(ctx)
		err = errors.Join(err, stopErr)
		if len(r.Lost) > 0 {
			err = errors.Join(err, fmt.Errorf("the flood cost established peers: %s", r))
		}
		after, tunnelErr := tunnels(ctx, l)
		return evidence + r.String(), errors.Join(err, tunnelErr, sameTunnels(before, after))
	},
}

// floodFrom sends handshake initiations, as far as XDP can tell, from one source to the relay's public port.
func floodFrom(ctx context.Context, l *lab.Lab, source netip.Addr, relay end) (string, error) {
	count := func(verdict, reason string) (float64, error) {
		m, err := l.Metrics(ctx, relay.host.Name)
		return m.Sum("raven_packets_total", "program", "raven_xdp_underlay", "verdict", verdict, "reason", reason), err
	}
	before, err := count("drop", "handshake_flood")
	if err != nil {
		return "", err
	}
	initiation := make([]byte, 148)
	initiation[0] = 1
	target := netip.AddrPortFrom(relay.node.Public.Addr(), 4500)
	packet := lab.UDPPacket(netip.AddrPortFrom(source, 40000), target, 64, initiation)
	for range flood {
		if err := l.Host(lab.Internet).SendIP(packet); err != nil {
			return "", err
		}
	}
	var dropped float64
	err = lab.Await(ctx, "the flood to be dropped", func(context.Context) error {
		now, err := count("drop", "handshake_flood")
		dropped = now - before
		// The sending took some seconds, and each second admits the limit.
		if err == nil && dropped < flood/2 {
			err = fmt.Errorf("XDP dropped %g of %d", dropped, flood)
		}
		return err
	})
	return fmt.Sprintf("%g of %d from %s dropped", dropped, flood, source), err
}

// StrangersAtXDP needs agents with --xdp: VXLAN from a host that is no member is dropped before it costs anything.
var StrangersAtXDP = Check{
	Name:  "vxlan-xdp",
	Flags: HandshakeFlood.Flags,
	Says:  "with --xdp, VXLAN from a host that is no member is dropped in XDP under its own reason",
	Run: func(ctx context.Context, l *lab.Lab) (string, error) {
		a, err := findEnd(l, "hangzhou-2/a")
		if err != nil {
			return "", err
		}
		b, err := findEnd(l, "qingdao-2/a")
		if err != nil {
			return "", err
		}
		inner := lab.UDPPacket(netip.AddrPortFrom(b.pod.IP4, tracer), netip.AddrPortFrom(a.pod.IP4, tracer), 64, []byte("forged"))
		gateway, member := topology.VTEPMAC(a.region.Gateway().IP4), topology.VTEPMAC(a.node.IP4)
		err = attack{
			name: "VXLAN from a stranger",
			send: sendDatagram(l.Host(lab.Box(a.region.Name)), netip.AddrPortFrom(a.node.IP4, datapath.OverlayPort),
				lab.VXLAN(datapath.OverlayVNI, member, gateway, inner)),
			node: a.node.Name, reason: "vxlan_stranger", accelerated: true, victim: a.host,
		}.run(ctx, l)
		return fmt.Sprintf("%d forged packets", forged), err
	},
}
