package lab

import "net/netip"

// PodNetwork says how a node's CNI plugin connects pods to it.
type PodNetwork string

const (
	// PointToPoint gives each pod a veth with a host route, as the ptp plugin does.
	PointToPoint PodNetwork = "ptp"
	// Bridge puts the pods of a node on a bridge cni0, as the bridge plugin does.
	Bridge PodNetwork = "bridge"
	// LeftToOthers makes no bridge: the node's pods come from elsewhere, such as from a kubelet.
	LeftToOthers PodNetwork = "others"
)

// Spec describes a lab.
type Spec struct {
	Regions []Region
	// Straight wires each region's nodes, two of them, and the two regions' gateways straight to one another, without
	// NAT boxes, switches and router: for measurements, where these would cost the same whatever forwards, and dilute
	// the difference.
	Straight bool
	// Disks gives each node a root file system of its own: what the machine has, with every change kept in memory and gone
	// with the node.
	Disks bool
}

// Region is a closed network: a LAN behind a NAT box, which the nodes' default routes lead to.
type Region struct {
	Name string
	// LAN4 and LAN6 hold the nodes' own addresses; the first address of each is the NAT box.
	LAN4, LAN6 netip.Prefix
	// Box is the public address of the NAT box, Router the router's address on the same wire.
	Box    netip.Prefix
	Router netip.Prefix
	// LoadBalancer is a public address and port that leads to the gateway's tunnel port by translations which are not
	// the lab's own; the gateway then needs no public address. The zero value: there is none.
	LoadBalancer netip.AddrPort
	Nodes        []Node
}

// Node is one machine of a region.
type Node struct {
	Name     string
	IP4, IP6 netip.Addr
	// Gateway nodes stand in the Gateway's endpoints.
	Gateway bool
	// Public is the node's own public address, on a second network card; the zero value: it has none, and its only way
	// out is the NAT box.
	Public netip.Prefix
	// PublicRouter is the router's address on the wire of Public.
	PublicRouter netip.Prefix
	Pods4, Pods6 netip.Prefix
	PodNetwork   PodNetwork
	Pods         []Pod
}

// Pod is a pod from the start of the lab; its host is called <node>/<Name>.
type Pod struct {
	Name     string
	IP4, IP6 netip.Addr
}

// Exposed reports whether other regions can dial the region's gateway.
func (r *Region) Exposed() bool { return r.PublicIP().IsValid() }

// PublicIP is where other regions dial the region's gateway; invalid where they cannot.
func (r *Region) PublicIP() netip.Addr {
	if r.LoadBalancer.IsValid() {
		return r.LoadBalancer.Addr()
	}
	return r.Gateway().Public.Addr()
}

// Gateway is the region's first gateway node.
func (r *Region) Gateway() *Node {
	for i := range r.Nodes {
		if r.Nodes[i].Gateway {
			return &r.Nodes[i]
		}
	}
	return &r.Nodes[0]
}

