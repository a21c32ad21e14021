package services

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/ravencni/raven/pkg/apis/raven/v1beta1"
)

func TestAnHTTPSPortKeepsItsTargetForGood(t *testing.T) {
	for _, c := range []struct {
		name  string
		known string
		ports []int
		want  string
	}{
		{"the first gets 10263", "", []int{10250}, "10250=10263"},
		{"further ones follow from 10280", "", []int{10250, 9100, 443}, "443=10281,9100=10280,10250=10263"},
		{"a new one renumbers nothing", "9100=10280,10250=10263", []int{1, 9100, 10250}, "1=10281,9100=10280,10250=10263"},
		{"one that is gone keeps its place", "9100=10280,10250=10263", []int{9101}, "9100=10280,9101=10281,10250=10263"},
		{"nonsense is forgotten", "x=1,5=99999,9100=10280,9101=10280", []int{}, "9100=10280"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, without := ParseTargets(c.known).assign(c.ports)
			if got.String() != c.want || len(without) > 0 {
				t.Errorf("%s, without %v; want %s", got, without, c.want)
			}
		})
	}
}

func TestTargetsOfPortsThatAreGoneServeOnlyWhenNoneIsLeft(t *testing.T) {
	var ports []int
	for p := 1000; p < 1021; p++ {
		ports = append(ports, p)
	}
	full, without := Targets(nil).assign(ports)
	if len(full) != 21 || len(without) > 0 {
		t.Fatalf("21 ports have %d targets, %v none", len(full), without)
	}
	if _, without := full.assign(append(slices.Clone(ports), 2000)); !slices.Equal(without, []int{2000}) {
		t.Errorf("the 22nd port: %v have none", without)
	}
	got, without := full.assign(append(slices.Clone(ports[1:]), 2000))
	if got[2000] != full[1000] || len(without) > 0 {
		t.Errorf("the port that came for one that went has %d, not %d", got[2000], full[1000])
	}
}

func TestPortsOfAllExposedGatewaysCountOnce(t *testing.T) {
	zero := 0
	gw := func(expose v1beta1.ExposeType, replicas *int, http, https string) *v1beta1.Gateway {
		return &v1beta1.Gateway{Spec: v1beta1.GatewaySpec{ExposeType: expose,
			ProxyConfig: &v1beta1.ProxyConfiguration{Replicas: replicas, ProxyHTTPPort: http, ProxyHTTPSPort: https}}}
	}
	http, https := Configured([]*v1beta1.Gateway{
		gw(v1beta1.ExposePublicIP, nil, "10255, 9445 ,10255,,x,0,70000", "10250"),
		gw(v1beta1.ExposeLoadBalancer, nil, "9445,1,10250", "9100,10250"),
		gw(v1beta1.ExposeNone, nil, "2", "2"),
		gw(v1beta1.ExposePublicIP, &zero, "3", "3"),
		{Spec: v1beta1.GatewaySpec{ExposeType: v1beta1.ExposePublicIP}},
	})
	if !slices.Equal(http, []int{10255, 9445, 1}) || !slices.Equal(https, []int{10250, 9100}) {
		t.Errorf("HTTP %v, HTTPS %v", http, https)
	}
}

func TestTheLinesAreSortedAndEachNodeHasTheRightAddress(t *testing.T) {
	nodes := []Record{{"edge-2", "10.0.0.2", false}, {"cloud-1", "192.168.0.1", true}, {"edge-1", "10.0.0.1", false}, {"bare", "", false}}
	for proxy, want := range map[string]string{
		"":          "10.0.0.1\tedge-1\n10.0.0.2\tedge-2\n192.168.0.1\tcloud-1\n",
		"10.96.0.9": "10.96.0.9\tbare\n10.96.0.9\tedge-1\n10.96.0.9\tedge-2\n192.168.0.1\tcloud-1\n",
	} {
		if got := Hosts(nodes, proxy); got != want {
			t.Errorf("with proxy %q:\n%swant:\n%s", proxy, got, want)
		}
	}
}

