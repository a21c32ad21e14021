package services

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/ravencni/raven/pkg/apis/raven/v1beta1"
)

// Labels of what the controller keeps.
const (
	LabelManagedBy = "app.kubernetes.io/managed-by"
	ManagedBy      = "raven-controller"
)

// maxEndpoints of one EndpointSlice, the number that Kubernetes' own controller keeps to.
const maxEndpoints = 100

// Endpoints is an EndpointSlice without its owner.
type Endpoints = *discoveryv1.EndpointSlice

// end is an active node as it is reached from inside its region.
type end struct {
	node    string
	address netip.Addr
	port    int
}

// activeEnds lists the active nodes of a type, by the addresses that the status tells.
func activeEnds(gw *v1beta1.Gateway, kind v1beta1.EndpointType) []end {
	var out []end
	for _, e := range gw.Status.ActiveEndpoints {
		if e == nil || e.EffectiveType() != kind {
			continue
		}
		for _, n := range gw.Status.Nodes {
			if a, err := netip.ParseAddr(n.PrivateIP); err == nil && n.NodeName == e.NodeName {
				out = append(out, end{e.NodeName, a, e.EffectivePort()})
			}
		}
	}
	return out
}

// group makes EndpointSlices of the ends, by family and port. ports gives the Service's ports for ends with a port.
func group(service string, ends []end, ports func(port int) []corev1.ServicePort) []Endpoints {
	ends = slices.Clone(ends)
	order := func(a, b end) int {
		return cmp.Or(cmp.Compare(a.address.BitLen(), b.address.BitLen()), cmp.Compare(a.port, b.port))
	}
	slices.SortFunc(ends, func(a, b end) int {
		return cmp.Or(order(a, b), cmp.Compare(a.node, b.node), a.address.Compare(b.address))
	})
	ends = slices.Compact(ends)
	var out []Endpoints
	for i, e := range ends {
		full := len(out) > 0 && len(out[len(out)-1].Endpoints) == maxEndpoints
		if i == 0 || full || order(ends[i-1], e) != 0 {
			out = append(out, newSlice(service, len(out), e.address, ports(e.port)))
		}
		s := out[len(out)-1]
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{
			Addresses: []string{e.address.String()}, NodeName: ptr.To(e.node),
			Conditions: discoveryv1.EndpointConditions{Ready: ptr.To(true), Serving: ptr.To(true), Terminating: ptr.To(false)},
		})
	}
	return out
}

func newSlice(service string, number int, of netip.Addr, ports []corev1.ServicePort) Endpoints {
	s := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("%s-%d", service, number), Labels: map[string]string{
			discoveryv1.LabelServiceName: service, discoveryv1.LabelManagedBy: ManagedBy, LabelManagedBy: ManagedBy,
		}},
		AddressType: discoveryv1.AddressTypeIPv4,
	}
	if of.Is6() {
		// The address type of a slice never changes, so each family has its own names.
		s.Name, s.AddressType = fmt.Sprintf("%s-v6-%d", service, number), discoveryv1.AddressTypeIPv6
	}
	for _, p := range ports {
		s.Ports = append(s.Ports, discoveryv1.EndpointPort{Name: ptr.To(p.Name), Protocol: ptr.To(p.Protocol), Port: ptr.To(p.TargetPort.IntVal)})
	}
	return s
}
