package agent

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ravencni/raven/pkg/agent/source"
	"github.com/ravencni/raven/pkg/agent/view"
	"github.com/ravencni/raven/pkg/apis/raven/v1beta1"
	"github.com/ravencni/raven/pkg/datapath"
	"github.com/ravencni/raven/pkg/datapath/accel"
	"github.com/ravencni/raven/pkg/datapath/pods"
	"github.com/ravencni/raven/pkg/topology"
	"github.com/ravencni/raven/pkg/tunnel"
)

// The fakes of this file record how the agent calls its parts; nothing here touches a kernel. The real parts run
// together in cmd/raven-agent's and the lab's tests.

// fakeSource hands out what a test sets.
type fakeSource struct {
	mu      sync.Mutex
	in      source.Input
	changed chan struct{}
}

func (s *fakeSource) Run(ctx context.Context) error { <-ctx.Done(); return nil }

func (s *fakeSource) Changed() <-chan struct{} { return s.changed }

func (s *fakeSource) Input() source.Input {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.in
}

func (s *fakeSource) set(in source.Input) {
	s.mu.Lock()
	s.in = in
	s.mu.Unlock()
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// recorder notes every call in order.
type recorder struct {
	mu    sync.Mutex
	calls []string
}

func (r *recorder) note(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls = append(r.calls, fmt.Sprintf(format, args...))
}

func (r *recorder) take() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := strings.Join(r.calls, " ")
	r.calls = nil
	return out
}

// count is how often a call was noted.
func (r *recorder) count(call string) (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.calls {
		if c == call {
			n++
		}
	}
	return n
}

// fakeApplier records its calls and answers as told.
type fakeApplier struct {
	*recorder
	name    string
	mu      sync.Mutex
	changes int
	err     error
	block   chan struct{} // Apply waits for it, or for the end of its context
	mode    v1beta1.DatapathMode
	reason  string
	local   []pods.Pod
}

func (a *fakeApplier) Name() string { return a.name }

func (a *fakeApplier) Apply(ctx context.Context, _ *topology.Plan, host datapath.Host) (int, error) {
	a.note("%s", a.name)
	if a.block != nil {
		select {
		case <-a.block:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.changes, a.err
}

func (a *fakeApplier) answer(changes int, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.changes, a.err = changes, err
}

func (a *fakeApplier) Cleanup(context.Context) error {
	a.note("%s.Cleanup", a.name)
	return a.err
}

func (a *fakeApplier) Mode() (v1beta1.DatapathMode, string) { return a.mode, a.reason }
func (a *fakeApplier) Pods() []pods.Pod                     { return a.local }
func (a *fakeApplier) Attachments() []accel.Attachment      { return nil }

// fakeDriver records its calls under its name.
type fakeDriver struct {
	*recorder
	name   string
	peers  []tunnel.PeerStatus
	keyErr error
	looks  atomic.Int32 // calls of Status
}

func (d *fakeDriver) Name() string                  { return d.name }
func (d *fakeDriver) Cleanup(context.Context) error { d.note("%s.Cleanup", d.name); return nil }

func (d *fakeDriver) PublicKey(context.Context) (string, error) {
	if d.keyErr != nil {
		return "", d.keyErr
	}
	return "key of " + d.name, nil
}

func (d *fakeDriver) Apply(_ context.Context, plan *topology.Plan) (tunnel.Result, error) {
	d.note("tunnel")
	if plan.Tunnel == nil {
		return tunnel.Result{}, nil
	}
	return tunnel.Result{Device: tunnel.Device{Name: "raven-" + d.name, Index: 9, MTU: plan.Tunnel.MTU}}, nil
}

func (d *fakeDriver) Status(context.Context) ([]tunnel.PeerStatus, error) {
	d.looks.Add(1)
	return d.peers, nil
}

// bench is an agent among fakes.
type bench struct {
	*recorder
	t                                     *testing.T
	agent                                 *Agent
	source                                *fakeSource
	sysctl, overlay, filter, route, accel *fakeApplier
	wireguard, plain                      *fakeDriver
	resolveErr                            error
	log                                   *logLines
}

// newBench makes an agent of node.
func newBench(t *testing.T, node string, change ...func(*Parts)) *bench {
	t.Helper()
	r := &recorder{}
	b := &bench{
		recorder: r, t: t, source: &fakeSource{changed: make(chan struct{}, 1)},
		sysctl: &fakeApplier{recorder: r, name: "sysctl"}, overlay: &fakeApplier{recorder: r, name: "overlay"},
		filter: &fakeApplier{recorder: r, name: "filter"}, route: &fakeApplier{recorder: r, name: "route"},
		accel:     &fakeApplier{recorder: r, name: "accel", mode: v1beta1.DatapathAccelerated},
		wireguard: &fakeDriver{recorder: r, name: "wireguard"}, plain: &fakeDriver{recorder: r, name: "plain"},
		log: &logLines{},
	}
	parts := Parts{
		Node: node, Source: b.source, Sysctl: b.sysctl, Overlay: b.overlay, Filter: b.filter, Route: b.route, Accel: b.accel,
		Drivers: []DriverChoice{
			{Name: "wireguard", New: func() (tunnel.Driver, error) { return b.wireguard, nil }},
			{Name: "plain", New: func() (tunnel.Driver, error) { return b.plain, nil }},
			{Name: "ipsec", Refuse: fmt.Errorf("ipsec is not built")},
		},
		Resolve: func(plan *topology.Plan, dev tunnel.Device) (datapath.Host, error) {
			b.note("host")
			if b.resolveErr != nil {
				return datapath.Host{}, b.resolveErr
			}
			return datapath.Host{Underlay: datapath.Link{Name: "eth0", Index: 2, MTU: 1500}, Tunnel: dev}, nil
		},
		UnderlayMTU: func(...netip.Addr) (int, error) { return 1500, nil },
		Log:         slog.New(slog.NewTextHandler(b.log, nil)),
	}
	for _, c := range change {
		c(&parts)
	}
	b.agent = New(parts)
	return b
}

// pass runs one pass with the input and returns the calls it made.
func (b *bench) pass(in source.Input) string {
	b.t.Helper()
	b.source.set(in)
	if err := b.agent.pass(b.t.Context(), "test"); err != nil {
		b.t.Fatalf("the pass ended the agent: %v", err)
	}
	return b.take()
}

func (b *bench) view() *view.View { return b.agent.View() }

// start runs the agent for the length of the test and returns its end.
func (b *bench) start() (stop func() error) {
	b.t.Helper()
	ctx, cancel := context.WithCancel(b.t.Context())
	ended := make(chan error, 1)
	go func() { ended <- b.agent.Run(ctx) }()
	var once sync.Once
	var err error
	stop = func() error {
		once.Do(func() { cancel(); err = <-ended })
		return err
	}
	b.t.Cleanup(func() { _ = stop() })
	return stop
}

// await waits until ok, for at most ten seconds.
func (b *bench) await(what string, ok func() bool) {
	b.t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	ctx, cancel := context.WithTimeout(b.t.Context(), 10*time.Second)
	defer cancel()
	for !ok() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			b.t.Fatalf("never saw %s; view %+v", what, b.view())
		}
	}
}

