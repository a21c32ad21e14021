package directory

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ravencni/raven/pkg/apis/raven/v1beta1"
	"github.com/ravencni/raven/pkg/proxy/refusal"
	"github.com/ravencni/raven/pkg/proxy/target"
	"github.com/ravencni/raven/pkg/proxy/tunnel"
	"github.com/ravencni/raven/pkg/topology"
)

func nodeIn(gateway, name, address string) *corev1.Node {
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{v1beta1.LabelGateway: gateway}},
		Spec:       corev1.NodeSpec{PodCIDRs: []string{"10.244.7.0/24"}},
		Status:     corev1.NodeStatus{Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: address}}},
	}
}

func proxyOn(node, public string) *v1beta1.Endpoint {
	return &v1beta1.Endpoint{NodeName: node, Type: v1beta1.EndpointProxy, PublicIP: public,
		Config: map[string]string{v1beta1.ConfigEnableProxy: "true"}}
}

// cluster has a cloud and two edges with the same addresses; those of cloud-2 are theirs, too.
func cluster() topology.State {
	gw := func(name string, expose v1beta1.ExposeType, active ...*v1beta1.Endpoint) *v1beta1.Gateway {
		return &v1beta1.Gateway{ObjectMeta: metav1.ObjectMeta{Name: name},
			Spec: v1beta1.GatewaySpec{ExposeType: expose, ProxyConfig: &v1beta1.ProxyConfiguration{
				ProxyHTTPPort: "10255,9445", ProxyHTTPSPort: "10250,9100"}},
			Status: v1beta1.GatewayStatus{ActiveEndpoints: active}}
	}
	return topology.State{
		Gateways: []*v1beta1.Gateway{
			gw("gw-cloud", v1beta1.ExposePublicIP, proxyOn("cloud-1", "203.0.113.1"), proxyOn("cloud-2", "203.0.113.2")),
			gw("gw-hangzhou", "", proxyOn("hangzhou-1", "")), gw("gw-qingdao", "", proxyOn("qingdao-1", "")),
		},
		Nodes: []*corev1.Node{
			nodeIn("gw-cloud", "cloud-1", "192.168.0.1"), nodeIn("gw-cloud", "cloud-2", "10.0.0.2"),
			nodeIn("gw-hangzhou", "hangzhou-1", "10.0.0.1"), nodeIn("gw-hangzhou", "hangzhou-2", "10.0.0.2"),
			nodeIn("gw-qingdao", "qingdao-1", "10.0.0.1"), nodeIn("gw-qingdao", "qingdao-2", "10.0.0.3"),
			nodeIn("", "loose", "10.9.9.9"),
		},
	}
}

func to(host string, port uint16) target.HostPort {
	h, err := target.ParseHost(host)
	if err != nil {
		panic(err)
	}
	return target.HostPort{Host: h, Port: port}
}

func reason(err error) refusal.Reason {
	if e, ok := errors.AsType[*refusal.Error](err); ok {
		return e.Reason
	}
	return ""
}

func TestRolesFollowTheGateways(t *testing.T) {
	clouds := []tunnel.Endpoint{
		{Gateway: "gw-cloud", Node: "cloud-1", Address: "203.0.113.1:10262"}, {Gateway: "gw-cloud", Node: "cloud-2", Address: "203.0.113.2:10262"},
	}
	for name, want := range map[string]Directory{
		"cloud-1":    {Active: true, Front: true},
		"hangzhou-1": {Active: true, Endpoints: clouds},
		"hangzhou-2": {},
		"loose":      {},
		"nobody":     {},
	} {
		d := New(cluster(), name)
		if d.Active != want.Active || d.Front != want.Front || !slices.Equal(d.Endpoints, want.Endpoints) {
			t.Errorf("%s: %v, %v", name, d, d.Endpoints)
		}
	}
	off := cluster()
	for _, gw := range off.Gateways {
		for _, e := range gw.Status.ActiveEndpoints {
			e.Config[v1beta1.ConfigEnableProxy] = "false"
		}
	}
	for _, name := range []string{"cloud-1", "hangzhou-1"} {
		if d := New(off, name); d.Active || d.Front || d.Endpoints != nil {
			t.Errorf("switched off, %s: %v", name, d)
		}
	}
}

