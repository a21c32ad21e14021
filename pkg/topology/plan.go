package topology

import (
	"net"
	"net/netip"
)

// Role of a node in its region.
type Role string

const (
	// RoleNone: the node is in no region, or L3 is off. Its Plan is empty and Raven owns nothing in its kernel.
	RoleNone Role = "none"
	// RoleMember: the node hands cross-region traffic to its gateway.
	RoleMember Role = "member"
	// RoleGateway: the node holds the region's tunnels.
	RoleGateway Role = "gateway"
)

// Kind of a next hop.
type Kind string

const (
	// KindOverlay: another node of the region, over raven0 (VXLAN).
	KindOverlay Kind = "overlay"
	// KindDirect: another node of the region, on-link, without encapsulation.
	KindDirect Kind = "direct"
	// KindTunnel: another region, over this gateway's tunnel device.
	KindTunnel Kind = "tunnel"
	// KindUnreachable: another region that no usable peer leads to. The kernel answers with an ICMP error instead of
	// letting the packet leave in the clear by the default route.
	KindUnreachable Kind = "unreachable"
)

// Scope says whose traffic a prefix serves.
type Scope string

const (
	// ScopeRemote: a prefix of another region; table 9027, any traffic.
	ScopeRemote Scope = "remote"
	// ScopeInRegion: on a gateway, a prefix of another node of its own region; table 9028, only traffic that came out
	// of a tunnel.
	ScopeInRegion Scope = "in-region"
)

// Plan is everything that one node's kernel, tunnels and BPF maps should hold. It is a pure function of the cluster's
// objects, this node's name and Local, and every applier reads it, so that they cannot disagree. All slices are sorted;
// equal inputs give deeply equal Plans.
type Plan struct {
	Node   string
	Region string // name of the Gateway; empty with RoleNone
	Role   Role

	// NodeIP4 and NodeIP6 are this node's own underlay addresses; invalid where the node has none of that family.
	NodeIP4, NodeIP6 netip.Addr
	// NodeIPConflicts is true where other regions have no route to a node address of ours: it stands in another region
	// too or in a pod or service range, tunnels themselves are dialled at it, or forward-node-ip is off. Routes then take
	// their source address from the local pod prefixes.
	NodeIPConflicts bool
	// LocalPrefixes are this node's own pod prefixes, those that are left out of L3 included, plus, on the active
	// gateway, the extra source prefixes that are in L3. No table ever holds one of them. A planned prefix inside one of
	// them leads elsewhere: a node that the gateway announces a summary for, or the rightful owner of a part.
	LocalPrefixes []netip.Prefix

	// Overlay is raven0; nil: the device must not exist.
	Overlay *Overlay
	// Tunnel is this node's end of the tunnels; nil: no tunnel device, no peers.
	Tunnel *Tunnel

	// NextHops by ID, each used by at least one prefix.
	NextHops []NextHop
	// Prefixes is the one list from which kernel routes (9027, 9028), the BPF FIB and the nft sets are made.
	Prefixes []Prefix
	// Throws are the hosts whose look-ups must fall through to the main table: outer tunnel addresses, own-region node
	// addresses, the API server.
	Throws []netip.Addr

	// Problems are the inputs that were left out, of the whole cluster, sorted by object, reason, message.
	Problems []Problem
	// Conflicts are the prefixes that stand in two regions, or overlap a pod or service range of another; they are left
	// out of L3 on every node.
	Conflicts []Conflict
}

// Overlay describes raven0, the VXLAN device between the nodes of one region.
type Overlay struct {
	// MTU in bytes of an inner IP packet: the underlay's less VXLAN's cost.
	MTU int
	// MAC is this node's VTEP address, VTEPMAC(node IP).
	MAC net.HardwareAddr
	// Underlay is the family-deciding local address that outer packets leave from.
	Underlay netip.Addr
	// Neighbours are the VTEPs that this node sends to: on a member its gateway, on a gateway every member. The FDB
	// (MAC -> Underlay), permanent neighbours (node IP and link-local -> MAC) follow from them.
	Neighbours []Neighbour
	// Members are the underlay addresses of all other nodes of the region: nobody else may send VXLAN to us.
	Members []netip.Addr
}

// Neighbour is another node of the region.
type Neighbour struct {
	Node     string
	Underlay netip.Addr
	MAC      net.HardwareAddr
}

// LinkLocal6 is the IPv6 link-local address made from the neighbour's MAC: the next hop of IPv6 prefixes.
func (n Neighbour) LinkLocal6() netip.Addr { return LinkLocalFromMAC(n.MAC) }

// Tunnel is this gateway's end of the tunnels.
type Tunnel struct {
	// Driver is wireguard, ipsec or plain.
	Driver string
	// ListenPort is the UDP port.
	ListenPort int
	// Second: that is the second port (see PortChoice).
	Second bool
	// MTU in bytes of an inner IP packet.
	MTU int
	// Peers are the gateways of other regions that this node holds a tunnel to, sorted by Region.
	Peers []Peer
}

// Peer is the gateway node of another region.
type Peer struct {
	Region string
	Node   string
	// PublicKey in the driver's notation.
	PublicKey string
	// Endpoint is where to dial; invalid where the peer dials us.
	Endpoint netip.AddrPort
	// KeepaliveSeconds is non-zero where this end cannot be dialled, so that it must keep the way back to it open.
	KeepaliveSeconds int
	// Prefixes may come from this peer and go to it: its own region's and those that it relays for us. A prefix is at
	// one peer only.
	Prefixes []netip.Prefix
	// Relays names the regions reached through this peer, its own not included.
	Relays []string
}

// NextHop is where prefixes point. Failover rewrites next hops and leaves the prefixes alone.
type NextHop struct {
	// ID is "region/<gateway name>" or "node/<node name>"; stable for as long as that object exists. With Local.Direct the
	// family that is not the underlay's has a next hop of its own, with "/ipv4" or "/ipv6" behind the name.
	ID   string
	Kind Kind
	// Node is the neighbour (overlay, direct) or the peer's node (tunnel).
	Node string
	// Underlay is the neighbour's underlay address (overlay, direct; tunnel with the plain driver, whose device carries
	// Ethernet frames).
	Underlay netip.Addr
	// MAC is the neighbour's VTEP address (overlay; tunnel with the plain driver).
	MAC net.HardwareAddr
	// MTU in bytes of an IP packet that fits all the way; routes carry it.
	MTU int
}

// Prefix is one destination.
type Prefix struct {
	Prefix netip.Prefix
	Scope  Scope
	// NextHop is the ID of one of Plan.NextHops.
	NextHop string
}

// Problem is an input item that was left out, or read with a correction; all the rest of the Plan works without it.
type Problem struct {
	// Object is Kind/name, such as Node/edge-1.
	Object string
	// Reason is a stable CamelCase word, such as MalformedCIDR; see the Reason constants.
	Reason string
	// Message says what is wrong and what the user can do.
	Message string
}

// Conflict is a prefix that cannot be routed because it means two things.
type Conflict struct {
	Prefix netip.Prefix
	// Objects that claim it or a part of it (Node/a, Gateway/b, ServiceCIDR), sorted; of very many, some.
	Objects []string
}
