package source

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/ravencni/raven/pkg/apis/raven/v1beta1"
	"github.com/ravencni/raven/pkg/topology"
)

// What these tests do not cover: listing and watching a real API server. They drive the stores that the reflectors
// fill, and the agent's client against HTTP servers that refuse or fail, which a real one does as well.

func kube(t *testing.T, host string, seed *Input) *Kube {
	t.Helper()
	clients, err := newClients(&rest.Config{Host: host}, "v1.2.3")
	if err != nil {
		t.Fatal(err)
	}
	return NewKube(clients, Settings{}, seed)
}

func (k *Kube) gatewayStore() *store[v1beta1.Gateway, *v1beta1.Gateway] {
	return &store[v1beta1.Gateway, *v1beta1.Gateway]{k, kindGateways, &k.held.gateways, trimGateway, nil}
}

func (k *Kube) nodeStore() *store[corev1.Node, *corev1.Node] {
	return &store[corev1.Node, *corev1.Node]{k, kindNodes, &k.held.nodes, trimNode, nil}
}

func (k *Kube) endpointStore() *store[v1beta1.TunnelEndpoint, *v1beta1.TunnelEndpoint] {
	return &store[v1beta1.TunnelEndpoint, *v1beta1.TunnelEndpoint]{k, kindEndpoints, &k.held.endpoints, trimEndpoint, nil}
}

func gw(name string) *v1beta1.Gateway {
	return &v1beta1.Gateway{ObjectMeta: metav1.ObjectMeta{Name: name, ResourceVersion: "1"}}
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}

// listAll fills every kind: the given gateways, one node, nothing else.
func listAll(t *testing.T, k *Kube, gateways ...any) {
	t.Helper()
	must(t, k.gatewayStore().Replace(gateways, "1"),
		k.nodeStore().Replace([]any{&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}}}, "1"),
		k.endpointStore().Replace(nil, "1"),
		(&configStore{k, kindSwitches, switchesName}).Replace(nil, "1"),
		(&configStore{k, kindSettings, settingsName}).Replace(nil, "1"))
}

func gatewayNames(in Input) string {
	var names []string
	for _, g := range in.State.Gateways {
		names = append(names, g.Name)
	}
	return fmt.Sprint(names)
}

func noticed(k *Kube) bool {
	select {
	case <-k.Changed():
		return true
	default:
		return false
	}
}

func TestTheSeedStaysWholeUntilEveryKindWasListed(t *testing.T) {
	seed := &Input{State: topology.State{
		Gateways: []*v1beta1.Gateway{gw("old")}, Config: topology.Config{EnableTunnel: true, Driver: "wireguard"},
	}}
	k := kube(t, "http://192.0.2.1:6443", seed)
	must(t, k.gatewayStore().Replace([]any{gw("new")}, "1"))
	in := k.Input()
	if in.Synced || gatewayNames(in) != "[old]" || !strings.Contains(in.Waiting, "Nodes") || strings.Contains(in.Waiting, "Gateways") {
		t.Errorf("synced %t, gateways %s, waiting for %q", in.Synced, gatewayNames(in), in.Waiting)
	}
	listAll(t, k, gw("new"))
	in = k.Input()
	if !in.Synced || in.Waiting != "" || gatewayNames(in) != "[new]" || in.State.Config.Driver != "wireguard" {
		t.Errorf("synced %t, gateways %s, config %+v", in.Synced, gatewayNames(in), in.State.Config)
	}
}

func TestAnEmptyListIsNotBelievedAndADeletionThatWasSeenIs(t *testing.T) {
	k := kube(t, "http://192.0.2.1:6443", nil)
	listAll(t, k, gw("a"), gw("b"))
	gateways := k.gatewayStore()

	must(t, gateways.Replace([]any{gw("b")}, "2"))
	if in := k.Input(); gatewayNames(in) != "[b]" || len(in.Problems) != 0 {
		t.Errorf("a list without a gave %s, %v", gatewayNames(in), in.Problems)
	}
	must(t, gateways.Replace(nil, "3"))
	in := k.Input()
	if gatewayNames(in) != "[b]" || in.Emptied || len(in.Problems) != 1 || in.Problems[0].Reason != ReasonNothingLeft {
		t.Errorf("an empty list gave %s, emptied %t, %v", gatewayNames(in), in.Emptied, in.Problems)
	}
	must(t, gateways.Update(gw("b")))
	if in := k.Input(); len(in.Problems) != 0 {
		t.Errorf("the object is back, but: %v", in.Problems)
	}
	must(t, gateways.Delete(gw("b")))
	if in := k.Input(); gatewayNames(in) != "[]" || !in.Emptied {
		t.Errorf("the last gateway was deleted: %s, emptied %t", gatewayNames(in), in.Emptied)
	}
	must(t, gateways.Add(gw("c")))
	if in := k.Input(); gatewayNames(in) != "[c]" || in.Emptied {
		t.Errorf("a new gateway: %s, emptied %t", gatewayNames(in), in.Emptied)
	}
}

