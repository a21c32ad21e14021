package inventory

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"

	"k8s.io/apimachinery/pkg/api/equality"

	"github.com/ravencni/raven/pkg/apis/raven/v1beta1"
)

// observations are the addresses at which nodes see their peers: peer -> observer -> address.
type observations map[string]map[string]string

// SetEndpoint takes a new or changed TunnelEndpoint. It touches the Gateways that list its node, for key and port, and
// those of the peers that it now sees elsewhere.
func (v *Inventory) SetEndpoint(te *v1beta1.TunnelEndpoint) []string {
	v.mu.Lock()
	defer v.mu.Unlock()
	old := v.endpoints[te.Name]
	v.endpoints[te.Name] = te
	touched := names{}
	if old == nil || !equality.Semantic.DeepEqual(old.Status.Tunnels, te.Status.Tunnels) {
		maps.Copy(touched, v.listed[te.Name])
	}
	v.observe(te.Name, te.Status.ObservedAddresses, touched)
	return touched.sorted()
}

// DeleteEndpoint takes the end of a TunnelEndpoint.
func (v *Inventory) DeleteEndpoint(name string) []string {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.endpoints[name] == nil {
		return nil
	}
	delete(v.endpoints, name)
	touched := maps.Clone(v.listed[name])
	if touched == nil {
		touched = names{}
	}
	v.observe(name, nil, touched)
	return touched.sorted()
}

func (v *Inventory) observe(observer string, seen []v1beta1.ObservedAddress, touched names) {
	now := make(map[string]string, len(seen))
	for _, s := range seen {
		if a, err := netip.ParseAddrPort(s.Address); err == nil {
			now[s.NodeName] = a.Addr().Unmap().String()
		}
	}
	for peer, by := range v.observed {
		if _, still := now[peer]; by[observer] != "" && !still {
			delete(by, observer)
			if len(by) == 0 {
				delete(v.observed, peer)
			}
			maps.Copy(touched, v.listed[peer])
		}
	}
	for peer, address := range now {
		if v.observed[peer] == nil {
			v.observed[peer] = map[string]string{}
		}
		if v.observed[peer][observer] != address {
			v.observed[peer][observer] = address
			maps.Copy(touched, v.listed[peer])
		}
	}
}

// Observed is the address at which active nodes of exposed Gateways see a node; "": they do not. Where they disagree,
// last is kept while one of them still sees it, or else the first observer by name is believed.
func (v *Inventory) Observed(node, last string) string {
	v.mu.Lock()
	defer v.mu.Unlock()
	var found []struct{ observer, address string }
	for observer, address := range v.observed[node] {
		if !v.exposed(observer) {
			continue
		}
		if address == last {
			return last
		}
		found = append(found, struct{ observer, address string }{observer, address})
	}
	if len(found) == 0 {
		return ""
	}
	return slices.MinFunc(found, func(a, b struct{ observer, address string }) int { return cmp.Compare(a.observer, b.observer) }).address
}

// exposed tells whether a node holds the tunnels of a Gateway that others dial.
func (v *Inventory) exposed(node string) bool {
	gw := v.gateways[v.home[node]]
	return gw != nil && gw.Spec.ExposeType != v1beta1.ExposeNone && holder(gw) == node
}

// Balancer names a LoadBalancer Service.
type Balancer struct {
	Gateway string
	Type    v1beta1.EndpointType
}

// SetBalancer takes the ingress address of a LoadBalancer Service; "": it has none.
func (v *Inventory) SetBalancer(b Balancer, address string) []string {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.balancers[b] == address {
		return nil
	}
	if v.balancers[b] = address; address == "" {
		delete(v.balancers, b)
	}
	return []string{b.Gateway}
}

// BalancerAddress is the ingress address of a LoadBalancer Service; "": it has none.
func (v *Inventory) BalancerAddress(b Balancer) string {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.balancers[b]
}