// Tutorial is the tutorial's cluster: the cloud with a public address and two edge regions behind NAT, with the
// tutorial's node and pod addresses.
func Tutorial() Spec {
	return Spec{Regions: []Region{
		{
			Name: "cloud", LAN4: prefix("192.168.0.0/24"), LAN6: prefix("fd00:192:168::/64"),
			Box: prefix("198.51.100.2/30"), Router: prefix("198.51.100.1/30"),
			Nodes: []Node{
				{
					Name: "cloud-1", IP4: addr("192.168.0.195"), IP6: addr("fd00:192:168::195"), Gateway: true,
					Public: prefix("203.0.113.10/24"), PublicRouter: prefix("203.0.113.1/24"),
					Pods4: prefix("10.244.20.0/24"), Pods6: prefix("fd00:10:244:20::/64"), PodNetwork: Bridge,
					Pods: []Pod{{"a", addr("10.244.20.2"), addr("fd00:10:244:20::2")}},
				},
				{
					Name: "cloud-2", IP4: addr("192.168.0.196"), IP6: addr("fd00:192:168::196"),
					Pods4: prefix("10.244.21.0/24"), Pods6: prefix("fd00:10:244:21::/64"), PodNetwork: PointToPoint,
					Pods: []Pod{{"a", addr("10.244.21.2"), addr("fd00:10:244:21::2")}},
				},
			},
		},
		{
			Name: "hangzhou", LAN4: prefix("172.16.2.0/24"), LAN6: prefix("fd00:172:16:2::/64"),
			Box: prefix("198.51.100.6/30"), Router: prefix("198.51.100.5/30"),
			Nodes: []Node{
				{
					Name: "hangzhou-1", IP4: addr("172.16.2.103"), IP6: addr("fd00:172:16:2::103"), Gateway: true,
					Pods4: prefix("10.244.18.0/24"), Pods6: prefix("fd00:10:244:18::/64"), PodNetwork: Bridge,
					Pods: []Pod{{"a", addr("10.244.18.4"), addr("fd00:10:244:18::4")}},
				},
				{
					Name: "hangzhou-2", IP4: addr("172.16.2.104"), IP6: addr("fd00:172:16:2::104"),
					Pods4: prefix("10.244.19.0/24"), Pods6: prefix("fd00:10:244:19::/64"), PodNetwork: PointToPoint,
					Pods: []Pod{
						{"a", addr("10.244.19.3"), addr("fd00:10:244:19::3")},
						{"b", addr("10.244.19.4"), addr("fd00:10:244:19::4")},
					},
				},
			},
		},
		{
			Name: "qingdao", LAN4: prefix("172.16.1.0/24"), LAN6: prefix("fd00:172:16:1::/64"),
			Box: prefix("198.51.100.10/30"), Router: prefix("198.51.100.9/30"),
			Nodes: []Node{
				{
					Name: "qingdao-1", IP4: addr("172.16.1.89"), IP6: addr("fd00:172:16:1::89"), Gateway: true,
					Pods4: prefix("10.244.16.0/24"), Pods6: prefix("fd00:10:244:16::/64"), PodNetwork: Bridge,
					Pods: []Pod{{"a", addr("10.244.16.161"), addr("fd00:10:244:16::161")}},
				},
				{
					Name: "qingdao-2", IP4: addr("172.16.1.90"), IP6: addr("fd00:172:16:1::90"),
					Pods4: prefix("10.244.17.0/24"), Pods6: prefix("fd00:10:244:17::/64"), PodNetwork: PointToPoint,
					Pods: []Pod{
						{"a", addr("10.244.17.19"), addr("fd00:10:244:17::19")},
						{"b", addr("10.244.17.20"), addr("fd00:10:244:17::20")},
					},
				},
			},
		},
	}}
}

// Pair is the smallest cluster with every hop: two regions of two nodes, both gateways with public addresses. The
// benchmark uses it.
func Pair() Spec { return pair(28) }

// StraightPair is Pair with straight wires (see Spec): a packet from member to member crosses four nodes and nothing
// else.
func StraightPair() Spec {
	s := pair(24) // the gateways' public addresses lie on one wire
	s.Straight = true
	return s
}

func pair(publicBits int) Spec {
	region := func(name string, n byte) Region {
		at := func(a, b, c, d byte) netip.Addr { return netip.AddrFrom4([4]byte{a, b, c, d}) }
		at6 := func(a, b, host byte) netip.Addr {
			return netip.AddrFrom16([16]byte{0xfd, 0, 0, a, 0, b, 15: host})
		}
		node := func(host byte, gateway bool) Node {
			return Node{
				Name: name + "-" + string('0'+host), IP4: at(172, 16, n, host), IP6: at6(1, n, host), Gateway: gateway,
				Pods4:      netip.PrefixFrom(at(10, 244, n*10+host, 0), 24),
				Pods6:      netip.PrefixFrom(at6(2, n*10+host, 0), 64),
				PodNetwork: PointToPoint,
				Pods:       []Pod{{"a", at(10, 244, n*10+host, 2), at6(2, n*10+host, 2)}},
			}
		}
		r := Region{
			Name: name, LAN4: netip.PrefixFrom(at(172, 16, n, 0), 24), LAN6: netip.PrefixFrom(at6(1, n, 0), 64),
			Box: netip.PrefixFrom(at(198, 51, 100, n*4+2), 30), Router: netip.PrefixFrom(at(198, 51, 100, n*4+1), 30),
			Nodes: []Node{node(11, true), node(12, false)},
		}
		r.Nodes[0].Name, r.Nodes[1].Name = name+"-1", name+"-2"
		r.Nodes[0].Public = netip.PrefixFrom(at(203, 0, 113, n*16+10), publicBits)
		r.Nodes[0].PublicRouter = netip.PrefixFrom(at(203, 0, 113, n*16+1), publicBits)
		return r
	}
	return Spec{Regions: []Region{region("east", 1), region("west", 2)}}
}

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }
func addr(s string) netip.Addr     { return netip.MustParseAddr(s) }
