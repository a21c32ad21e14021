package election

import (
	"cmp"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ravencni/raven/pkg/apis/raven/v1beta1"
	"github.com/ravencni/raven/pkg/topology"
)

// Condition types of a Gateway that an election decides.
const (
	ConditionTunnelElected = "TunnelElected"
	ConditionProxyElected  = "ProxyElected"
)

// Options of FillStatus.
type Options struct {
	// EnableTunnel and EnableProxy are raven-cfg's switches, shown in the active endpoints.
	EnableTunnel, EnableProxy bool
	// MissingReadyIsReady counts a Node without a Ready condition as ready: manifests written by hand have none.
	MissingReadyIsReady bool
	// TrustStatus prefers a node's subnets in the status to those of the Node, and takes an active endpoint's publicIP from
	// there where the spec has none: in manifests they are the user's word. (The controller finds them out afresh each time.)
	TrustStatus bool
	// Endpoints give the public keys that are mirrored into the active endpoints; may be empty. FillStatuses reads them.
	Endpoints []*v1beta1.TunnelEndpoint
	// Driver whose keys these are.
	Driver string
	// TunnelPort is where tunnels listen whose endpoint names no port (tunnel-bind-addr); 0: 4500.
	TunnelPort int
	// Now stamps conditions whose status changes.
	Now time.Time
	// MinInterval and LastChange (by condition type, then Gateway name) damp elections; see Input.
	MinInterval time.Duration
	// Settle delays elections away from a node that has just become unready; see Input.
	Settle     time.Duration
	LastChange map[string]map[string]time.Time
	// PublicIP finds the address of an active endpoint whose spec names none; nil or "": none is known.
	PublicIP func(gw *v1beta1.Gateway, e *v1beta1.Endpoint) string
	// Subnets finds a node's pod prefixes as another address manager than Kubernetes assigned them; nil, or nothing
	// found: those of the Node count.
	Subnets func(node string) []string
}

// Region is what the election of one Gateway needs to know of the cluster.
type Region struct {
	// Members sorted by name.
	Members []*corev1.Node
	// GatewayOf a node that is no member, and whether the node exists.
	GatewayOf func(node string) (gateway string, exists bool)
	// Endpoint of a node; nil: it has published nothing.
	Endpoint func(node string) *v1beta1.TunnelEndpoint
}

// Result is a Gateway with its status filled in, and why.
type Result struct {
	// Gateway is a copy.
	Gateway       *v1beta1.Gateway
	Tunnel, Proxy Decision
}

// FillStatuses assigns nodes to gateways and returns FillStatus of each, sorted by name.
func FillStatuses(gateways []*v1beta1.Gateway, nodes []*corev1.Node, opts Options) []Result {
	members := topology.AssignNodes(gateways, nodes)
	known := make(map[string]bool, len(nodes))
	for _, n := range members.Nodes {
		known[n.Name] = true
	}
	endpoints := make(map[string]*v1beta1.TunnelEndpoint, len(opts.Endpoints))
	for _, e := range opts.Endpoints {
		if e != nil {
			endpoints[e.Name] = e
		}
	}
	region := Region{
		GatewayOf: func(node string) (string, bool) { return members.GatewayOf[node], known[node] },
		Endpoint:  func(node string) *v1beta1.TunnelEndpoint { return endpoints[node] },
	}
	out := make([]Result, 0, len(gateways))
	for _, gw := range gateways {
		if gw != nil {
			region.Members = members.Members[gw.Name]
			out = append(out, FillStatus(gw, region, opts))
		}
	}
	slices.SortStableFunc(out, func(a, b Result) int { return cmp.Compare(a.Gateway.Name, b.Gateway.Name) })
	return out
}

// FillStatus elects and returns a copy of the Gateway with status.activeEndpoints, status.activeEndpoint, status.nodes and
// the election's conditions filled in. Endpoints that are active in the given status stay where they can.
func FillStatus(original *v1beta1.Gateway, region Region, opts Options) Result {
	f := filler{Options: opts, region: region, nodes: make(map[string]*corev1.Node, len(region.Members))}
	for _, n := range region.Members {
		f.nodes[n.Name] = n
	}
	return f.fill(original)
}

type filler struct {
	Options
	region Region
	// nodes are the members.
	nodes map[string]*corev1.Node
}

