// Package directory says, from the cluster's objects, what the L7 proxy of one node does and how a node is reached. It is
// a pure function, as the planner is: equal objects give equal answers on every node.
package directory

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/ravencni/raven/pkg/apis/raven/v1beta1"
	"github.com/ravencni/raven/pkg/controller/services"
	"github.com/ravencni/raven/pkg/proxy/certificates"
	"github.com/ravencni/raven/pkg/proxy/front"
	"github.com/ravencni/raven/pkg/proxy/refusal"
	"github.com/ravencni/raven/pkg/proxy/target"
	"github.com/ravencni/raven/pkg/proxy/tunnel"
	"github.com/ravencni/raven/pkg/topology"
)

// kubeletPort is where kubelets listen whose Node does not say another port.
const kubeletPort = 10250

// Directory is the cluster as the proxy of one node sees it. It is never written after New.
type Directory struct {
	// Gateway is the node's region; empty: none.
	Gateway string
	// Address is the node's own; invalid: none.
	Address netip.Addr
	// Active: this node is an active proxy of its region, and the proxy is on. Front: other regions dial it, too.
	Active, Front bool
	// TunnelPort is where edges dial this node.
	TunnelPort int
	// Endpoints are the proxies that this node dials, sorted.
	Endpoints []tunnel.Endpoint
	// HTTPS are the ports that TLS is carried to, each with a listener of its own.
	HTTPS []int

	nodes     map[string]*node
	byAddress map[netip.Addr][]*node
	active    map[string]bool // nodes that are active proxies
	exposed   map[string]bool // those of exposed gateways
	ports     map[int]bool
	sources   []netip.Prefix
	resolve   func(ctx context.Context, name string) ([]netip.Addr, error)
}

type node struct {
	name, gateway string
	addresses     []netip.Addr
	kubelet       int
}

// New reads the objects for one node.
func New(state topology.State, self string) *Directory {
	members := topology.AssignNodes(state.Gateways, state.Nodes)
	gateways := slices.SortedFunc(slices.Values(state.Gateways), func(a, b *v1beta1.Gateway) int { return cmp.Compare(a.Name, b.Name) })
	d := &Directory{
		Gateway: members.GatewayOf[self], nodes: map[string]*node{}, byAddress: map[netip.Addr][]*node{},
		active: map[string]bool{}, exposed: map[string]bool{}, ports: map[int]bool{}, sources: state.Config.ProxySources,
		resolve: func(ctx context.Context, name string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", name)
		},
	}
	for _, obj := range members.Nodes {
		d.addNode(obj, members.GatewayOf[obj.Name])
	}
	if me := d.nodes[self]; me != nil && len(me.addresses) > 0 {
		d.Address = me.addresses[0]
	}
	http, https := services.Configured(gateways)
	d.HTTPS = https
	for _, p := range slices.Concat(http, https) {
		d.ports[p] = true
	}
	for _, gw := range gateways {
		d.addProxies(gw, self, members.GatewayOf)
		if gw.Name == d.Gateway && len(d.sources) == 0 {
			d.sources = regionOf(gw, members.Members[gw.Name])
		}
	}
	slices.SortFunc(d.Endpoints, func(a, b tunnel.Endpoint) int {
		return cmp.Or(cmp.Compare(a.Gateway, b.Gateway), cmp.Compare(a.Node, b.Node), cmp.Compare(a.Address, b.Address))
	})
	if !d.Active {
		d.Front, d.Endpoints = false, nil
	}
	return d
}

func (d *Directory) addNode(obj *corev1.Node, gateway string) {
	n := &node{name: obj.Name, gateway: gateway, kubelet: kubeletPort}
	if p := obj.Status.DaemonEndpoints.KubeletEndpoint.Port; p > 0 {
		n.kubelet = int(p)
	}
	ip4, ip6, _ := topology.InternalIPs(obj) // the planner reports bad ones
	for _, a := range []netip.Addr{ip4, ip6} {
		if a.IsValid() {
			n.addresses = append(n.addresses, a)
			d.byAddress[a] = append(d.byAddress[a], n)
		}
	}
	d.nodes[n.name] = n
}