func TestNamesOfServicesAreValidDistinctAndStable(t *testing.T) {
	seen := map[string]string{}
	for _, name := range []string{"gw-cloud", "gw.cloud", "gw-cloud.", strings.Repeat("long-", 40), strings.Repeat("long-", 40) + "x", "a.b", "a-b"} {
		got := shorten("x-raven-tunnel-svc-", name)
		if errs := validation.IsDNS1035Label(got); len(errs) > 0 {
			t.Errorf("%q becomes %q: %v", name, got, errs)
		}
		if other, ok := seen[got]; ok {
			t.Errorf("%q and %q both become %q", name, other, got)
		}
		seen[got] = name
		if label := shorten("", name); len(validation.IsValidLabelValue(label)) > 0 {
			t.Errorf("%q becomes label %q", name, label)
		}
	}
	if got := shorten("x-raven-tunnel-svc-", "gw-cloud"); got != "x-raven-tunnel-svc-gw-cloud" {
		t.Errorf("gw-cloud becomes %s", got)
	}
}

func TestEndpointSlicesAreGroupedByFamilyAndPortAndBounded(t *testing.T) {
	gw := &v1beta1.Gateway{ObjectMeta: metav1.ObjectMeta{Name: "gw"}}
	gw.Spec.ExposeType = v1beta1.ExposeLoadBalancer
	gw.Spec.Endpoints = []v1beta1.Endpoint{{NodeName: "n000", Type: v1beta1.EndpointProxy}}
	add := func(name, ip string, port int) {
		gw.Status.ActiveEndpoints = append(gw.Status.ActiveEndpoints, &v1beta1.Endpoint{NodeName: name, Type: v1beta1.EndpointProxy, Port: port})
		gw.Status.Nodes = append(gw.Status.Nodes, v1beta1.NodeInfo{NodeName: name, PrivateIP: ip})
	}
	for i := range 150 {
		add(fmt.Sprintf("n%03d", i), fmt.Sprintf("10.0.0.%d", i+1), 0)
	}
	add("six", "fd00::1", 0)
	add("odd", "10.0.1.1", 7000)
	lbs := NewLoadBalancers(gw)
	if len(lbs) != 1 {
		t.Fatalf("%d LoadBalancers", len(lbs))
	}
	var got []string
	for _, s := range lbs[0].Slices {
		got = append(got, fmt.Sprintf("%s %s %d:%d", s.Name, s.AddressType, *s.Ports[0].Port, len(s.Endpoints)))
	}
	want := []string{"x-raven-proxy-svc-gw-0 IPv4 7000:1", "x-raven-proxy-svc-gw-1 IPv4 10262:100", "x-raven-proxy-svc-gw-2 IPv4 10262:50",
		"x-raven-proxy-svc-gw-v6-3 IPv6 10262:1"}
	if !slices.Equal(got, want) {
		t.Errorf("slices %v, want %v", got, want)
	}
}

func TestAmendingLeavesAloneWhatIsNotOurs(t *testing.T) {
	want := NewInternal([]*v1beta1.Gateway{{Spec: v1beta1.GatewaySpec{ExposeType: v1beta1.ExposePublicIP,
		ProxyConfig: &v1beta1.ProxyConfiguration{ProxyHTTPPort: "10255"}}}}, nil, true).Service
	have := want.DeepCopy()
	have.Labels["theirs"], have.Spec.ClusterIP = "label", "10.96.0.9"
	have.Spec.Ports[0].NodePort = 30000
	if Amend(have, want) {
		t.Error("a Service that is as wanted is written")
	}
	have.Spec.Selector = map[string]string{"a": "b"}
	have.Spec.Ports[0].TargetPort.IntVal = 1
	if !Amend(have, want) || have.Spec.Selector != nil || have.Spec.Ports[0].TargetPort.IntVal != 10264 {
		t.Errorf("a damaged Service is not amended: %+v", have.Spec)
	}
	if have.Labels["theirs"] != "label" || have.Spec.ClusterIP != "10.96.0.9" || have.Spec.Ports[0].NodePort != 30000 {
		t.Errorf("what is not ours was changed: %+v", have)
	}
}

func TestALoadBalancerWithANameAloneHasNoAddress(t *testing.T) {
	s := &corev1.Service{}
	s.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{Hostname: "lb.example.com"}}
	if got := IngressIP(s); got != "" {
		t.Errorf("address %q", got)
	}
	s.Status.LoadBalancer.Ingress = append(s.Status.LoadBalancer.Ingress, corev1.LoadBalancerIngress{IP: "203.0.113.1"})
	if got := IngressIP(s); got != "203.0.113.1" {
		t.Errorf("address %q", got)
	}
}
