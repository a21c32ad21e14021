package topology

import (
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/ravencni/raven/pkg/apis/raven/v1beta1"
)

// model is the cluster as every node sees it: all that does not depend on which node plans. Since each node computes
// it from the same objects by the same rules, the Plans of all nodes fit together.
type model struct {
	config    Config
	problems  problems
	conflicts []Conflict
	endpoints map[string]*v1beta1.TunnelEndpoint
	// regions that take part in L3, sorted by name.
	regions []*region
	// nodes of these regions by name.
	nodes map[string]*node
	// known holds the names of all Node objects.
	known map[string]struct{}
	// ipv6 is true where any IPv6 prefix is routed.
	ipv6 bool
	// hubs relay between regions that are both behind NAT, sorted by name.
	hubs []*region
}

// region is a Gateway whose tunnel is on.
type region struct {
	name string
	gw   *v1beta1.Gateway
	// nodes of the region, sorted by name, those left out included.
	nodes []*node
	// active is the node that holds the tunnels; nil where there is none.
	active *node
	// underlay6 is true where the region's overlay runs over IPv6.
	underlay6 bool
	end       end
}

// node is a member of a region.
type node struct {
	name   string
	obj    *corev1.Node
	region *region
	// ip4 and ip6 are the first usable InternalIP of each family.
	ip4, ip6 netip.Addr
	// shared4 and shared6 are true where another node of the region has that address and keeps it.
	shared4, shared6 bool
	// underlay is the address of the region's family; invalid where the node is left out of the region's overlay, and
	// with it out of L3.
	underlay netip.Addr
	// pods are the node's own pod prefixes, planned or not.
	pods []netip.Prefix
	// extras are more source prefixes of the active gateway node.
	extras []netip.Prefix
	// routed are the prefixes and addresses that lead to this node in every Plan.
	routed []netip.Prefix
	// routes is their number, known before the list.
	routes int
	// mtu of the underlay in bytes, as the node published it.
	mtu int
	// addressOut is true where an address of the node is not routed, so that it is of no use as a source either.
	addressOut bool
}

func newModel(state State) *model {
	m := &model{config: state.Config}
	m.checkConfig()
	gateways := uniqueGateways(state.Gateways, &m.problems)
	nodes := uniqueNodes(state.Nodes, &m.problems)
	m.known = make(map[string]struct{}, len(nodes))
	for _, n := range nodes {
		m.known[n.Name] = struct{}{}
	}
	endpoints := uniqueEndpoints(state.Endpoints, &m.problems)
	m.endpoints = make(map[string]*v1beta1.TunnelEndpoint, len(endpoints))
	for _, e := range endpoints {
		m.endpoints[e.Name] = e
	}
	members := assign(gateways, nodes, &m.problems)

	m.addRegions(gateways, members)
	subnets := statusSubnets(m.regions)
	for _, r := range m.regions {
		for _, n := range r.nodes {
			m.readAddresses(n)
			n.mtu = m.publishedMTU(n.name)
		}
		m.findActive(r)
		m.chooseUnderlays(r)
		for _, n := range r.nodes {
			m.readSubnets(n, subnets)
		}
	}
	m.findEnds()
	m.resolve()
	return m
}

// addRegions makes the regions that take part in L3. A Gateway with tunnel replicas 0, or one that lists no tunnel
// endpoint at all, asks for no tunnel: its nodes stay outside, and nobody's packets to them are touched.
func (m *model) addRegions(gateways []*v1beta1.Gateway, members Membership) {
	m.nodes = make(map[string]*node, len(members.GatewayOf))
	slab := make([]node, len(members.GatewayOf))
	for _, gw := range gateways {
		if !tunnelWanted(gw) {
			continue
		}
		r := &region{name: gw.Name, gw: gw}
		r.nodes = make([]*node, 0, len(members.Members[gw.Name]))
		for _, obj := range members.Members[gw.Name] {
			n := &slab[0]
			slab = slab[1:]
			n.name, n.obj, n.region = obj.Name, obj, r
			r.nodes = append(r.nodes, n)
			m.nodes[n.name] = n
		}
		m.checkEndpoints(r, members)
		m.regions = append(m.regions, r)
	}
}

func tunnelWanted(gw *v1beta1.Gateway) bool {
	if t := gw.Spec.TunnelConfig; t != nil && t.Replicas != nil && *t.Replicas <= 0 {
		return false
	}
	return len(activeTunnels(gw)) > 0 || slices.ContainsFunc(gw.Spec.Endpoints, func(e v1beta1.Endpoint) bool {
		return e.EffectiveType() == v1beta1.EndpointTunnel
	})
}

// checkEndpoints reports candidates that can never be elected. They cost nothing: the others serve.
func (m *model) checkEndpoints(r *region, members Membership) {
	for i := range r.gw.Spec.Endpoints {
		name := r.gw.Spec.Endpoints[i].NodeName
		if _, ok := m.known[name]; !ok {
			m.problems.add(gatewayObject(r.name), ReasonEndpointNodeNotFound,
				"spec.endpoints names node %q, which does not exist: correct the name or remove the endpoint", name)
		} else if members.GatewayOf[name] != r.name {
			m.problems.add(gatewayObject(r.name), ReasonEndpointNotMember,
				"spec.endpoints names node %s, which is not in this region: label it %s=%s", name, v1beta1.LabelGateway, r.name)
		}
	}
}

func (m *model) checkConfig() {
	switch m.config.Driver {
	case DriverWireGuard, DriverIPsec, DriverPlain:
	default:
		m.problems.add(configObject, ReasonUnknownDriver, "vpn-driver %q is unknown: use %s or %s",
			m.config.Driver, DriverWireGuard, DriverIPsec)
	}
	var services []netip.Prefix
	for _, p := range m.config.ServiceCIDRs {
		if !p.IsValid() || p.Bits() == 0 {
			m.problems.add(configObject, ReasonInvalidServiceCIDR, "service range %s is left out: it must be a prefix longer than /0", p)
			continue
		}
		services = append(services, p.Masked())
	}
	m.config.ServiceCIDRs = services
}

// Names of tunnel drivers.
const (
	DriverWireGuard = "wireguard"
	DriverIPsec     = "ipsec"
	// DriverPlain is VXLAN without encryption, for tests and measurements.
	DriverPlain = "plain"
)
