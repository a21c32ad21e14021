package topology

import (
	"reflect"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ravencni/raven/pkg/apis/raven/v1beta1"
)

// FuzzCompile writes one malformed text into every field that holds one. Nothing may panic, the Plans must fit together,
// and what does not depend on the field must stay.
func FuzzCompile(f *testing.F) {
	for _, text := range []string{"", " ", "10.244.17.0/24", "10.244.17.1/24", "10.0.0.0/8", "0.0.0.0/0", "::/0", "::ffff:1.2.3.4/120",
		"fe80::1%eth0", "172.16.2.104", "::ffff:172.16.2.104", "256.1.1.1", "fd00:a::104", "fd00:2::/32", "a,b,,10.1.0.0/16", "gw-cloud",
		"hangzhou-1", "wireguard", keyOf("cloud-1"), strings.Repeat("A", 43) + "=", "region/x", "\x00", "é/24", "1.2.3.4/33", "-1"} {
		for field := range len(fields) {
			f.Add(field, text, 4500)
		}
	}
	f.Fuzz(func(t *testing.T, field int, text string, number int) {
		c := tutorial()
		fields[uint(field)%uint(len(fields))](c, text, number)
		first := c.plan("hangzhou-1")
		consistent(t, c.State)
		if again := c.plan("hangzhou-1"); !reflect.DeepEqual(first, again) {
			t.Errorf("two plans from one input differ")
		}
		c.plan(text)
		Compile(c.State, "qingdao-2", Local{UnderlayMTU: number, Direct: true})
	})
}

// fields of the input that hold text or a number from outside.
var fields = []func(c *cluster, text string, number int){
	func(c *cluster, text string, _ int) { c.nodeNamed("qingdao-2").Spec.PodCIDRs[0] = text },
	func(c *cluster, text string, _ int) {
		n := c.nodeNamed("qingdao-2")
		n.Spec.PodCIDRs, n.Spec.PodCIDR = nil, text
	},
	func(c *cluster, text string, _ int) { c.nodeNamed("qingdao-2").Status.Addresses[0].Address = text },
	func(c *cluster, text string, _ int) { c.nodeNamed("qingdao-2").Labels[v1beta1.LabelGateway] = text },
	func(c *cluster, text string, _ int) { c.nodeNamed("qingdao-2").Name = text },
	func(c *cluster, text string, _ int) { c.gatewayNamed("gw-qingdao").Name = text },
	func(c *cluster, text string, number int) {
		e := c.gatewayNamed("gw-cloud").Status.ActiveEndpoints[0]
		e.PublicIP, e.PublicPort = text, number
	},
	func(c *cluster, text string, number int) {
		e := c.gatewayNamed("gw-cloud").Status.ActiveEndpoints[0]
		e.NodeName, e.Port = text, number
	},
	func(c *cluster, text string, _ int) {
		c.gatewayNamed("gw-cloud").Status.ActiveEndpoints[0].Type = v1beta1.EndpointType(text)
	},
	func(c *cluster, text string, _ int) {
		c.gatewayNamed("gw-cloud").Spec.ExposeType = v1beta1.ExposeType(text)
	},
	func(c *cluster, text string, _ int) {
		c.gatewayNamed("gw-cloud").Annotations = map[string]string{v1beta1.AnnotationExtraSourceCIDRs: text}
	},
	func(c *cluster, text string, _ int) {
		c.gatewayNamed("gw-qingdao").Status.Nodes = []v1beta1.NodeInfo{{NodeName: "qingdao-2", PrivateIP: text, Subnets: []string{text, text}}}
	},
	func(c *cluster, text string, _ int) {
		c.gatewayNamed("gw-qingdao").Spec.NodeSelector = &metav1.LabelSelector{MatchLabels: map[string]string{text: text}}
	},
	func(c *cluster, text string, _ int) {
		c.gatewayNamed("gw-qingdao").Spec.NodeSelector = &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{
			{Key: text, Operator: metav1.LabelSelectorOperator(text), Values: []string{text}}}}
	},
	func(c *cluster, text string, number int) {
		te := c.endpoint("cloud-1")
		te.Status.Tunnels[0].PublicKey, te.Status.Tunnels[0].Port, te.Status.UnderlayMTU = text, number, number
	},
	func(c *cluster, text string, _ int) { c.endpoint("cloud-1").Status.Tunnels[0].Driver = text },
	func(c *cluster, text string, _ int) {
		c.endpoint("cloud-1").Status.ObservedAddresses = []v1beta1.ObservedAddress{{NodeName: text, Address: text}}
	},
	func(c *cluster, text string, number int) { c.Config.Driver, c.Config.TunnelPort = text, number },
	func(c *cluster, _ string, number int) {
		c.gatewayNamed("gw-qingdao").Spec.TunnelConfig = &v1beta1.TunnelConfiguration{Replicas: &number}
	},
	func(c *cluster, text string, _ int) {
		c.Gateways = append(c.Gateways, nil, &v1beta1.Gateway{ObjectMeta: metav1.ObjectMeta{Name: text}})
		c.Nodes = append(c.Nodes, nil, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: text}})
		c.Endpoints = append(c.Endpoints, nil, &v1beta1.TunnelEndpoint{ObjectMeta: metav1.ObjectMeta{Name: text}})
	},
}

func FuzzParsePrefix(f *testing.F) {
	for _, text := range []string{"", "10.0.0.0/8", "10.0.0.1/8", "::/0", "fd00::/64", "fe80::%x/10", "1/1"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		p, err := ParsePrefix(text)
		if err == nil || err.Reason == ReasonHostBitsSet {
			if !p.IsValid() || p != p.Masked() || p.Bits() == 0 {
				t.Errorf("%q was read as %v", text, p)
			}
			if again, err := ParsePrefix(p.String()); err != nil || again != p {
				t.Errorf("%q was read as %v, and that as %v", text, p, again)
			}
		} else if p.IsValid() || err.Error() == "" {
			t.Errorf("%q was read as %v with error %q", text, p, err.Error())
		}
	})
}