func TestAHeartbeatFromTheAPIServerIsNoChange(t *testing.T) {
	k := kube(t, "http://192.0.2.1:6443", nil)
	listAll(t, k, gw("a"))
	noticed(k)
	beat := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1", ResourceVersion: "99", Annotations: map[string]string{"x": "y"}}}
	beat.Status.Images = []corev1.ContainerImage{{Names: []string{"busybox"}}}
	must(t, k.nodeStore().Update(beat))
	if noticed(k) {
		t.Error("a heartbeat gave a notice")
	}
	beat.Spec.PodCIDRs = []string{"10.1.0.0/24"}
	must(t, k.nodeStore().Update(beat))
	if !noticed(k) {
		t.Error("a new podCIDR gave no notice")
	}
}

func TestADeletedConfigMapLeavesItsLastKnownValues(t *testing.T) {
	k := kube(t, "http://192.0.2.1:6443", nil)
	listAll(t, k, gw("a"))
	switches := &configStore{k, kindSwitches, switchesName}
	must(t, switches.Add(&corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: switchesName, Namespace: configNamespace}, Data: map[string]string{"enable-l3-tunnel": "false"},
	}))
	if k.Input().State.Config.EnableTunnel {
		t.Error("L3 was switched off, but is on")
	}
	must(t, switches.Delete(nil))
	if k.Input().State.Config.EnableTunnel {
		t.Error("the ConfigMap is gone, and L3 went on again")
	}
}

func TestAnObjectOfAStrangeTypeIsAnError(t *testing.T) {
	k := kube(t, "http://192.0.2.1:6443", nil)
	if k.gatewayStore().Add(&corev1.Node{}) == nil || k.nodeStore().Delete("x") == nil ||
		(&configStore{k, kindSwitches, switchesName}).Add(1) == nil || k.gatewayStore().Replace([]any{gw("a"), 5}, "") == nil {
		t.Error("a strange object was taken")
	}
}

// await waits until the input is as wanted.
func await(t *testing.T, k *Kube, what string, ok func(Input) bool) Input {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for {
		if in := k.Input(); ok(in) {
			return in
		}
		select {
		case <-k.Changed():
		case <-ctx.Done():
			t.Fatalf("never saw %s: %+v", what, k.Input())
		}
	}
}

func run(t *testing.T, k *Kube) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- k.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func TestAServerThatIsAwayIsNamedAndTheSeedStays(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	address := listener.Addr().String()
	must(t, listener.Close()) // nobody listens there now
	k := kube(t, "http://"+address, &Input{State: topology.State{Gateways: []*v1beta1.Gateway{gw("old")}}})
	run(t, k)
	in := await(t, k, "a word for every kind", func(in Input) bool { return len(in.Problems) == len(kinds) })
	if in.Synced || gatewayNames(in) != "[old]" || in.Problems[0].Reason != ReasonUnreachable ||
		!strings.Contains(in.Problems[0].Message, "refused") || !strings.Contains(in.Waiting, "refused") {
		t.Errorf("got %+v", in)
	}
}

func TestTheClientSaysWhoItIsAndAsksForLittle(t *testing.T) {
	type request struct{ agent, path, query string }
	requests := make(chan request, 64)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case requests <- request{r.UserAgent(), r.URL.Path, r.URL.RawQuery}:
		default:
		}
		http.Error(w, "this is no API server", http.StatusServiceUnavailable)
	}))
	t.Cleanup(server.Close)
	k := kube(t, server.URL, nil)
	run(t, k)
	await(t, k, "all kinds refused", func(in Input) bool { return len(in.Problems) == len(kinds) })
	var paths []string
	for len(requests) > 0 {
		r := <-requests
		if !strings.HasPrefix(r.agent, "raven-agent-ds/v1.2.3 ") {
			t.Fatalf("the user agent is %q", r.agent)
		}
		if strings.Contains(r.path, "configmaps") {
			r.path += "?" + map[bool]string{true: switchesName, false: settingsName}[strings.Contains(r.query, "metadata.name%3Draven-cfg")]
		}
		paths = append(paths, r.path)
	}
	slices.Sort(paths)
	want := []string{
		"/api/v1/namespaces/kube-system/configmaps?raven-agent-config", "/api/v1/namespaces/kube-system/configmaps?raven-cfg",
		"/api/v1/nodes", "/apis/raven.openyurt.io/v1beta1/gateways", "/apis/raven.openyurt.io/v1beta1/tunnelendpoints",
	}
	if got := slices.Compact(paths); !slices.Equal(got, want) {
		t.Errorf("asked for %v, want %v", got, want)
	}
}

func TestTheAddressesThatWereDialledAreNeverRoutedIntoATunnel(t *testing.T) {
	told := 0
	d := &dialled{}
	d.onNew(func() { told++ })
	for _, a := range []string{"192.0.2.1", "2001:db8::1", "192.0.2.1", "127.0.0.1", "::1"} {
		d.add(netip.MustParseAddr(a))
	}
	if got := fmt.Sprint(d.addrs()); got != "[192.0.2.1 2001:db8::1]" || told != 2 {
		t.Errorf("remembered %s, told %d times", got, told)
	}
	for i := range 100 {
		d.add(netip.AddrFrom4([4]byte{198, 51, 100, byte(i)}))
	}
	if got := d.addrs(); len(got) != maxDialled || got[maxDialled-1] != netip.MustParseAddr("198.51.100.99") {
		t.Errorf("remembered %v", got)
	}
}
