package services

import (
	"cmp"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/ravencni/raven/pkg/apis/raven/v1beta1"
)

// InternalName is the Service that leads to the proxies of exposed Gateways.
const InternalName = "x-raven-proxy-internal-svc"

// AnnotationTargets on the internal Service remembers the target ports of HTTPS ports.
const AnnotationTargets = "raven.openyurt.io/https-target-ports"

// Internal is the internal Service as it should be.
type Internal struct {
	// Service is nil where no exposed Gateway configures a port: a Service must have one, so an existing one stays as it is.
	Service *corev1.Service
	Slices  []Endpoints
	// Without are HTTPS ports that no target port is left for.
	Without []int
}

// NewInternal works out the internal Service. The Gateways are sorted by name; on says whether the proxy is switched on.
func NewInternal(gateways []*v1beta1.Gateway, known Targets, on bool) Internal {
	http, https := Configured(gateways)
	targets, without := known.assign(https)
	var ports []corev1.ServicePort
	for _, p := range http {
		ports = append(ports, port("http-", p, httpTarget))
	}
	for _, p := range https {
		if target, ok := targets[p]; ok {
			ports = append(ports, port("https-", p, target))
		}
	}
	if len(ports) == 0 {
		return Internal{}
	}
	slices.SortFunc(ports, func(a, b corev1.ServicePort) int { return cmp.Compare(a.Port, b.Port) })
	out := Internal{Without: without, Service: &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: InternalName,
			Labels:      map[string]string{"app": "raven", LabelManagedBy: ManagedBy},
			Annotations: map[string]string{AnnotationTargets: targets.String()}},
		Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeClusterIP, Ports: ports},
	}}
	var ends []end
	for _, gw := range gateways {
		if on && Exposed(gw) {
			ends = append(ends, activeEnds(gw, v1beta1.EndpointProxy)...)
		}
	}
	for i := range ends {
		ends[i].port = 0 // all proxies listen on the same ports here, whatever others dial
	}
	out.Slices = group(InternalName, ends, func(int) []corev1.ServicePort { return ports })
	return out
}

func port(prefix string, p, target int) corev1.ServicePort {
	return corev1.ServicePort{Name: prefix + strconv.Itoa(p), Protocol: corev1.ProtocolTCP, Port: int32(p), TargetPort: intstr.FromInt32(int32(target))}
}
