package services

import (
	"crypto/sha256"
	"encoding/hex"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/ravencni/raven/pkg/apis/raven/v1beta1"
	"github.com/ravencni/raven/pkg/controller/inventory"
)

// Labels and annotation of LoadBalancer Services; docs/contract.md names them.
const (
	LabelType = "raven.openyurt.io/gateway-type"
	// LabelNode names the current active node.
	LabelNode = "raven.openyurt.io/endpoints-name"
	// AnnotationDiscard tells edge caches that nodes need not know of this Service.
	AnnotationDiscard = "svc.openyurt.io/discard"
	// AnnotationGateway holds the Gateway's name in full, which a label may be too short for.
	AnnotationGateway = "raven.openyurt.io/gateway-name"
)

// LoadBalancer is a LoadBalancer Service as it should be.
type LoadBalancer struct {
	Service *corev1.Service
	Slices  []Endpoints
}

// NewLoadBalancers works out the LoadBalancer Services of a Gateway: one for each type that it lists endpoints of, whether
// one is active or not, so that name and address outlive a failover.
func NewLoadBalancers(gw *v1beta1.Gateway) []LoadBalancer {
	if gw.Spec.ExposeType != v1beta1.ExposeLoadBalancer {
		return nil
	}
	var out []LoadBalancer
	for _, kind := range []v1beta1.EndpointType{v1beta1.EndpointProxy, v1beta1.EndpointTunnel} {
		if lb, ok := newLoadBalancer(gw, kind); ok {
			out = append(out, lb)
		}
	}
	return out
}

func newLoadBalancer(gw *v1beta1.Gateway, kind v1beta1.EndpointType) (LoadBalancer, bool) {
	i := slices.IndexFunc(gw.Spec.Endpoints, func(e v1beta1.Endpoint) bool { return e.EffectiveType() == kind })
	if i < 0 || kind == v1beta1.EndpointProxy && !Exposed(gw) || kind == v1beta1.EndpointTunnel && noTunnel(gw) {
		return LoadBalancer{}, false
	}
	shown := &gw.Spec.Endpoints[i]
	node := ""
	for _, e := range gw.Status.ActiveEndpoints {
		if e != nil && e.EffectiveType() == kind {
			shown, node = e, e.NodeName
			break
		}
	}
	protocol := corev1.ProtocolUDP
	if kind == v1beta1.EndpointProxy {
		protocol = corev1.ProtocolTCP
	}
	port := corev1.ServicePort{Name: string(kind), Protocol: protocol,
		Port: int32(shown.EffectivePublicPort()), TargetPort: intstr.FromInt32(int32(shown.EffectivePort()))}
	service := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{
			Name: shorten("x-raven-"+string(kind)+"-svc-", gw.Name),
			Labels: map[string]string{v1beta1.LabelGateway: shorten("", gw.Name), LabelType: string(kind), LabelNode: shorten("", node),
				LabelManagedBy: ManagedBy},
			Annotations: map[string]string{AnnotationDiscard: "true", AnnotationGateway: gw.Name},
		},
		Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer, Ports: []corev1.ServicePort{port},
			ExternalTrafficPolicy: corev1.ServiceExternalTrafficPolicyLocal},
	}
	return LoadBalancer{Service: service, Slices: group(service.Name, activeEnds(gw, kind), func(p int) []corev1.ServicePort {
		own := port
		own.TargetPort = intstr.FromInt32(int32(p))
		return []corev1.ServicePort{own}
	})}, true
}

func noTunnel(gw *v1beta1.Gateway) bool {
	c := gw.Spec.TunnelConfig
	return c != nil && c.Replicas != nil && *c.Replicas <= 0
}

// shorten returns prefix+name where that is a DNS label (a label's value without prefix), or else as much of it as fits
// and a hash of the name. The result depends on nothing else, so it never changes.
func shorten(prefix, name string) string {
	full := prefix + name
	if prefix == "" && len(validation.IsValidLabelValue(full)) == 0 || prefix != "" && len(validation.IsDNS1035Label(full)) == 0 {
		return full
	}
	sum := sha256.Sum256([]byte(name))
	full = strings.ReplaceAll(full, ".", "-")
	return strings.TrimRight(full[:min(len(full), 54)], "-") + "-" + hex.EncodeToString(sum[:4])
}

// BalancerOf tells which Gateway's LoadBalancer Service this is.
func BalancerOf(s *corev1.Service) (inventory.Balancer, bool) {
	b := inventory.Balancer{Gateway: s.Annotations[AnnotationGateway], Type: v1beta1.EndpointType(s.Labels[LabelType])}
	return b, b.Gateway != "" && s.Labels[LabelManagedBy] == ManagedBy && s.Spec.Type == corev1.ServiceTypeLoadBalancer
}

// IngressIP is the first address of a load balancer; "": it has none, or only a name, which tunnels cannot dial.
func IngressIP(s *corev1.Service) string {
	for _, in := range s.Status.LoadBalancer.Ingress {
		if a, err := netip.ParseAddr(in.IP); err == nil {
			return a.String()
		}
	}
	return ""
}
