package controller_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ravencni/raven/pkg/apis/raven/v1beta1"
)

var internalKey = client.ObjectKey{Namespace: "kube-system", Name: "x-raven-proxy-internal-svc"}

func (r *rig) awaitInternal(want ...string) *corev1.Service {
	r.Helper()
	s := &corev1.Service{}
	r.await(fmt.Sprint("internal Service with ports ", want), func() string {
		if err := r.api.Get(r.Context(), internalKey, s); err != nil {
			return err.Error()
		}
		var got []string
		for _, p := range s.Spec.Ports {
			got = append(got, fmt.Sprintf("%s:%d", p.Name, p.TargetPort.IntVal))
		}
		if !slices.Equal(got, want) {
			return fmt.Sprint(got)
		}
		return ""
	})
	return s
}

func (r *rig) update(gw *v1beta1.Gateway, change func(*v1beta1.Gateway)) {
	r.Helper()
	now := r.getGateway(gw.Name)
	before := now.DeepCopy()
	change(now)
	if err := r.api.Patch(r.Context(), now, client.MergeFrom(before)); err != nil {
		r.Fatal(err)
	}
}

func TestTheInternalServiceLeadsToTheProxiesOfExposedGateways(t *testing.T) {
	r := newRig(t)
	r.start()
	r.Cleanup(func() { // it stays without ports to have, so that its address does
		if _, err := server.Kubectl(context.Background(), "", "-n", internalKey.Namespace, "delete", "service", internalKey.Name); err != nil {
			t.Log(err)
		}
	})
	r.node("svc-cloud", "svc-cloud", "192.168.20.1", "10.20.1.0/24")
	r.node("svc-edge", "svc-edge", "192.168.20.2", "10.20.2.0/24")
	r.node("svc-none", "", "192.168.20.3")
	cloud := r.gateway("svc-cloud", `{exposeType: PublicIP, proxyConfig: {proxyHTTPPort: "10255, 9445", proxyHTTPSPort: "10250,9100"},
		endpoints: [{nodeName: svc-cloud, type: proxy, publicIP: 203.0.113.20}]}`)
	r.gateway("svc-edge", `{proxyConfig: {proxyHTTPPort: "7777"}, endpoints: [{nodeName: svc-edge, type: proxy, underNAT: true}]}`)
	service := r.awaitInternal("https-9100:10280", "http-9445:10264", "https-10250:10263", "http-10255:10264")
	sortedByPort := slices.IsSortedFunc(service.Spec.Ports, func(a, b corev1.ServicePort) int { return int(a.Port - b.Port) })
	if service.Spec.Type != corev1.ServiceTypeClusterIP || service.Labels["app"] != "raven" || len(service.Spec.Selector) > 0 || !sortedByPort {
		t.Errorf("the Service is %+v %+v", service.ObjectMeta, service.Spec)
	}
	r.await("an EndpointSlice with the exposed proxy alone", func() string {
		var list discoveryv1.EndpointSliceList
		err := r.api.List(t.Context(), &list, client.InNamespace("kube-system"), client.MatchingLabels{discoveryv1.LabelServiceName: internalKey.Name})
		if err != nil || len(list.Items) != 1 || len(list.Items[0].Endpoints) != 1 ||
			list.Items[0].Endpoints[0].Addresses[0] != "192.168.20.1" || len(list.Items[0].Ports) != 4 {
			return fmt.Sprint(err, list.Items)
		}
		return ""
	})
	hosts := func(want ...string) {
		t.Helper()
		r.await(fmt.Sprint("hosts ", want), func() string {
			var c corev1.ConfigMap
			if err := r.api.Get(t.Context(), client.ObjectKey{Namespace: "kube-system", Name: "edge-tunnel-nodes"}, &c); err != nil {
				return err.Error()
			}
			lines := strings.Split(strings.TrimSuffix(c.Data["tunnel-nodes"], "\n"), "\n")
			slices.Sort(want)
			if !slices.Equal(lines, want) {
				return fmt.Sprintf("%q", lines)
			}
			return ""
		})
	}
	ip := service.Spec.ClusterIP
	hosts("192.168.20.1\tsvc-cloud", ip+"\tsvc-edge", ip+"\tsvc-none")

	// A port that goes and comes back, and a new one meanwhile, renumber nothing.
	r.update(cloud, func(gw *v1beta1.Gateway) { gw.Spec.ProxyConfig.ProxyHTTPSPort = "9101,9100" })
	r.awaitInternal("https-9100:10280", "https-9101:10281", "http-9445:10264", "http-10255:10264")
	r.update(cloud, func(gw *v1beta1.Gateway) { gw.Spec.ProxyConfig.ProxyHTTPSPort = "9101,10250" })
	r.awaitInternal("https-9101:10281", "http-9445:10264", "https-10250:10263", "http-10255:10264")
	cfg := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: "raven-cfg"}, Data: map[string]string{"enable-l7-proxy": "false"}}
	r.create(cfg)
	hosts("192.168.20.1\tsvc-cloud", "192.168.20.2\tsvc-edge", "192.168.20.3\tsvc-none")
	cfg.Data["enable-l7-proxy"] = "True"
	if err := r.api.Update(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	hosts("192.168.20.1\tsvc-cloud", ip+"\tsvc-edge", ip+"\tsvc-none")
	if err := r.api.Get(t.Context(), internalKey, service); err != nil || service.Spec.ClusterIP != ip {
		t.Errorf("the internal Service's address changed: %v %s", err, service.Spec.ClusterIP)
	}
}
