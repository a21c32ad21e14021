package proxy

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ravencni/raven/pkg/apis/raven/v1beta1"
	"github.com/ravencni/raven/pkg/proxy/proxytest"
	"github.com/ravencni/raven/pkg/topology"
	"github.com/ravencni/raven/test/netns"
)

// fleet is a cloud and an edge region with two proxies each, every one a process of its own on a host of its own:
//
//	cloud-1, cloud-2, cloud-3 (the client) ── router ── edge-1, edge-2, edge-3 (a web server)
type fleet struct {
	hosts  map[string]*netns.Namespace
	procs  map[string]*process
	state  topology.State
	target string
}

var (
	clouds = []string{"cloud-1", "cloud-2"}
	edges  = []string{"edge-1", "edge-2"}
)

// fleetWanted in the environment says that the tests of whole fleets are to run: make test-fleet.
const fleetWanted = "RAVEN_TEST_FLEET"

func newFleet(t *testing.T) *fleet {
	t.Helper()
	if os.Getenv(fleetWanted) == "" {
		t.Skip("takes half a minute: run it by make test-fleet")
	}
	f := &fleet{hosts: map[string]*netns.Namespace{}, procs: map[string]*process{}, target: "edge-3:10255"}
	router := netns.New(t)
	router.Do(t, func() { writeSysctl(t, "net/ipv4/ip_forward", "1") })
	for r, region := range []string{"cloud", "edge"} {
		gw := &v1beta1.Gateway{ObjectMeta: metav1.ObjectMeta{Name: "gw-" + region}}
		if region == "cloud" {
			gw.Spec.ExposeType = v1beta1.ExposePublicIP
			gw.Spec.ProxyConfig = &v1beta1.ProxyConfiguration{Replicas: new(len(clouds)), ProxyHTTPPort: "10255"}
		}
		for i := 1; i <= 3; i++ {
			name, subnet := fmt.Sprintf("%s-%d", region, i), fmt.Sprintf("10.%d.%d.", r+1, i)
			f.addHost(t, router, name, subnet)
			f.state.Nodes = append(f.state.Nodes, &corev1.Node{
				ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{v1beta1.LabelGateway: gw.Name}},
				Status:     corev1.NodeStatus{Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: subnet + "2"}}},
			})
			if i < 3 {
				gw.Status.ActiveEndpoints = append(gw.Status.ActiveEndpoints, &v1beta1.Endpoint{
					NodeName: name, Type: v1beta1.EndpointProxy, PublicIP: subnet + "2",
					Config: map[string]string{v1beta1.ConfigEnableProxy: "true"},
				})
			}
		}
		f.state.Gateways = append(f.state.Gateways, gw)
	}
	f.serveWeb(t)
	a := proxytest.NewAuthority(t)
	for _, node := range append(append([]string{}, clouds...), edges...) {
		f.procs[node] = newProcess(t, node, f.hosts[node], a, f.state)
		f.procs[node].start(t)
	}
	for _, edge := range edges {
		for _, cloud := range clouds {
			f.awaitTunnel(t, edge, cloud, 1)
		}
	}
	return f
}

func writeSysctl(t *testing.T, key, value string) {
	t.Helper()
	if err := os.WriteFile("/proc/sys/"+key, []byte(value), 0); err != nil {
		t.Fatal(err)
	}
}

// addHost joins a host to the router; subnet ends before the last number of an address.
func (f *fleet) addHost(t *testing.T, router *netns.Namespace, name, subnet string) {
	t.Helper()
	h := netns.New(t)
	netns.Veth(t, netns.End{In: router, Name: name, Addresses: []string{subnet + "1/24"}},
		netns.End{In: h, Name: "lan", Addresses: []string{subnet + "2/24"}})
	h.Do(t, func() {
		if err := netlink.RouteAdd(&netlink.Route{Gw: net.ParseIP(subnet + "1")}); err != nil {
			t.Fatal(err)
		}
	})
	f.hosts[name] = h
}

// serveWeb answers on edge-3: /echo after an upgrade with what it is told, anything else with the request's body, a
// moment later.
func (f *fleet) serveWeb(t *testing.T) {
	l := proxytest.Listen(t, f.hosts["edge-3"], "10.2.3.2:10255")
	server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/echo" {
			c, b, err := http.NewResponseController(w).Hijack()
			if err != nil {
				return
			}
			defer c.Close()
			_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
			_, _ = io.Copy(c, b)
			return
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		select { // so that requests are on their way whenever something happens
		case <-r.Context().Done():
		case <-time.After(5 * time.Millisecond):
			_, _ = w.Write(append([]byte("edge-3 "), body...))
		}
	})}
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close(); <-done })
}

func (f *fleet) awaitTunnel(t *testing.T, edge, cloud string, ups int) {
	t.Helper()
	proxytest.Await(t, fmt.Sprintf("tunnel %d of %s to %s", ups, edge, cloud), func() bool { return f.procs[edge].ups(t, cloud) >= ups })
}

func frontOf(cloud string) string { return "10.1." + strings.TrimPrefix(cloud, "cloud-") + ".2:10264" }

