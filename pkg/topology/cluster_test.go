package topology

import (
	"encoding/base64"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ravencni/raven/pkg/apis/raven/v1beta1"
)

// cluster builds a State the way a cluster's users do: label nodes, apply Gateways; agents publish their keys.
type cluster struct{ State }

func newCluster() *cluster {
	return &cluster{State{Config: Config{
		EnableTunnel:  true,
		ForwardNodeIP: true,
		Driver:        DriverWireGuard,
		TunnelPort:    v1beta1.DefaultTunnelPort,
	}}}
}

// node adds a Node with its InternalIPs and podCIDRs, and its TunnelEndpoint; gateway may be empty.
func (c *cluster) node(name, gateway string, ips, podCIDRs []string) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}
	if gateway != "" {
		n.Labels = map[string]string{v1beta1.LabelGateway: gateway}
	}
	for _, ip := range ips {
		n.Status.Addresses = append(n.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: ip})
	}
	n.Spec.PodCIDRs = podCIDRs
	if len(podCIDRs) > 0 {
		n.Spec.PodCIDR = podCIDRs[0]
	}
	c.Nodes = append(c.Nodes, n)
	c.publish(name)
	return n
}

func (c *cluster) publish(name string) *v1beta1.TunnelEndpoint {
	te := &v1beta1.TunnelEndpoint{ObjectMeta: metav1.ObjectMeta{Name: name}}
	te.Status.UnderlayMTU = 1500
	te.Status.Tunnels = []v1beta1.TunnelPort{{Driver: DriverWireGuard, Port: v1beta1.DefaultTunnelPort, PublicKey: keyOf(name)}}
	c.Endpoints = append(c.Endpoints, te)
	return te
}

// gateway adds a Gateway whose elected tunnel endpoint is the given node; publicIP exposes it, else it is under NAT.
func (c *cluster) gateway(name, active, publicIP string) *v1beta1.Gateway {
	gw := &v1beta1.Gateway{ObjectMeta: metav1.ObjectMeta{Name: name}}
	e := v1beta1.Endpoint{NodeName: active, Type: v1beta1.EndpointTunnel, Port: v1beta1.DefaultTunnelPort, UnderNAT: publicIP == "", PublicIP: publicIP}
	if publicIP != "" {
		gw.Spec.ExposeType = v1beta1.ExposePublicIP
	}
	gw.Spec.Endpoints = []v1beta1.Endpoint{e}
	gw.Status.ActiveEndpoints = []*v1beta1.Endpoint{e.DeepCopy()}
	c.Gateways = append(c.Gateways, gw)
	return gw
}

func (c *cluster) endpoint(node string) *v1beta1.TunnelEndpoint {
	i := slices.IndexFunc(c.Endpoints, func(e *v1beta1.TunnelEndpoint) bool { return e.Name == node })
	return c.Endpoints[i]
}

func (c *cluster) nodeNamed(name string) *corev1.Node {
	i := slices.IndexFunc(c.Nodes, func(n *corev1.Node) bool { return n.Name == name })
	return c.Nodes[i]
}

func (c *cluster) gatewayNamed(name string) *v1beta1.Gateway {
	i := slices.IndexFunc(c.Gateways, func(g *v1beta1.Gateway) bool { return g.Name == name })
	return c.Gateways[i]
}

func (c *cluster) plan(self string) *Plan { return Compile(c.State, self, Local{UnderlayMTU: 1500}) }

// keyOf makes a node's public key, 32 bytes of its name.
func keyOf(name string) string {
	var raw [32]byte
	copy(raw[:], fmt.Sprintf("%32s", name))
	return base64.StdEncoding.EncodeToString(raw[:])
}

// tutorial is the user's topology: an exposed cloud and two regions behind NAT, two nodes each, both families.
func tutorial() *cluster {
	c := newCluster()
	c.gateway("gw-cloud", "cloud-1", "120.79.0.10")
	c.gateway("gw-hangzhou", "hangzhou-1", "")
	c.gateway("gw-qingdao", "qingdao-1", "")
	c.node("cloud-1", "gw-cloud", []string{"192.168.0.195", "fd00:c::195"}, []string{"10.244.20.0/24", "fd00:244:20::/64"})
	c.node("cloud-2", "gw-cloud", []string{"192.168.0.196", "fd00:c::196"}, []string{"10.244.21.0/24", "fd00:244:21::/64"})
	c.node("hangzhou-1", "gw-hangzhou", []string{"172.16.2.103", "fd00:a::103"}, []string{"10.244.18.0/24", "fd00:244:18::/64"})
	c.node("hangzhou-2", "gw-hangzhou", []string{"172.16.2.104", "fd00:a::104"}, []string{"10.244.19.0/24", "fd00:244:19::/64"})
	c.node("qingdao-1", "gw-qingdao", []string{"172.16.1.89", "fd00:b::89"}, []string{"10.244.16.0/24", "fd00:244:16::/64"})
	c.node("qingdao-2", "gw-qingdao", []string{"172.16.1.90", "fd00:b::90"}, []string{"10.244.17.0/24", "fd00:244:17::/64"})
	return c
}

func prefixes(texts ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, t := range texts {
		out = append(out, netip.MustParsePrefix(t))
	}
	slices.SortFunc(out, netip.Prefix.Compare)
	return out
}

func addrs(texts ...string) []netip.Addr {
	var out []netip.Addr
	for _, t := range texts {
		out = append(out, netip.MustParseAddr(t))
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return out
}

// large is a cluster of many regions, a tenth of them exposed.
func large(gateways, nodesEach int) *cluster {
	c := newCluster()
	for g := range gateways {
		name := fmt.Sprintf("gw-%04d", g)
		public := ""
		if g%10 == 0 {
			public = fmt.Sprintf("198.18.%d.%d", g/250, 1+g%250)
		}
		c.gateway(name, name+"-0", public)
		for n := range nodesEach {
			i := g*nodesEach + n
			c.node(fmt.Sprintf("%s-%d", name, n), name,
				[]string{fmt.Sprintf("172.%d.%d.%d", 16+i>>16, i>>8&255, i&255), fmt.Sprintf("fd00:1::%x:%x", g+1, n+1)},
				[]string{fmt.Sprintf("10.%d.%d.0/24", i>>8, i&255), fmt.Sprintf("fd00:2:%x:%x::/64", g, n)})
		}
	}
	return c
}

func BenchmarkCompile(b *testing.B) {
	measure := func(name string, s State, self string) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				Compile(s, self, Local{UnderlayMTU: 1500})
			}
		})
	}
	c := large(1000, 10)
	measure("hub", c.State, "gw-0000-0")
	measure("gateway under NAT", c.State, "gw-0001-0")
	measure("member", c.State, "gw-0001-5")

	// The same LAN everywhere, as with cheap routers: every address is a conflict of a thousand.
	for i, n := range c.Nodes {
		n.Status.Addresses[0].Address = fmt.Sprintf("192.168.1.%d", 2+i%10)
	}
	measure("one LAN for all", c.State, "gw-0001-0")

	// A prefix that covers all others, a thousand times.
	for i, n := range c.Nodes {
		if i%10 == 3 {
			n.Spec.PodCIDRs[0] = "10.0.0.0/8"
		}
	}
	measure("a thousand wide prefixes", c.State, "gw-0001-0")
}
