package topology

import (
	"cmp"
	"encoding/base64"
	"net/netip"
	"slices"

	"github.com/ravencni/raven/pkg/apis/raven/v1beta1"
)

// end is a region's end of the tunnels.
type end struct {
	endpoint *v1beta1.Endpoint
	// dial is where other regions dial this one; invalid where they cannot.
	dial netip.AddrPort
	// key in the driver's notation; empty for drivers without.
	key string
	// usable is true where other regions can have this end as a peer.
	usable bool
	// outer are the addresses that packets of the tunnel itself are known to go to.
	outer []netip.Addr
}

func (e *end) dialable() bool { return e.dial.IsValid() }

// activeTunnels lists the active tunnel endpoints by node name: status.activeEndpoints of type tunnel, or the single
// status.activeEndpoint of readers and writers of v1alpha1 where there is none.
func activeTunnels(gw *v1beta1.Gateway) []*v1beta1.Endpoint {
	var out []*v1beta1.Endpoint
	for _, e := range gw.Status.ActiveEndpoints {
		if e != nil && e.NodeName != "" && e.EffectiveType() == v1beta1.EndpointTunnel {
			out = append(out, e)
		}
	}
	if e := gw.Status.ActiveEndpoint; len(out) == 0 && e != nil && e.NodeName != "" &&
		e.EffectiveType() == v1beta1.EndpointTunnel {
		out = append(out, e)
	}
	slices.SortStableFunc(out, func(a, b *v1beta1.Endpoint) int { return cmp.Compare(a.NodeName, b.NodeName) })
	return out
}

// TunnelNodes names the nodes that hold the tunnels of regions.
func TunnelNodes(gateways []*v1beta1.Gateway) (names []string) {
	for _, gw := range gateways {
		for _, e := range activeTunnels(gw) {
			names = append(names, e.NodeName)
		}
	}
	return names
}

// findActive picks the node that holds the region's tunnels: the first active tunnel endpoint that is a member and has
// an address.
func (m *model) findActive(r *region) {
	active := activeTunnels(r.gw)
	if len(active) == 0 {
		m.problems.add(gatewayObject(r.name), ReasonNoActiveEndpoint,
			"no active tunnel endpoint is elected, so the region cannot be reached: see the condition TunnelElected")
		return
	}
	for _, e := range active {
		i, found := slices.BinarySearchFunc(r.nodes, e.NodeName, func(n *node, name string) int { return cmp.Compare(n.name, name) })
		switch {
		case !found:
			m.problems.add(gatewayObject(r.name), ReasonNoActiveEndpoint,
				"active tunnel endpoint %s is not a node of the region: list a member in spec.endpoints", e.NodeName)
		case len(r.nodes[i].addresses()) == 0:
			m.problems.add(gatewayObject(r.name), ReasonNoActiveEndpoint,
				"active tunnel endpoint %s has no usable InternalIP: set its kubelet's --node-ip", e.NodeName)
		case r.active != nil:
			m.problems.add(gatewayObject(r.name), ReasonSeveralActiveEndpoints,
				"active tunnel endpoint %s is not used: only %s is", e.NodeName, r.active.name)
		default:
			r.active, r.end.endpoint = r.nodes[i], e
		}
	}
}

// findEnds completes the regions' ends: addresses, keys, and who may relay.
func (m *model) findEnds() {
	owners := make(map[string]*region)
	for _, r := range m.regions {
		if r.active == nil {
			continue
		}
		m.findDial(r)
		r.end.key, r.end.usable = m.findKey(r)
		if r.end.key == "" {
			// no key to share
		} else if first := owners[r.end.key]; first != nil {
			r.end.usable = false
			m.problems.add(endpointObject(r.active.name), ReasonPeerKeyDuplicate,
				"the public key is also that of node %s in region %s, so region %s is left out: remove the copied key on this node and restart its agent",
				first.active.name, first.name, r.name)
		} else {
			owners[r.end.key] = r
		}
		if r.end.usable && r.end.dialable() && r.gw.Spec.ExposeType != v1beta1.ExposeNone {
			m.hubs = append(m.hubs, r)
		}
	}
}