func (f *filler) fill(original *v1beta1.Gateway) Result {
	gw := original.DeepCopy()
	r := Result{Gateway: gw}
	r.Tunnel = Elect(f.input(gw, v1beta1.EndpointTunnel, ConditionTunnelElected))
	r.Proxy = Elect(f.input(gw, v1beta1.EndpointProxy, ConditionProxyElected))
	tunnels := f.active(gw, v1beta1.EndpointTunnel, r.Tunnel.Active)
	proxies := f.active(gw, v1beta1.EndpointProxy, r.Proxy.Active)

	gw.Status.ActiveEndpoints = slices.Concat(tunnels, proxies)
	slices.SortStableFunc(gw.Status.ActiveEndpoints, func(a, b *v1beta1.Endpoint) int {
		return cmp.Or(cmp.Compare(a.NodeName, b.NodeName), cmp.Compare(a.Type, b.Type))
	})
	gw.Status.ActiveEndpoint = nil
	if len(tunnels) > 0 {
		gw.Status.ActiveEndpoint = tunnels[0].DeepCopy()
	}
	gw.Status.Nodes = f.memberInfo(gw, r.Tunnel.Active)
	gw.Status.NodeCount = len(gw.Status.Nodes)
	gw.Status.ObservedGeneration = gw.Generation
	f.electionCondition(gw, ConditionTunnelElected, r.Tunnel)
	f.electionCondition(gw, ConditionProxyElected, r.Proxy)
	return r
}

func (f *filler) input(gw *v1beta1.Gateway, kind v1beta1.EndpointType, condition string) Input {
	in := Input{
		Replicas:    replicas(gw, kind),
		Current:     current(gw, kind),
		Now:         f.Now,
		LastChange:  f.LastChange[condition][gw.Name],
		MinInterval: f.MinInterval,
		Settle:      f.Settle,
	}
	for i := range gw.Spec.Endpoints {
		e := &gw.Spec.Endpoints[i]
		if e.EffectiveType() != kind {
			continue
		}
		c := Candidate{NodeName: e.NodeName}
		if n := f.nodes[e.NodeName]; n != nil {
			c.Exists, c.Member = true, true
			c.Ready, c.NotReady, c.NotReadySince = f.ready(n)
		} else {
			var home string
			home, c.Exists = f.region.GatewayOf(e.NodeName)
			c.NotMember = notMember(gw, e.NodeName, home)
		}
		in.Candidates = append(in.Candidates, c)
	}
	return in
}

// notMember says why a listed node that exists is in another region or in none, and what to do.
func notMember(gw *v1beta1.Gateway, node, home string) string {
	switch s := gw.Spec.NodeSelector; {
	case home != "":
		return "is in region " + home + ": a node is in one region only"
	case s != nil && len(s.MatchLabels)+len(s.MatchExpressions) > 0:
		return "is not selected by spec.nodeSelector"
	default:
		return "is not labelled: kubectl label node " + node + " " + v1beta1.LabelGateway + "=" + gw.Name
	}
}

// replicas wanted of a type; one where the configuration is absent. Several tunnels are not built.
func replicas(gw *v1beta1.Gateway, kind v1beta1.EndpointType) int {
	var n *int
	if c := gw.Spec.TunnelConfig; kind == v1beta1.EndpointTunnel && c != nil {
		n = c.Replicas
	}
	if c := gw.Spec.ProxyConfig; kind == v1beta1.EndpointProxy && c != nil {
		n = c.Replicas
	}
	switch {
	case n == nil:
		return 1
	case kind == v1beta1.EndpointTunnel:
		return min(*n, 1)
	default:
		return *n
	}
}

// current names the active nodes of a type.
func current(gw *v1beta1.Gateway, kind v1beta1.EndpointType) []string {
	var out []string
	for _, e := range gw.Status.ActiveEndpoints {
		if e != nil && e.EffectiveType() == kind {
			out = append(out, e.NodeName)
		}
	}
	if e := gw.Status.ActiveEndpoint; kind == v1beta1.EndpointTunnel && len(out) == 0 && e != nil {
		out = append(out, e.NodeName)
	}
	return out
}

// ready reads the Node's Ready condition.
func (f *filler) ready(n *corev1.Node) (ok bool, why string, since time.Time) {
	for i := range n.Status.Conditions {
		c := &n.Status.Conditions[i]
		if c.Type != corev1.NodeReady {
			continue
		}
		if c.Status == corev1.ConditionTrue {
			return true, "", time.Time{}
		}
		return false, strings.TrimSpace("is not ready " + c.Reason), c.LastTransitionTime.Time
	}
	return f.MissingReadyIsReady, "has no Ready condition", time.Time{}
}