func TestAnEdgeReachesItsOwnRegionAndAllowedPortsOnly(t *testing.T) {
	d := New(cluster(), "hangzhou-1")
	got, err := d.Reach("hangzhou-2", 10255)
	if err != nil || !slices.Equal(got, []netip.AddrPort{netip.MustParseAddrPort("10.0.0.2:10255")}) {
		t.Errorf("%v, %v", got, err)
	}
	for where, want := range map[target.HostPort]refusal.Reason{
		to("hangzhou-2", 22): refusal.PortNotAllowed, to("cloud-2", 10250): refusal.OtherRegion, to("qingdao-2", 10250): refusal.OtherRegion,
		to("nobody", 10250): refusal.UnknownNode, to("loose", 10250): refusal.OtherRegion,
	} {
		if got, err := d.Reach(where.Host.String(), where.Port); reason(err) != want {
			t.Errorf("%v: %v, %v, want %s", where, got, err, want)
		}
	}
}

func TestOnlyActiveProxiesAreAdmitted(t *testing.T) {
	d := New(cluster(), "cloud-1")
	if gw, err := d.Admit("qingdao-1"); err != nil || gw != "gw-qingdao" {
		t.Errorf("%s, %v", gw, err)
	}
	for name, want := range map[string]refusal.Reason{"qingdao-2": refusal.NotActive, "nobody": refusal.UnknownNode, "loose": refusal.NoRegion} {
		if gw, err := d.Admit(name); reason(err) != want {
			t.Errorf("%s: %s, %v, want %s", name, gw, err, want)
		}
	}
}

func TestRoutesNeverLeadToTheNamesake(t *testing.T) {
	d := New(cluster(), "cloud-1")
	d.resolve = func(_ context.Context, name string) ([]netip.Addr, error) {
		if name == "metrics.example" {
			return []netip.Addr{netip.MustParseAddr("10.96.0.7")}, nil
		}
		return nil, errors.New("no such name")
	}
	for where, want := range map[target.HostPort]struct{ gateway, node, direct string }{
		to("cloud-2", 10250):       {"gw-cloud", "cloud-2", "10.0.0.2:10250"},
		to("hangzhou-2", 10250):    {"gw-hangzhou", "hangzhou-2", ""},
		to("10.96.0.1", 443):       {"", "", "10.96.0.1:443"},
		to("metrics.example", 443): {"", "", "10.96.0.7:443"},
		to("192.168.0.1", 6443):    {"", "", "192.168.0.1:6443"},
		to("10.0.0.3", 10250):      {"gw-qingdao", "qingdao-2", ""},
	} {
		r, err := d.FindAny(t.Context(), where)
		direct := ""
		if len(r.Direct) == 1 {
			direct = r.Direct[0].String()
		}
		if err != nil || r.Gateway != want.gateway || r.Node != want.node || direct != want.direct {
			t.Errorf("%v: %+v, %v", where, r, err)
		}
	}
	for where, want := range map[target.HostPort]refusal.Reason{
		to("10.0.0.2", 10250): refusal.AmbiguousAddress, to("10.0.0.1", 10250): refusal.AmbiguousAddress,
		to("nowhere", 1): refusal.UnknownNode, to("hangzhou-2", 22): refusal.PortNotAllowed, to("10.0.0.3", 22): refusal.PortNotAllowed,
	} {
		if r, err := d.FindAny(t.Context(), where); reason(err) != want {
			t.Errorf("%v: %+v, %v, want %s", where, r, err, want)
		}
	}
	if _, err := d.Find(to("10.96.0.1", 443)); reason(err) != refusal.BadTarget {
		t.Errorf("the open front ends take an address: %v", err)
	}
}

func TestSourcesAreTheRegionUnlessSaidOtherwise(t *testing.T) {
	d := New(cluster(), "cloud-1")
	for a, want := range map[string]bool{"192.168.0.1": true, "10.244.7.9": true, "192.168.0.9": false, "203.0.113.9": false} {
		if got := d.Allowed(netip.MustParseAddr(a)); got != want {
			t.Errorf("%s: %t", a, got)
		}
	}
	state := cluster()
	state.Config.ProxySources = []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24")}
	d = New(state, "cloud-1")
	if d.Allowed(netip.MustParseAddr("192.168.0.1")) || !d.Allowed(netip.MustParseAddr("203.0.113.9")) {
		t.Error("what is said does not replace the region")
	}
}
