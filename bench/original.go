package bench

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/ravencni/raven/test/lab"
)

// What OpenYurt Raven (1.0) calls its things.
const (
	originalMark  = "0x40"
	originalTable = "9027"
	originalSet   = "raven-mark-set"
	originalChain = "RAVEN-MARK"
	originalDev   = "raven0"
	// originalMTU is of raven0 on an underlay of 1500, or the tunnel's where that is less.
	originalMTU = 1450
)

// buildOriginal lays OpenYurt Raven's path onto a lab whose gateways have a tunnel, from what it is known to leave in the
// kernel: a set of the other region's subnets (ipset); a mark in mangle for what goes there (on gateways, for what comes
// from there); a rule from the mark to table 9027, which leads to raven0, a VXLAN device without a group whose
// neighbours are 240.0.0.0/8 for the nodes' 172.0.0.0/8. The original clears the mark at raven0's egress by skbedit, lest
// VXLAN's outer packet follow the rule again; clearMark does it with less.
func buildOriginal(ctx context.Context, l *lab.Lab) error {
	for i := range l.Spec.Regions {
		own, other := &l.Spec.Regions[i], &l.Spec.Regions[1-i]
		for j := range own.Nodes {
			if err := originalNode(ctx, l, own, other, &own.Nodes[j]); err != nil {
				return fmt.Errorf("build the original's path on %s: %w", own.Nodes[j].Name, err)
			}
		}
	}
	return nil
}

func originalNode(ctx context.Context, l *lab.Lab, own, other *lab.Region, n *lab.Node) error {
	h := l.Host(n.Name)
	mtu := originalMTU
	if link, err := l.Host(own.Gateway().Name).Link(l.TunnelDevice()); err != nil {
		return err
	} else if own := link.Attrs().MTU; own < mtu {
		mtu = own
	}
	commands := []string{
		"ipset create " + originalSet + " hash:net",
		fmt.Sprintf("ip link add %s type vxlan id 200 dstport 4472 ageing 300", originalDev),
		fmt.Sprintf("ip link set %s address %s mtu %d up", originalDev, originalMAC(n), mtu),
		fmt.Sprintf("ip addr add %s/8 dev %s", originalAddress(n), originalDev),
		"iptables -t mangle -N " + originalChain,
		"iptables -t mangle -A PREROUTING -j " + originalChain,
		"iptables -t mangle -A OUTPUT -j " + originalChain,
		fmt.Sprintf("ip rule add fwmark %s lookup %s prio 100", originalMark, originalTable),
	}
	for i := range other.Nodes {
		commands = append(commands, fmt.Sprintf("ipset add %s %s", originalSet, other.Nodes[i].Pods4))
	}
	direction := "dst"
	if n.Gateway {
		direction = "src"
	}
	commands = append(commands, fmt.Sprintf("iptables -t mangle -A %s -m set --match-set %s %s -j MARK --set-mark %s",
		originalChain, originalSet, direction, originalMark))
	for i := range own.Nodes {
		peer := &own.Nodes[i]
		if peer.Name == n.Name || !n.Gateway && !peer.Gateway {
			continue
		}
		to := "default"
		if n.Gateway {
			to = peer.Pods4.String()
		}
		commands = append(commands,
			fmt.Sprintf("bridge fdb append 00:00:00:00:00:00 dev %s dst %s self permanent", originalDev, peer.IP4),
			fmt.Sprintf("ip neigh add %s lladdr %s dev %s nud permanent", originalAddress(peer), originalMAC(peer), originalDev),
			fmt.Sprintf("ip route add %s via %s dev %s onlink mtu %d table %s", to, originalAddress(peer), originalDev, mtu, originalTable))
	}
	for _, c := range commands {
		f := strings.Fields(c)
		if _, err := h.Run(ctx, f[0], f[1:]...); err != nil {
			return err
		}
	}
	return errors.Join(h.Sysctl("net/ipv4/conf/"+originalDev+"/rp_filter", "2"), clearMark(h, originalDev))
}

// originalAddress is 240 in the place of the first byte of the node's address.
func originalAddress(n *lab.Node) netip.Addr {
	b := n.IP4.As4()
	b[0] = 240
	return netip.AddrFrom4(b)
}

func originalMAC(n *lab.Node) string {
	b := n.IP4.As4()
	return fmt.Sprintf("02:0e:%02x:%02x:%02x:%02x", b[0], b[1], b[2], b[3])
}
