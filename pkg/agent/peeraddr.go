package agent

import (
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/ravencni/raven/pkg/topology"
)

// peerAddrs finds the node addresses of the tunnel's peers that lead through the tunnel, by node. A peer whose address
// is not routed, such as one that conflicts, has none.
func peerAddrs(plan *topology.Plan, nodes []*corev1.Node) map[string]netip.Addr {
	if plan.Tunnel == nil {
		return nil
	}
	out := map[string]netip.Addr{}
	for _, p := range plan.Tunnel.Peers {
		i := slices.IndexFunc(nodes, func(n *corev1.Node) bool { return n != nil && n.Name == p.Node })
		if i < 0 {
			continue
		}
		for _, a := range nodes[i].Status.Addresses {
			ip, err := netip.ParseAddr(a.Address)
			if err != nil || a.Type != corev1.NodeInternalIP {
				continue
			}
			ip = ip.Unmap()
			sendable := ip.Is4() && plan.NodeIP4.IsValid() || ip.Is6() && plan.NodeIP6.IsValid()
			if sendable && slices.ContainsFunc(p.Prefixes, func(x netip.Prefix) bool { return x.Contains(ip) }) {
				out[p.Node] = ip
				break
			}
		}
	}
	return out
}
