package election

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ravencni/raven/pkg/apis/raven/v1beta1"
)

// Condition types of a Gateway that sum up what was found.
const (
	// ConditionReady is True where the region can be reached by everything that is switched on.
	ConditionReady = "Ready"
	// ConditionCIDRConflict is True where an address or prefix of the region is left out since it means two things.
	ConditionCIDRConflict = "CIDRConflict"
)

// Reasons of the conditions Ready and CIDRConflict, beside those of a Decision.
const (
	ReasonReady = "Ready"
	// ReasonInputsLeftOut: ready, but some input of the region is not used.
	ReasonInputsLeftOut = "InputsLeftOut"
	// ReasonForeignController: a controller or webhook of OpenYurt writes or checks the same objects.
	ReasonForeignController = "ForeignController"
	// ReasonSwitchedOff: raven-cfg switches tunnel and proxy off.
	ReasonSwitchedOff = "SwitchedOff"
	// ReasonNoPublicIP: other regions should dial an active endpoint, but no address is known.
	ReasonNoPublicIP = "NoPublicIP"
	// ReasonNoLoadBalancerAddress: the LoadBalancer Service of an active endpoint has no ingress address.
	ReasonNoLoadBalancerAddress = "NoLoadBalancerAddress"
	// ReasonNoPublicKey: the active tunnel node has not published the key of the configured driver.
	ReasonNoPublicKey = "NoPublicKey"

	ReasonConflict   = "Conflict"
	ReasonNoConflict = "NoConflict"
)

// maxTold bounds how many items a condition's message names.
const maxTold = 5

// Findings are what others found out about a region.
type Findings struct {
	// Foreign names a controller or webhook of OpenYurt that is at work; empty: none.
	Foreign string
	// Conflicts are sentences on prefixes and addresses that mean two things, sorted.
	Conflicts []string
	// LeftOut are sentences on other inputs that are not used, sorted.
	LeftOut []string
	// KeyWanted is true where the active tunnel node must have a public key.
	KeyWanted bool
}

// Conclude adds the conditions Ready and CIDRConflict to a Result's Gateway.
func (r *Result) Conclude(found Findings, opts Options) {
	gw := r.Gateway
	reason, message := ReasonNoConflict, "no address or prefix of this region is claimed twice"
	if len(found.Conflicts) > 0 {
		reason, message = ReasonConflict, several(found.Conflicts)
	}
	setCondition(gw, ConditionCIDRConflict, reason == ReasonConflict, reason, message, opts.Now)

	ok := false
	switch reason, message = r.hindrance(found, opts); {
	case reason != "":
	case len(found.LeftOut) > 0:
		ok, reason, message = true, ReasonInputsLeftOut, several(found.LeftOut)
	default:
		ok, reason, message = true, ReasonReady, r.serves(opts)
	}
	setCondition(gw, ConditionReady, ok, reason, message, opts.Now)
}

// hindrance is the first thing that keeps the region from being reached; empty: none.
func (r *Result) hindrance(found Findings, opts Options) (reason, message string) {
	gw := r.Gateway
	tunnel, proxy := opts.EnableTunnel && wanted(gw, v1beta1.EndpointTunnel), opts.EnableProxy && wanted(gw, v1beta1.EndpointProxy)
	switch {
	case found.Foreign != "":
		return ReasonForeignController, found.Foreign
	case !opts.EnableTunnel && !opts.EnableProxy:
		return ReasonSwitchedOff, `ConfigMap kube-system/raven-cfg switches tunnel and proxy off: set enable-l3-tunnel or enable-l7-proxy to "true"`
	case !tunnel && !proxy:
		return ReasonNoEndpoints, "nothing that is switched on is listed in spec.endpoints: add an endpoint of type tunnel or proxy, with replicas of 1 or more"
	case tunnel && !r.Tunnel.Elected:
		return r.Tunnel.Reason, "tunnel: " + r.Tunnel.Message
	case proxy && !r.Proxy.Elected:
		return r.Proxy.Reason, "proxy: " + r.Proxy.Message
	}
	for _, e := range gw.Status.ActiveEndpoints {
		if e.PublicIP != "" || (e.EffectiveType() == v1beta1.EndpointTunnel && !tunnel) || (e.EffectiveType() == v1beta1.EndpointProxy && !proxy) {
			continue
		}
		switch gw.Spec.ExposeType {
		case v1beta1.ExposePublicIP:
			return ReasonNoPublicIP, fmt.Sprintf("other regions cannot dial the %s endpoint %s: set its publicIP in spec.endpoints", e.EffectiveType(), e.NodeName)
		case v1beta1.ExposeLoadBalancer:
			return ReasonNoLoadBalancerAddress, fmt.Sprintf("the LoadBalancer Service of the %s endpoint %s has no ingress IP yet: "+
				"see its events in namespace kube-system, or set publicIP in spec.endpoints", e.EffectiveType(), e.NodeName)
		}
	}
	if e := gw.Status.ActiveEndpoint; tunnel && found.KeyWanted && e != nil && e.Config[v1beta1.ConfigPublicKey] == "" {
		return ReasonNoPublicKey, fmt.Sprintf("the agent on node %s has not published its WireGuard key: see its log, and kubectl get te %s", e.NodeName, e.NodeName)
	}
	return "", ""
}

// wanted tells whether the Gateway asks for an endpoint of a type: it lists one, and replicas is not 0.
func wanted(gw *v1beta1.Gateway, kind v1beta1.EndpointType) bool {
	return replicas(gw, kind) > 0 && slices.ContainsFunc(gw.Spec.Endpoints, func(e v1beta1.Endpoint) bool { return e.EffectiveType() == kind })
}

// serves says in words what works.
func (r *Result) serves(opts Options) string {
	var parts []string
	add := func(kind v1beta1.EndpointType, on bool, d Decision) {
		switch {
		case !wanted(r.Gateway, kind):
		case !on:
			parts = append(parts, string(kind)+" is switched off in raven-cfg")
		default:
			parts = append(parts, string(kind)+" on "+strings.Join(d.Active, ", "))
		}
	}
	add(v1beta1.EndpointTunnel, opts.EnableTunnel, r.Tunnel)
	add(v1beta1.EndpointProxy, opts.EnableProxy, r.Proxy)
	return strings.Join(parts, "; ")
}

// several joins sentences, the first few of them.
func several(sentences []string) string {
	more := ""
	if n := len(sentences) - maxTold; n > 0 {
		more = fmt.Sprintf("; and %d more", n)
		sentences = sentences[:maxTold]
	}
	return strings.Join(sentences, "; ") + more
}

func setCondition(gw *v1beta1.Gateway, kind string, ok bool, reason, message string, now time.Time) {
	c := metav1.Condition{Type: kind, Status: metav1.ConditionFalse, Reason: reason, Message: message,
		ObservedGeneration: gw.Generation, LastTransitionTime: metav1.NewTime(now)}
	if ok {
		c.Status = metav1.ConditionTrue
	}
	meta.SetStatusCondition(&gw.Status.Conditions, c)
}