// logLines collects what the agent logs.
type logLines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logLines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

// has tells whether words were logged since the last take.
func (l *logLines) has(words string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Contains(l.text.String(), words)
}

// take returns the lines since the last call.
func (l *logLines) take() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := l.text.String()
	l.text.Reset()
	return out
}

// cluster is three regions: a (exposed, nodes a1 and a2), b and c (behind NAT, nodes b1, b2, c1).
func cluster() source.Input {
	gateway := func(name string, expose v1beta1.ExposeType, e v1beta1.Endpoint) *v1beta1.Gateway {
		return &v1beta1.Gateway{
			ObjectMeta: metav1.ObjectMeta{Name: name},
			Spec:       v1beta1.GatewaySpec{ExposeType: expose, Endpoints: []v1beta1.Endpoint{e}},
		}
	}
	node := func(name, gateway, ip, podCIDR string) *corev1.Node {
		return &corev1.Node{
			ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{v1beta1.LabelGateway: gateway}},
			Spec:       corev1.NodeSpec{PodCIDRs: []string{podCIDR}},
			Status:     corev1.NodeStatus{Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: ip}}},
		}
	}
	endpoint := func(name, key string) *v1beta1.TunnelEndpoint {
		tunnels := []v1beta1.TunnelPort{{Driver: "wireguard", Port: 4500, PublicKey: key}, {Driver: "plain", Port: 4500, PublicKey: "plain-" + name}}
		return &v1beta1.TunnelEndpoint{
			ObjectMeta: metav1.ObjectMeta{Name: name},
			Status:     v1beta1.TunnelEndpointStatus{UnderlayMTU: 1500, Tunnels: tunnels},
		}
	}
	state := topology.State{
		Gateways: []*v1beta1.Gateway{
			gateway("a", v1beta1.ExposePublicIP, v1beta1.Endpoint{NodeName: "a1", PublicIP: "192.0.2.1"}),
			gateway("b", "", v1beta1.Endpoint{NodeName: "b1", UnderNAT: true}),
			gateway("c", "", v1beta1.Endpoint{NodeName: "c1", UnderNAT: true}),
		},
		Nodes: []*corev1.Node{
			node("a1", "a", "10.0.1.1", "10.1.1.0/24"), node("a2", "a", "10.0.1.2", "10.1.2.0/24"),
			node("b1", "b", "10.0.2.1", "10.2.1.0/24"), node("b2", "b", "10.0.2.2", "10.2.2.0/24"),
			node("c1", "c", "10.0.3.1", "10.3.1.0/24"),
		},
		Endpoints: []*v1beta1.TunnelEndpoint{
			endpoint("a1", "IGFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWE="),
			endpoint("b1", "IGJiYmJiYmJiYmJiYmJiYmJiYmJiYmJiYmJiYmJiYmI="),
			endpoint("c1", "IGNjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2M="),
		},
		Config: topology.Config{EnableTunnel: true, ForwardNodeIP: true, Driver: "wireguard", TunnelPort: 4500},
	}
	return source.Input{State: source.Elect(state), Synced: true}
}