// dial connects to the first of the front ends that listens, as clients of a Service do; of takes turns.
func (f *fleet) dial(ctx context.Context, of int64) (net.Conn, error) {
	var errs []error
	for i := range clouds {
		c, err := proxytest.Dial(f.hosts["cloud-3"])(ctx, "tcp", frontOf(clouds[(int(of)+i)%len(clouds)]))
		if err == nil || !errors.Is(err, syscall.ECONNREFUSED) {
			return c, err
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

// client spreads its connections over the front ends.
func (f *fleet) client(t *testing.T, keep bool) *http.Client {
	var turn atomic.Int64
	transport := &http.Transport{DisableKeepAlives: !keep, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return f.dial(ctx, turn.Add(1))
	}}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: proxytest.Within}
}

// ask makes a request; with a body it is one that nobody may repeat.
func (f *fleet) ask(c *http.Client, body string) error {
	method, reader := http.MethodGet, io.Reader(nil)
	if body != "" {
		method, reader = http.MethodPost, strings.NewReader(body)
	}
	r, err := http.NewRequest(method, "http://"+f.target+"/", reader)
	if err != nil {
		return err
	}
	answer, err := c.Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != http.StatusOK || string(text) != "edge-3 "+body {
		return fmt.Errorf("%s of %q: %s %q, %w", method, body, answer.Status, text, err)
	}
	return nil
}

// open opens a stream to edge-3 through the front end of a cloud's node.
func (f *fleet) open(t *testing.T, cloud string) net.Conn {
	t.Helper()
	c, err := proxytest.Dial(f.hosts["cloud-3"])(t.Context(), "tcp", frontOf(cloud))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	fmt.Fprintf(c, "GET /echo HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n", f.target)
	if r, err := http.ReadResponse(bufio.NewReaderSize(c, 16), nil); err != nil || r.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("open a stream through %s: %v, %v", cloud, r, err)
	}
	return c
}

// alive counts the streams that still carry both ways.
func alive(t *testing.T, streams []net.Conn) int {
	t.Helper()
	var n atomic.Int64
	var group sync.WaitGroup
	for _, c := range streams {
		group.Go(func() {
			got := make([]byte, 4)
			if err := c.SetDeadline(time.Now().Add(proxytest.Within)); err != nil {
				return
			}
			if _, err := io.WriteString(c, "ping"); err != nil {
				return
			}
			if _, err := io.ReadFull(c, got); err == nil && string(got) == "ping" {
				n.Add(1)
			}
		})
	}
	group.Wait()
	return int(n.Load())
}

// Each killing is that of a process, without a word to anybody.
func TestKillingAReplicaCostsOnlyTheStreamsOnIt(t *testing.T) {
	netns.Run(t, func(t *testing.T) {
		f := newFleet(t)
		const each = 100
		through := map[string][]net.Conn{}
		for _, cloud := range clouds {
			for range each {
				through[cloud] = append(through[cloud], f.open(t, cloud))
			}
		}
		asked := func(after string) {
			t.Helper()
			fresh := f.client(t, false)
			var longest time.Duration
			for i := range 40 {
				begin := time.Now()
				if err := f.ask(fresh, ""); err != nil {
					t.Errorf("request %d after %s was killed: %v", i, after, err)
				}
				longest = max(longest, time.Since(begin))
			}
			t.Logf("after %s was killed, the longest of 40 requests took %v", after, longest)
		}
		f.procs["cloud-1"].kill(t)
		asked("cloud-1")
		if n := alive(t, through["cloud-1"]); n != 0 {
			t.Errorf("%d streams live on without their proxy", n)
		}
		if n := alive(t, through["cloud-2"]); n != each {
			t.Errorf("%d of %d streams through the other front end live on", n, each)
		}
		f.procs["edge-1"].kill(t)
		asked("edge-1")
		if n := alive(t, through["cloud-2"]); n != each/2 {
			t.Errorf("%d of %d streams live on, half of which ran through the other edge", n, each)
		}
	})
}

// load makes requests until stop is called, which returns how many were made and each that was not answered.
func (f *fleet) load(t *testing.T) (stop func() (made int64, lost []error)) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var made atomic.Int64
	var mu sync.Mutex
	var lost []error
	var group sync.WaitGroup
	for i := range 6 {
		// Of requests that nobody may repeat each has a connection of its own, since HTTP cannot say on a kept one whether a
		// request that crossed its end was read.
		c, body := f.client(t, i%2 == 0), ""
		if i%2 != 0 {
			body = "once"
		}
		group.Go(func() {
			for ctx.Err() == nil {
				if err := f.ask(c, body); err != nil {
					mu.Lock()
					lost = append(lost, fmt.Errorf("at %s: %w", time.Now().Format(time.StampMilli), err))
					mu.Unlock()
				}
				made.Add(1)
			}
		})
	}
	return func() (int64, []error) {
		cancel()
		group.Wait()
		return made.Load(), lost
	}
}

func TestARotationAndARollingRestartLoseNoRequest(t *testing.T) {
	netns.Run(t, func(t *testing.T) {
		f := newFleet(t)
		stop := f.load(t)
		ups := map[[2]string]int{}
		count := func() {
			for _, edge := range edges {
				for _, cloud := range clouds {
					ups[[2]string{edge, cloud}] = f.procs[edge].ups(t, cloud)
				}
			}
		}
		for node, p := range f.procs {
			count()
			p.certify(t)
			if err := p.cmd.Process.Signal(syscall.SIGHUP); err != nil {
				t.Fatal(err)
			}
			for pair, n := range ups {
				if pair[0] == node {
					f.awaitTunnel(t, pair[0], pair[1], n+1)
				}
			}
		}
		for node, p := range f.procs {
			count()
			begin := time.Now()
			p.restart(t)
			t.Logf("%s ended and began within %v", node, time.Since(begin))
			for pair, n := range ups {
				if pair[0] == node || pair[1] == node {
					f.awaitTunnel(t, pair[0], pair[1], n+1)
				}
			}
		}
		made, lost := stop()
		for _, err := range lost {
			t.Errorf("lost: %v", err)
		}
		t.Logf("%d requests, %d lost", made, len(lost))
		if made < 100 {
			t.Errorf("only %d requests were made", made)
		}
	})
}