// addProxies reads the active proxies of a gateway.
func (d *Directory) addProxies(gw *v1beta1.Gateway, self string, gatewayOf map[string]string) {
	for _, e := range gw.Status.ActiveEndpoints {
		if e == nil || e.EffectiveType() != v1beta1.EndpointProxy || e.Config[v1beta1.ConfigEnableProxy] == "false" ||
			gatewayOf[e.NodeName] != gw.Name {
			continue
		}
		d.active[e.NodeName] = true
		d.exposed[e.NodeName] = services.Exposed(gw)
		if e.NodeName == self {
			d.Active, d.Front, d.TunnelPort = true, services.Exposed(gw), e.EffectivePort()
		}
		public, err := netip.ParseAddr(e.PublicIP)
		if gw.Name != d.Gateway && services.Exposed(gw) && err == nil {
			d.Endpoints = append(d.Endpoints, tunnel.Endpoint{
				Gateway: gw.Name, Node: e.NodeName, Address: netip.AddrPortFrom(public, uint16(e.EffectivePublicPort())).String(),
			})
		}
	}
}

// regionOf lists the addresses of a region's nodes and pods.
func regionOf(gw *v1beta1.Gateway, members []*corev1.Node) []netip.Prefix {
	all := map[netip.Prefix]bool{}
	add := func(text string) {
		if p, err := netip.ParsePrefix(text); err == nil && p.Bits() > 0 { // the planner reports bad ones
			all[p.Masked()] = true
		}
	}
	for _, n := range members {
		ip4, ip6, _ := topology.InternalIPs(n)
		for _, a := range []netip.Addr{ip4, ip6} {
			if a.IsValid() {
				all[netip.PrefixFrom(a, a.BitLen())] = true
			}
		}
		for _, p := range n.Spec.PodCIDRs {
			add(p)
		}
	}
	for _, n := range gw.Status.Nodes {
		for _, p := range n.Subnets {
			add(p)
		}
	}
	return slices.SortedFunc(maps.Keys(all), func(a, b netip.Prefix) int {
		return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
	})
}

// Admit returns the region of a node whose proxy dials this one.
func (d *Directory) Admit(name string) (string, error) {
	n := d.nodes[name]
	switch {
	case n == nil:
		return "", refusal.New(refusal.UnknownNode, "", name, "no node has that name")
	case n.gateway == "":
		return "", refusal.New(refusal.NoRegion, "", name, "the node is in no region")
	case !d.active[name]:
		return "", refusal.New(refusal.NotActive, n.gateway, name, "it is no active proxy of its gateway")
	}
	return n.gateway, nil
}

// Reach implements tunnel.Region.
func (d *Directory) Reach(name string, port uint16) ([]netip.AddrPort, error) {
	n := d.nodes[name]
	switch {
	case !d.Active:
		return nil, refusal.New(refusal.Off, d.Gateway, name, "this proxy is switched off")
	case n == nil:
		return nil, refusal.New(refusal.UnknownNode, d.Gateway, name, "the edge knows no node of that name")
	case n.gateway != d.Gateway:
		return nil, refusal.New(refusal.OtherRegion, d.Gateway, name, "the node is of gateway %q", n.gateway)
	}
	if err := d.check(n, port); err != nil {
		return nil, err
	}
	return n.at(port), nil
}

func (d *Directory) check(n *node, port uint16) error {
	if d.ports[int(port)] || int(port) == n.kubelet {
		return nil
	}
	return refusal.New(refusal.PortNotAllowed, n.gateway, n.name,
		"port %d is neither the kubelet's nor in proxyHTTPPort or proxyHTTPSPort of an exposed Gateway", port)
}

func (n *node) at(port uint16) []netip.AddrPort {
	out := make([]netip.AddrPort, 0, len(n.addresses))
	for _, a := range n.addresses {
		out = append(out, netip.AddrPortFrom(a, port))
	}
	return out
}