// findDial sets where the region is dialled, and the addresses that tunnel packets go to.
func (m *model) findDial(r *region) {
	e := r.end.endpoint
	var public netip.Addr
	if e.PublicIP != "" {
		ip, err := netip.ParseAddr(e.PublicIP)
		if ip = ip.Unmap(); err == nil && isHostAddress(ip) {
			public = ip
		} else {
			m.problems.add(gatewayObject(r.name), ReasonInvalidPublicIP,
				"publicIP %q of endpoint %s is not an address that can be dialled: write an IP address or leave it out", e.PublicIP, e.NodeName)
		}
	}
	port := m.dialPort(r)
	exposed := r.gw.Spec.ExposeType != v1beta1.ExposeNone
	switch {
	case e.UnderNAT:
		if exposed {
			m.problems.add(gatewayObject(r.name), ReasonExposedNotDialable,
				"the gateway is exposed but endpoint %s is underNAT, so nobody dials it: correct one of them", e.NodeName)
		}
	case public.IsValid():
		r.end.dial = netip.AddrPortFrom(public, port)
		r.end.outer = []netip.Addr{public}
	default:
		if exposed {
			m.problems.add(gatewayObject(r.name), ReasonExposedNotDialable,
				"the gateway is exposed but endpoint %s has no usable publicIP, so nobody can dial it: give it one", e.NodeName)
		}
		// It dials out, and without a NAT its packets come from its own address: answers go there.
		r.end.outer = r.active.addresses()
	}
}

// dialPort is the endpoint's publicPort, else its port, else what the node published, else the configured one. The second
// port is known by the node's word alone, and what forwards a publicPort does not lead there.
func (m *model) dialPort(r *region) uint16 {
	e := r.end.endpoint
	t := m.published(e.NodeName)
	if t.Second && t.Port > 0 {
		return firstPort(t.Port)
	}
	return firstPort(e.PublicPort, e.Port, t.Port, m.config.TunnelPort)
}

// firstPort returns the first number that is a port, or the tunnel's default.
func firstPort(ports ...int) uint16 {
	for _, p := range ports {
		if p > 0 && p <= 65535 {
			return uint16(p)
		}
	}
	return v1beta1.DefaultTunnelPort
}

// findKey returns the public key of the region's active node, from its TunnelEndpoint or else from the Gateway's
// status, and whether the node can be a peer.
func (m *model) findKey(r *region) (key string, usable bool) {
	name := r.active.name
	if te := m.endpoints[name]; te != nil {
		offered := len(te.Status.Tunnels) == 0
		for _, t := range te.Status.Tunnels {
			if t.Driver == m.config.Driver {
				key, offered = t.PublicKey, true
				break
			}
		}
		if !offered {
			m.problems.add(endpointObject(name), ReasonPeerDriverMismatch,
				"node %s of region %s does not offer driver %q: set the same vpn-driver everywhere", name, r.name, m.config.Driver)
			return "", false
		}
	}
	if m.config.Driver != DriverWireGuard {
		return key, true
	}
	if key == "" {
		key = r.end.endpoint.Config[v1beta1.ConfigPublicKey]
	}
	if key == "" {
		m.problems.add(endpointObject(name), ReasonPeerKeyMissing,
			"node %s of region %s has not published its public key: its agent is starting, or cannot write its TunnelEndpoint", name, r.name)
		return "", false
	}
	normal, ok := normalKey(key)
	if !ok {
		m.problems.add(endpointObject(name), ReasonPeerKeyInvalid,
			"%q of node %s is not a WireGuard public key (base64 of 32 bytes, not all zero): restart its agent to publish it again", key, name)
		return "", false
	}
	return normal, true
}

// normalKey reads a WireGuard public key and writes it in the one canonical way, so that equal keys are equal strings.
func normalKey(text string) (string, bool) {
	raw, err := base64.StdEncoding.DecodeString(text)
	if err != nil || len(raw) != 32 || [32]byte(raw) == [32]byte{} {
		return "", false
	}
	return base64.StdEncoding.EncodeToString(raw), true
}
