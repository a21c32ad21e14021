package election

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ravencni/raven/pkg/apis/raven/v1beta1"
)

func TestReadySaysWhatKeepsARegionFromBeingReached(t *testing.T) {
	nothing := func(*v1beta1.Gateway, *Options, *Findings) {}
	for _, c := range []struct {
		name   string
		change func(*v1beta1.Gateway, *Options, *Findings)
		ready  bool
		reason string
		says   string
	}{
		{"all is well", nothing, true, ReasonReady, "tunnel on cloud-1; proxy on cloud-1"},
		{"another controller", func(_ *v1beta1.Gateway, _ *Options, f *Findings) { f.Foreign = "Lease x" }, false, ReasonForeignController, "Lease x"},
		{"everything is switched off", func(_ *v1beta1.Gateway, o *Options, _ *Findings) { o.EnableTunnel, o.EnableProxy = false, false },
			false, ReasonSwitchedOff, "raven-cfg"},
		{"the proxy is switched off", func(_ *v1beta1.Gateway, o *Options, _ *Findings) { o.EnableProxy = false },
			true, ReasonReady, "proxy is switched off in raven-cfg"},
		{"nothing is listed", func(gw *v1beta1.Gateway, _ *Options, _ *Findings) { gw.Spec.Endpoints = nil }, false, ReasonNoEndpoints, "add an endpoint"},
		{"only a proxy is listed", func(gw *v1beta1.Gateway, _ *Options, _ *Findings) { gw.Spec.Endpoints = gw.Spec.Endpoints[:1] },
			true, ReasonReady, "proxy on cloud-1"},
		{"an unknown candidate", func(gw *v1beta1.Gateway, _ *Options, _ *Findings) {
			gw.Spec.Endpoints = []v1beta1.Endpoint{{NodeName: "nobody"}}
		}, false, ReasonUnknownNode, "tunnel: no listed node exists"},
		{"an exposed gateway without address", func(gw *v1beta1.Gateway, _ *Options, _ *Findings) { gw.Spec.Endpoints[1].PublicIP = "" },
			false, ReasonNoPublicIP, "tunnel endpoint cloud-1: set its publicIP"},
		{"without address where it is switched off", func(gw *v1beta1.Gateway, o *Options, _ *Findings) {
			gw.Spec.Endpoints[1].PublicIP, o.EnableTunnel = "", false
		}, true, ReasonReady, "tunnel is switched off"},
		{"a load balancer without address", func(gw *v1beta1.Gateway, _ *Options, _ *Findings) {
			gw.Spec.ExposeType, gw.Spec.Endpoints[0].PublicIP = v1beta1.ExposeLoadBalancer, ""
		}, false, ReasonNoLoadBalancerAddress, "proxy endpoint cloud-1"},
		{"a load balancer's address", func(gw *v1beta1.Gateway, o *Options, _ *Findings) {
			gw.Spec.ExposeType, gw.Spec.Endpoints[0].PublicIP = v1beta1.ExposeLoadBalancer, ""
			o.PublicIP = func(*v1beta1.Gateway, *v1beta1.Endpoint) string { return "203.0.113.1" }
		}, true, ReasonReady, ""},
		{"no key", func(_ *v1beta1.Gateway, _ *Options, f *Findings) { f.KeyWanted = true }, false, ReasonNoPublicKey, "kubectl get te cloud-1"},
		{"inputs that are left out", func(_ *v1beta1.Gateway, _ *Options, f *Findings) {
			f.LeftOut = []string{"one", "two", "three", "four", "five", "six", "seven"}
		}, true, ReasonInputsLeftOut, "one; two; three; four; five; and 2 more"},
	} {
		t.Run(c.name, func(t *testing.T) {
			gw, opts, found := cloud(), manifestOptions, Findings{}
			opts.EnableProxy = true
			c.change(gw, &opts, &found)
			nodes := cloudNodes()
			for _, n := range nodes {
				withReady(n, corev1.ConditionTrue)
			}
			r := FillStatuses([]*v1beta1.Gateway{gw}, nodes, opts)[0]
			r.Conclude(found, opts)
			got := meta.FindStatusCondition(r.Gateway.Status.Conditions, ConditionReady)
			if (got.Status == metav1.ConditionTrue) != c.ready || got.Reason != c.reason || !strings.Contains(got.Message, c.says) {
				t.Errorf("Ready is %+v, want %t %s %q", got, c.ready, c.reason, c.says)
			}
		})
	}
}

func TestTheConditionTellsWhenTheRoleMoved(t *testing.T) {
	nodes := cloudNodes()
	first := FillStatuses([]*v1beta1.Gateway{cloud()}, nodes, manifestOptions)[0].Gateway
	opts := manifestOptions
	opts.Now = noon.Add(1e12)
	moved := FillStatuses([]*v1beta1.Gateway{first}, nodes[:1], opts)[0].Gateway // cloud-1 is gone
	c := meta.FindStatusCondition(moved.Status.Conditions, ConditionTunnelElected)
	if c.Status != metav1.ConditionTrue || !c.LastTransitionTime.Time.Equal(opts.Now) {
		t.Errorf("the role moved at %s, the condition says %+v", opts.Now, c)
	}
}