// Find implements front.Directory.
func (d *Directory) Find(to target.HostPort) (front.Route, error) {
	if to.Host.Address.IsValid() {
		return front.Route{}, refusal.New(refusal.BadTarget, "", to.Host.String(), "this end takes names of nodes and no addresses")
	}
	n := d.nodes[to.Host.Name]
	if n == nil {
		return front.Route{}, refusal.New(refusal.UnknownNode, "", to.Host.Name, "no node has that name")
	}
	return d.routeTo(n, to.Port)
}

func (d *Directory) routeTo(n *node, port uint16) (front.Route, error) {
	if n.gateway == "" {
		return front.Route{}, refusal.New(refusal.NoRegion, "", n.name, "the node is in no region")
	}
	if err := d.check(n, port); err != nil {
		return front.Route{}, err
	}
	r := front.Route{Gateway: n.gateway, Node: n.name}
	if n.gateway == d.Gateway {
		if r.Direct = n.at(port); len(r.Direct) == 0 {
			return front.Route{}, refusal.New(refusal.NoAddress, n.gateway, n.name, "it has no usable InternalIP")
		}
	}
	return r, nil
}

// FindAny implements front.Directory. What belongs to no node of another region is dialled from here: Services and pods,
// since webhooks and aggregated APIs take the same way as kubelets.
func (d *Directory) FindAny(ctx context.Context, to target.HostPort) (front.Route, error) {
	if n := d.nodes[to.Host.Name]; n != nil && n.gateway != "" {
		return d.routeTo(n, to.Port)
	}
	addresses := []netip.Addr{to.Host.Address}
	if !to.Host.Address.IsValid() {
		var err error
		if addresses, err = d.resolve(ctx, to.Host.Name); err != nil {
			return front.Route{}, refusal.New(refusal.UnknownNode, "", to.Host.Name, "it is no node, and its name does not resolve: %v", err)
		}
	}
	r := front.Route{}
	for _, a := range addresses {
		a = a.Unmap()
		owners := d.byAddress[a]
		foreign := slices.ContainsFunc(owners, func(n *node) bool { return n.gateway != d.Gateway && n.gateway != "" })
		switch {
		case !foreign:
			r.Direct = append(r.Direct, netip.AddrPortFrom(a, to.Port))
		case len(owners) == 1:
			return d.routeTo(owners[0], to.Port)
		default:
			return front.Route{}, refusal.New(refusal.AmbiguousAddress, "", to.Host.String(),
				"nodes %s have that address: ask by name, as API servers do with --kubelet-preferred-address-types=Hostname first", namesOf(owners))
		}
	}
	return r, nil
}

func namesOf(nodes []*node) string {
	const most = 3
	var out []string
	for _, n := range nodes[:min(most, len(nodes))] {
		out = append(out, n.name)
	}
	if len(nodes) > most {
		out = append(out, "and "+strconv.Itoa(len(nodes)-most)+" more")
	}
	return strings.Join(out, ", ")
}

// Allowed implements front.Directory.
func (d *Directory) Allowed(source netip.Addr) bool {
	return slices.ContainsFunc(d.sources, func(p netip.Prefix) bool { return p.Contains(source) })
}

// NamesOf says what a node's certificate may say besides the node's name: how API servers dial an active proxy of an
// exposed gateway. Others get none: an address of an edge may be that of a node elsewhere.
func (d *Directory) NamesOf(name string) certificates.Names {
	n := d.nodes[name]
	if n == nil || !d.exposed[name] {
		return certificates.Names{}
	}
	out := certificates.Names{DNS: []string{services.InternalName + ".kube-system.svc"}}
	for _, a := range n.addresses {
		out.IPs = append(out.IPs, a.AsSlice())
	}
	return out
}

// String is for logs.
func (d *Directory) String() string {
	return fmt.Sprintf("region %q, active %t, front %t, dials %d", d.Gateway, d.Active, d.Front, len(d.Endpoints))
}

var (
	_ front.Directory = (*Directory)(nil)
	_ tunnel.Region   = (*Directory)(nil)
)