// active makes the status entries of the elected nodes from their entries in spec.
func (f *filler) active(gw *v1beta1.Gateway, kind v1beta1.EndpointType, names []string) []*v1beta1.Endpoint {
	var out []*v1beta1.Endpoint
	for _, name := range names {
		i := slices.IndexFunc(gw.Spec.Endpoints, func(e v1beta1.Endpoint) bool {
			return e.NodeName == name && e.EffectiveType() == kind
		})
		if i < 0 {
			continue // Elect returns listed nodes only
		}
		e := gw.Spec.Endpoints[i].DeepCopy()
		e.Type, e.Port = kind, gw.Spec.Endpoints[i].EffectivePort()
		if kind == v1beta1.EndpointTunnel && f.TunnelPort != 0 && gw.Spec.Endpoints[i].Port == 0 {
			e.Port = f.TunnelPort
		}
		if e.Config == nil {
			e.Config = make(map[string]string, 2)
		}
		if kind == v1beta1.EndpointProxy {
			e.Config[v1beta1.ConfigEnableProxy] = strconv.FormatBool(f.EnableProxy)
		} else {
			e.Config[v1beta1.ConfigEnableTunnel] = strconv.FormatBool(f.EnableTunnel)
			if key := f.key(name); key != "" {
				e.Config[v1beta1.ConfigPublicKey] = key
			}
		}
		if f.TrustStatus && e.PublicIP == "" {
			e.PublicIP = statusPublicIP(gw, e)
		}
		if f.PublicIP != nil && e.PublicIP == "" {
			e.PublicIP = f.PublicIP(gw, e)
		}
		out = append(out, e)
	}
	return out
}

// key that the node published for the driver.
func (f *filler) key(node string) string {
	if te := f.region.Endpoint(node); te != nil {
		for _, t := range te.Status.Tunnels {
			if t.Driver == f.Driver {
				return t.PublicKey
			}
		}
	}
	return ""
}

// statusPublicIP is what the status says where the spec is silent: an observed address, or a LoadBalancer's.
func statusPublicIP(gw *v1beta1.Gateway, e *v1beta1.Endpoint) string {
	for _, old := range gw.Status.ActiveEndpoints {
		if old != nil && old.NodeName == e.NodeName && old.EffectiveType() == e.Type {
			return old.PublicIP
		}
	}
	return ""
}

// memberInfo lists all nodes of the region, ready or not.
func (f *filler) memberInfo(gw *v1beta1.Gateway, tunnels []string) []v1beta1.NodeInfo {
	kept := make(map[string][]string)
	for _, info := range gw.Status.Nodes {
		if f.TrustStatus && len(info.Subnets) > 0 {
			kept[info.NodeName] = info.Subnets
		}
	}
	prefer6 := false
	for _, name := range tunnels {
		if n := f.nodes[name]; n != nil {
			ip4, _, _ := topology.InternalIPs(n)
			prefer6 = !ip4.IsValid()
		}
	}
	var out []v1beta1.NodeInfo
	for _, n := range f.region.Members {
		ip4, ip6, _ := topology.InternalIPs(n)
		info := v1beta1.NodeInfo{NodeName: n.Name, PrivateIP: text(ip4, ip6)}
		if prefer6 {
			info.PrivateIP = text(ip6, ip4)
		}
		texts := kept[n.Name]
		if texts == nil && f.Subnets != nil {
			texts = f.Subnets(n.Name)
		}
		if texts == nil {
			texts = topology.PodCIDRs(n)
		}
		if slices.Contains(tunnels, n.Name) {
			texts = append(slices.Clone(texts), strings.Split(gw.Annotations[v1beta1.AnnotationExtraSourceCIDRs], ",")...)
		}
		info.Subnets = normal(texts)
		out = append(out, info)
	}
	return out
}

// text of the first valid address.
func text(addresses ...netip.Addr) string {
	for _, a := range addresses {
		if a.IsValid() {
			return a.String()
		}
	}
	return ""
}

// normal keeps what is a prefix, once and in canonical form, in the given order. The planner reports what is not.
func normal(texts []string) []string {
	var out []string
	for _, t := range texts {
		p, _ := topology.ParsePrefix(t)
		if s := p.String(); p.IsValid() && !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}

// electionCondition tells the outcome. Its transition time is also that of the last change of role, so that damping
// survives whoever elects.
func (f *filler) electionCondition(gw *v1beta1.Gateway, kind string, d Decision) {
	setCondition(gw, kind, d.Elected, d.Reason, d.Message, f.Now)
	if d.Changed {
		meta.FindStatusCondition(gw.Status.Conditions, kind).LastTransitionTime = metav1.NewTime(f.Now)
	}
}
