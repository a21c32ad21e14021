package checks

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/ravencni/raven/test/lab"
)

// balancerPort is where the load balancer in front of the cloud's gateway answers, nodePort what kube-proxy opens on
// every node for it.
const (
	balancerPort = 34500
	nodePortUDP  = 30450
)

// Balanced is the tutorial's cluster where the cloud's gateway has no public address: a load balancer at the cloud's
// box hands the tunnel's packets to its nodes.
func Balanced() lab.Spec {
	spec := lab.Tutorial()
	cloud := &spec.Regions[0]
	cloud.Gateway().Public, cloud.Gateway().PublicRouter = netip.Prefix{}, netip.Prefix{}
	cloud.LoadBalancer = netip.AddrPortFrom(cloud.Box.Addr(), balancerPort)
	return spec
}

// RaiseLoadBalancer sets up the translations of Balanced, on the box those of the load balancer, on the nodes those of
// kube-proxy. Packets of one region go to the gateway's own node (externalTrafficPolicy Local: the source stays), those
// of others by another node (Cluster: that node masquerades).
func RaiseLoadBalancer(ctx context.Context, l *lab.Lab) error {
	cloud, hangzhou := &l.Spec.Regions[0], &l.Spec.Regions[1]
	gateway, other := cloud.Gateway(), &cloud.Nodes[1]
	box := fmt.Sprintf(`
table ip balancer {
	chain prerouting {
		type nat hook prerouting priority dstnat
		iifname "wan" ip daddr %[1]s udp dport %[2]d ip saddr %[3]s dnat to %[4]s:%[6]d
		iifname "wan" ip daddr %[1]s udp dport %[2]d dnat to %[5]s:%[6]d
	}
}
insert rule inet lab forward ct status dnat accept`,
		cloud.LoadBalancer.Addr(), cloud.LoadBalancer.Port(), hangzhou.Box.Addr(), gateway.IP4, other.IP4, nodePortUDP)
	err := l.Host(lab.Box(cloud.Name)).NFT(ctx, box)
	for _, n := range []*lab.Node{gateway, other} {
		lines := []string{"*nat"}
		match := fmt.Sprintf("-A PREROUTING -d %s -p udp --dport %d ", n.IP4, nodePortUDP)
		if n != gateway {
			lines = append(lines, match+"-j MARK --or-mark 0x4000",
				"-A POSTROUTING -m mark --mark 0x4000/0x4000 -j MASQUERADE")
		}
		lines = append(lines, match+fmt.Sprintf("-j DNAT --to-destination %s:4500", gateway.IP4), "COMMIT\n")
		_, e := l.Host(n.Name).RunWith(ctx, strings.NewReader(strings.Join(lines, "\n")), "iptables-restore", "--noflush")
		err = errors.Join(err, e)
	}
	if err != nil {
		return fmt.Errorf("set up the load balancer: %w", err)
	}
	return nil
}

// TunnelPortTranslated needs RaiseLoadBalancer.
var TunnelPortTranslated = Check{
	Name: "tunnel-port-dnat",
	Says: "a gateway whose tunnel port lies behind a load balancer and a NodePort (Local and Cluster) holds its tunnels",
	Run: func(ctx context.Context, l *lab.Lab) (string, error) {
		reached, err := reachAll(ctx, l, [][2]string{
			{"hangzhou-2/a", "qingdao-2/a"}, {"hangzhou-2/a", "cloud-2/a"}, {"cloud-2/a", "hangzhou-2/a"},
			{"qingdao-2/a", "cloud-2/a"}, {"cloud-2/a", "qingdao-2/a"}, {"qingdao-2", "cloud-2"},
		})
		if err != nil {
			return "", err
		}
		cloud := &l.Spec.Regions[0]
		for i := range cloud.Nodes {
			n := &cloud.Nodes[i]
			if err := translated(ctx, l.Host(n.Name), n.IP4, cloud.Gateway().IP4); err != nil {
				return "", err
			}
		}
		endpoints, err := l.Host(cloud.Gateway().Name).Run(ctx, "wg", "show", "all", "endpoints")
		if err != nil {
			return "", err
		}
		var seen []string
		for line := range strings.Lines(endpoints) {
			_, endpoint, _ := strings.Cut(strings.TrimSpace(line), "=\t") // a key ends with =
			seen = append(seen, endpoint)
		}
		return fmt.Sprintf("%d conversations passed; %s dialled, the gateway sees %s", reached, cloud.LoadBalancer,
			strings.Join(seen, ", ")), nil
	},
}

// translated: conntrack of a node holds an assured flow that reached its NodePort and went to the gateway's port.
func translated(ctx context.Context, h *lab.Host, node, gateway netip.Addr) error {
	out, err := h.Run(ctx, "conntrack", "-L", "-p", "udp", "--orig-dst", node.String(), "--orig-port-dst",
		fmt.Sprint(nodePortUDP))
	if err != nil {
		return err
	}
	if !strings.Contains(out, fmt.Sprintf("src=%s", gateway)) || !strings.Contains(out, "[ASSURED]") {
		return fmt.Errorf("no tunnel came by the NodePort of %s: %s", h.Name, out)
	}
	return nil
}
