package proxy

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ravencni/raven/pkg/apis/raven/v1beta1"
	"github.com/ravencni/raven/pkg/controller/services"
	"github.com/ravencni/raven/pkg/proxy/proxytest"
	"github.com/ravencni/raven/pkg/proxy/refusal"
	"github.com/ravencni/raven/pkg/topology"
	"github.com/ravencni/raven/test/netns"
)

// region is a gateway node, 10.0.0.1, and another node, 10.0.0.2: the same addresses in every region.
type region struct {
	gateway, node *netns.Namespace
	proxy         *Proxy
}

func newRegion(t *testing.T) *region {
	r := &region{gateway: netns.New(t), node: netns.New(t)}
	netns.Veth(t, netns.End{In: r.gateway, Name: "lan", Addresses: []string{"10.0.0.1/24"}},
		netns.End{In: r.node, Name: "lan", Addresses: []string{"10.0.0.2/24"}})
	return r
}

// start runs the proxy of <name>-1 until the test ends.
func (r *region) start(t *testing.T, a proxytest.Authority, name string) {
	r.proxy = New(Options{
		Node: name + "-1", Identity: a.Proxy(t, name+"-1"), Dial: proxytest.Dial(r.gateway), Log: slog.New(slog.DiscardHandler),
		Targets: func() services.Targets { return services.Targets{10250: 10263} }, Drain: 1,
		Listen: func(_ context.Context, address string) (net.Listener, error) {
			var l net.Listener
			err := <-r.gateway.Go(func() (err error) {
				l, err = net.Listen("tcp", address)
				return err
			})
			return l, err
		},
	})
	ctx, cancel := context.WithCancel(context.Background())
	var group sync.WaitGroup
	group.Go(func() { r.proxy.Run(ctx) })
	t.Cleanup(func() { cancel(); group.Wait() })
}

// serve answers HTTP on the other node with a name.
func (r *region) serve(t *testing.T, name string) {
	l := proxytest.Listen(t, r.node, "10.0.0.2:10255")
	server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, name)
	})}
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close(); <-done })
}

// cluster is the objects; on says whether the proxy is switched on.
func cluster(on bool) topology.State {
	var s topology.State
	for _, name := range []string{"cloud", "hangzhou", "qingdao"} {
		gw := &v1beta1.Gateway{ObjectMeta: metav1.ObjectMeta{Name: "gw-" + name}}
		active := &v1beta1.Endpoint{NodeName: name + "-1", Type: v1beta1.EndpointProxy, Config: map[string]string{v1beta1.ConfigEnableProxy: fmt.Sprint(on)}}
		if name == "cloud" {
			gw.Spec.ExposeType, active.PublicIP = v1beta1.ExposePublicIP, "203.0.113.0"
			gw.Spec.ProxyConfig = &v1beta1.ProxyConfiguration{ProxyHTTPPort: "10255,9445", ProxyHTTPSPort: "10250"}
		}
		gw.Status.ActiveEndpoints = []*v1beta1.Endpoint{active}
		s.Gateways = append(s.Gateways, gw)
		for i := 1; i <= 2; i++ {
			s.Nodes = append(s.Nodes, &corev1.Node{
				ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("%s-%d", name, i), Labels: map[string]string{v1beta1.LabelGateway: gw.Name}},
				Status:     corev1.NodeStatus{Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: fmt.Sprintf("10.0.0.%d", i)}}},
			})
		}
	}
	return s
}

// get asks the cloud's HTTP front end from the cloud's gateway node.
func (r *region) get(host string) (code int, body, reason string, err error) {
	c, err := proxytest.Dial(r.gateway)(context.Background(), "tcp", "10.0.0.1:10264")
	if err != nil {
		return 0, "", "", err
	}
	defer c.Close()
	fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", host)
	answer, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return 0, "", "", err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	return answer.StatusCode, string(text), answer.Header.Get(refusal.HeaderReason), err
}

func TestRegionsWithTheSameAddressesAndTheSwitch(t *testing.T) {
	netns.Run(t, func(t *testing.T) {
		cloud, hangzhou, qingdao := newRegion(t), newRegion(t), newRegion(t)
		for i, edge := range []*region{hangzhou, qingdao} {
			netns.Veth(t, netns.End{In: cloud.gateway, Name: fmt.Sprintf("wan%d", i), Addresses: []string{fmt.Sprintf("203.0.113.%d/31", 2*i)}},
				netns.End{In: edge.gateway, Name: "wan", Addresses: []string{fmt.Sprintf("203.0.113.%d/31", 2*i+1)}})
			edge.gateway.Do(t, func() {
				if err := netlink.RouteAdd(&netlink.Route{Gw: net.IPv4(203, 0, 113, byte(2*i))}); err != nil {
					t.Fatal(err)
				}
			})
		}
		a := proxytest.NewAuthority(t)
		all := map[string]*region{"cloud": cloud, "hangzhou": hangzhou, "qingdao": qingdao}
		for name, r := range all {
			r.serve(t, name+"-2")
			r.start(t, a, name)
		}
		set := func(on bool) {
			for _, r := range all {
				r.proxy.Set(cluster(on))
			}
		}
		answers := func() {
			t.Helper()
			for name := range all {
				proxytest.Await(t, "answer of "+name, func() bool {
					code, body, _, err := cloud.get(name + "-2:10255")
					if err == nil && code == 200 && body != name+"-2" {
						t.Fatalf("%s-2: %s answered", name, body)
					}
					return err == nil && code == 200
				})
			}
		}
		set(true)
		answers()
		if code, body, reason, err := cloud.get("qingdao-2:22"); err != nil || code != 403 || reason != string(refusal.PortNotAllowed) {
			t.Errorf("%d %s, %v", code, body, err)
		}
		set(false)
		proxytest.Await(t, "end of the front end", func() bool { _, _, _, err := cloud.get("cloud-2:10255"); return err != nil })
		set(true)
		answers()
	})
}
