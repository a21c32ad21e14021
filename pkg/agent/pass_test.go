package agent

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/ravencni/raven/pkg/agent/health"
	"github.com/ravencni/raven/pkg/agent/snapshot"
	"github.com/ravencni/raven/pkg/agent/source"
	"github.com/ravencni/raven/pkg/apis/raven/v1beta1"
	"github.com/ravencni/raven/pkg/datapath/pods"
	"github.com/ravencni/raven/pkg/topology"
)

func TestPartsAreBuiltUpBeforeTheRoutesThatNeedThemAndTakenDownAfter(t *testing.T) {
	moved := cluster() // region b's gateway moves from b1 to b2
	moved.State.Gateways[1].Status.ActiveEndpoints = nil
	moved.State.Gateways[1].Status.ActiveEndpoint = nil
	moved.State.Gateways[1].Spec.Endpoints[0].NodeName = "b2"
	moved.State = source.Elect(moved.State)
	alone := cluster() // b2 leaves region b
	alone.State.Nodes[3].Labels = nil
	for i := range alone.State.Gateways {
		alone.State.Gateways[i].Status = v1beta1.GatewayStatus{}
	}
	alone.State = source.Elect(alone.State)
	off := cluster()
	off.State.Config.EnableTunnel = false

	for _, c := range []struct {
		name, node string
		in         source.Input
		want       string
	}{
		{"a gateway", "b1", cluster(), "tunnel host overlay sysctl filter route accel"},
		{"a member", "b2", cluster(), "host overlay sysctl filter route accel tunnel"},
		{"a gateway that became a member", "b1", moved, "host overlay sysctl filter route accel tunnel"},
		{"a node of no region", "b2", alone, "accel route filter overlay tunnel sysctl"},
		{"L3 switched off", "b1", off, "accel route filter overlay tunnel sysctl"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t, c.node)
			got := strings.TrimPrefix(b.pass(c.in), "plain.Cleanup ")
			if got != c.want {
				t.Errorf("order %q, want %q; plan %+v", got, c.want, b.view().Plan)
			}
		})
	}
}

func TestAnOverlayThatIsNotWantedGoesAfterItsRoutes(t *testing.T) {
	b := newBench(t, "b1")
	var order []string
	for _, s := range b.agent.steps(&topology.Plan{Role: topology.RoleGateway, Tunnel: &topology.Tunnel{}}, b.wireguard) {
		order = append(order, s.name)
	}
	if got := strings.Join(order, " "); got != "tunnel host sysctl filter route accel overlay" {
		t.Errorf("order %q", got)
	}
}

func TestAGatewayThatLosesItsStatusKeepsItsTunnels(t *testing.T) {
	lost := cluster()
	for _, g := range lost.State.Gateways {
		g.Status = v1beta1.GatewayStatus{}
	}
	check := func(t *testing.T, b *bench) {
		t.Helper()
		v := b.view()
		if v.Plan.Role != topology.RoleGateway || len(v.Plan.Tunnel.Peers) != 1 {
			t.Errorf("the gateway became %s with %+v", v.Plan.Role, v.Plan.Tunnel)
		}
		if !slices.ContainsFunc(v.Problems, func(p topology.Problem) bool { return p.Object == "Gateway/b" && p.Reason == "StatusLost" }) {
			t.Errorf("nothing tells of it: %v", v.Problems)
		}
	}
	t.Run("of a running agent", func(t *testing.T) {
		b := newBench(t, "b1")
		b.pass(cluster())
		b.pass(lost)
		check(t, b)
		if b.pass(cluster()); len(b.view().Problems) != 0 {
			t.Errorf("the controller elected, but: %v", b.view().Problems)
		}
	})
	t.Run("of an agent that starts from its snapshot", func(t *testing.T) {
		seed := cluster()
		b := newBench(t, "b1", func(p *Parts) { p.Seed = &seed })
		b.pass(lost)
		check(t, b)
	})
	t.Run("and the snapshot keeps them", func(t *testing.T) {
		dir := t.TempDir()
		b := newBench(t, "b1", func(p *Parts) { p.Snapshot = snapshot.Open(dir) })
		b.pass(cluster())
		b.source.set(lost)
		stop := b.start()
		b.await("the snapshot", func() bool { return b.agent.SnapshotAge() >= 0 })
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		got, err := snapshot.Open(dir).Load()
		if err != nil || got == nil || len(got.State.Gateways[1].Status.ActiveEndpoints) != 1 {
			t.Errorf("the snapshot holds %+v, %v", got, err)
		}
	})
}

func TestAnInputThatLooksLikeAnEmptyAnswerIsNotApplied(t *testing.T) {
	empty := func(change func(*source.Input)) source.Input {
		in := cluster()
		change(&in)
		return in
	}
	for _, c := range []struct {
		name    string
		in      source.Input
		applied bool
	}{
		{"no gateway", empty(func(in *source.Input) { in.State.Gateways = nil }), false},
		{"nothing at all", empty(func(in *source.Input) { in.State = topology.State{Config: in.State.Config} }), false},
		{"no nodes", empty(func(in *source.Input) { in.State.Nodes = nil }), false},
		{"not this very node", empty(func(in *source.Input) {
			in.State.Nodes = slices.DeleteFunc(in.State.Nodes, func(n *corev1.Node) bool { return n.Name == "b1" })
		}), false},
		{"no gateway, since the last one was seen being deleted", empty(func(in *source.Input) {
			in.State.Gateways, in.Emptied = nil, true
		}), true},
		{"no gateway, and L3 switched off", empty(func(in *source.Input) {
			in.State.Gateways, in.State.Config.EnableTunnel = nil, false
		}), true},
		{"not synced, without a snapshot", empty(func(in *source.Input) { in.Synced = false }), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t, "b1")
			b.pass(cluster())
			before := b.view()
			calls := b.pass(c.in)
			if applied := calls != ""; applied != c.applied {
				t.Fatalf("the parts were called: %q", calls)
			}
			v := b.view()
			if c.applied {
				if v.Plan.Role != topology.RoleNone || v.Datapath != v1beta1.DatapathOff {
					t.Errorf("the node is still %s, %s", v.Plan.Role, v.Datapath)
				}
				return
			}
			if v.Plan != before.Plan || v.Datapath != before.Datapath {
				t.Errorf("the view forgot what is in the kernel: %+v", v)
			}
			if c.in.Synced && (v.Held == "" || len(v.Problems) == 0) {
				t.Errorf("nothing says that the input is held back: %+v", v)
			}
			if b.pass(cluster()) == "" || b.view().Held != "" {
				t.Error("the next whole input was not applied")
			}
		})
	}
}

func TestAnAgentThatNeverKnewAGatewayIsReadyAndTouchesNothing(t *testing.T) {
	none := cluster()
	none.State.Gateways = nil
	for name, seed := range map[string]*source.Input{"fresh": nil, "started before": {}} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, "b1", func(p *Parts) { p.Seed = seed })
			if calls := b.pass(none); calls != "" {
				t.Errorf("the parts were called: %q", calls)
			}
			if wrong := health.Unready(b.view()); len(wrong) > 0 {
				t.Errorf("it is not ready: %q", wrong)
			}
			if v := b.view(); v.Held != "" || len(v.Problems) != 0 {
				t.Errorf("it complains: %+v", v)
			}
			if b.pass(cluster()) == "" || b.view().NoneYet {
				t.Error("the first Gateways were not applied")
			}
			if b.pass(none); b.view().Held == "" {
				t.Error("an answer without the Gateways that it knows is not held back")
			}
		})
	}
	lost := cluster()
	b := newBench(t, "b1", func(p *Parts) { p.Seed = &lost })
	if b.pass(none); b.view().Held == "" {
		t.Error("an answer without the Gateways of its snapshot is not held back")
	}
}

func TestASeededAgentActsBeforeItsSourceIsThere(t *testing.T) {
	b := newBench(t, "b1", func(p *Parts) { p.Seed = &source.Input{} })
	in := cluster()
	in.Synced, in.Waiting = false, "the API server"
	if calls := b.pass(in); !strings.Contains(calls, "route") {
		t.Fatalf("the snapshot was not applied: %q", calls)
	}
	if v := b.view(); !v.FromSnapshot || v.Waiting != "the API server" || v.Plan == nil {
		t.Errorf("the view is %+v", v)
	}
	b.pass(cluster())
	if b.view().FromSnapshot {
		t.Error("the source has delivered, but the view still speaks of the snapshot")
	}
}

func TestAnErrorOfOnePartCostsOnlyThatPart(t *testing.T) {
	b := newBench(t, "b1")
	b.filter.answer(0, errors.Join(errors.New("no nft"), errors.New("no chain")))
	calls := b.pass(cluster())
	if !strings.HasSuffix(calls, "filter route accel") {
		t.Errorf("after the error came %q", calls)
	}
	v := b.view()
	if v.Failed["filter"] != "no nft; no chain" || len(v.Failed) != 1 {
		t.Errorf("failed: %v", v.Failed)
	}
	if p := v.Problems; len(p) != 1 || p[0].Object != "Applier/filter" || p[0].Message != "no nft; no chain" {
		t.Errorf("problems: %v", p)
	}
	if log := b.log.take(); strings.Count(log, "no nft; no chain") != 1 {
		t.Errorf("the log does not name the error once:\n%s", log)
	}
	b.pass(cluster())
	if log := b.log.take(); log != "" {
		t.Errorf("the same error again is logged again:\n%s", log)
	}
	b.filter.answer(1, nil)
	b.pass(cluster())
	if v := b.view(); len(v.Failed)+len(v.Problems) != 0 {
		t.Errorf("the repaired part is still complained about: %+v", v)
	}
	if log := b.log.take(); !strings.Contains(log, "problem gone") || !strings.Contains(log, "part=filter changes=1 because=test") {
		t.Errorf("the log does not tell of the repair:\n%s", log)
	}
}

func TestWithoutTheUnderlayTheKernelStaysAsItIs(t *testing.T) {
	b := newBench(t, "b1")
	b.resolveErr = errors.New("no device holds 10.0.2.1")
	if calls := b.pass(cluster()); !strings.HasSuffix(calls, "tunnel host") {
		t.Errorf("without the underlay the agent called %q", calls)
	}
	if v := b.view(); v.Failed["host"] == "" {
		t.Errorf("failed: %v", v.Failed)
	}
}

func TestAPassThatChangesNothingLogsNothing(t *testing.T) {
	b := newBench(t, "b1")
	b.route.answer(7, nil)
	b.pass(cluster())
	if log := b.log.take(); strings.Count(log, "\n") != 2 || !strings.Contains(log, "role=gateway") || !strings.Contains(log, "part=route changes=7") {
		t.Errorf("the first pass logged:\n%s", log)
	}
	b.route.answer(0, nil)
	for range 5 {
		b.pass(cluster())
	}
	if log := b.log.take(); log != "" {
		t.Errorf("passes without a change logged:\n%s", log)
	}
	in := cluster()
	in.State.Nodes[4].Spec.PodCIDRs = []string{"10.3.9.0/24"}
	for _, g := range in.State.Gateways {
		g.Status = v1beta1.GatewayStatus{}
	}
	in.State = source.Elect(in.State)
	b.pass(in)
	log := b.log.take()
	if strings.Count(log, "\n") != 1 || !strings.Contains(log, "10.3.9.0/24") || !strings.Contains(log, "10.3.1.0/24") {
		t.Errorf("a moved prefix logged:\n%s", log)
	}
}

func TestTheDriverFollowsTheConfiguration(t *testing.T) {
	b := newBench(t, "b1")
	if calls := b.pass(cluster()); !strings.HasPrefix(calls, "plain.Cleanup tunnel") {
		t.Errorf("what the other driver left is not removed before the tunnels are made: %q", calls)
	}
	if calls := b.pass(cluster()); strings.Contains(calls, "Cleanup") {
		t.Errorf("every pass cleans up: %q", calls)
	}
	in := cluster()
	in.State.Config.Driver = "plain"
	if calls := b.pass(in); !strings.HasPrefix(calls, "wireguard.Cleanup tunnel") || b.view().Driver != "plain" {
		t.Errorf("switching to plain: %q, driver %s", calls, b.view().Driver)
	}
	in.State.Config.Driver = "ipsec"
	if calls := b.pass(in); strings.Contains(calls, "Cleanup") || b.view().Driver != "plain" {
		t.Errorf("a driver that is refused replaced the one in use: %q", calls)
	}
	if p := b.view().Problems; len(p) != 1 || p[0].Reason != "DriverRefused" {
		t.Errorf("problems: %v", p)
	}
}

func TestAnAgentWhoseOnlyDriverIsRefusedGivesUpAndTouchesNothing(t *testing.T) {
	b := newBench(t, "b1")
	in := cluster()
	in.State.Config.Driver = "ipsec"
	b.source.set(in)
	if err := b.agent.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "ipsec is not built") {
		t.Errorf("the agent ended with %v", err)
	}
	if calls := b.take(); calls != "" {
		t.Errorf("it called %q", calls)
	}
}

func TestANodeThatFallsBackToTheBaselineSaysSo(t *testing.T) {
	b := newBench(t, "b1")
	b.accel.mode, b.accel.reason = v1beta1.DatapathBaseline, "the kernel refused the programs"
	b.pass(cluster())
	if v := b.view(); v.Datapath != v1beta1.DatapathBaseline || v.DatapathReason != "the kernel refused the programs" || len(v.Failed) > 0 {
		t.Errorf("the view is %+v", v)
	}
}

func TestAPodThatIsNotAcceleratedIsNamedAndCounted(t *testing.T) {
	b := newBench(t, "b1")
	b.accel.local = []pods.Pod{
		{Name: "veth1"},
		{Name: "veth2", Addrs: []netip.Addr{netip.MustParseAddr("10.2.1.7")}, Reason: "a foreign tc filter"},
	}
	b.pass(cluster())
	v := b.view()
	if v.PodsAccelerated != 1 || v.PodsNotAccelerated != 1 {
		t.Errorf("counted %d and %d", v.PodsAccelerated, v.PodsNotAccelerated)
	}
	if p := v.Problems; len(p) != 1 || p[0].Object != "Device/veth2" || !strings.Contains(p[0].Message, "10.2.1.7") ||
		!strings.Contains(p[0].Message, "a foreign tc filter") {
		t.Errorf("problems: %v", p)
	}
}

func TestANodeIPThatDiffersFromTheClustersIsNamed(t *testing.T) {
	b := newBench(t, "b1", func(p *Parts) { p.NodeIP = netip.MustParseAddr("10.0.2.1") })
	b.pass(cluster())
	if p := b.view().Problems; len(p) != 0 {
		t.Errorf("problems: %v", p)
	}
	b = newBench(t, "b1", func(p *Parts) { p.NodeIP = netip.MustParseAddr("10.9.9.9") })
	b.pass(cluster())
	if p := b.view().Problems; len(p) != 1 || p[0].Reason != "NodeIPDiffers" {
		t.Errorf("problems: %v", p)
	}
}

func TestAPlanStaysWhileNothingOfWhatItIsMadeOfChanges(t *testing.T) {
	mtu := 1500
	b := newBench(t, "b1", func(p *Parts) { p.UnderlayMTU = func(...netip.Addr) (int, error) { return mtu, nil } })
	b.pass(cluster())
	plan := b.view().Plan
	if b.pass(cluster()); b.view().Plan != plan {
		t.Error("an input of equal objects was planned anew")
	}
	anew := func(what string) {
		t.Helper()
		if b.view().Plan == plan {
			t.Errorf("%s did not lead to a new plan", what)
		}
		plan = b.view().Plan
	}
	in := cluster()
	in.State.Nodes[4].Spec.PodCIDRs = []string{"10.3.9.0/24"}
	b.pass(in)
	anew("another pod prefix")
	in.Throws = []netip.Addr{netip.MustParseAddr("198.51.100.1")}
	b.pass(in)
	anew("another API server")
	mtu = 1400
	b.pass(in)
	anew("another MTU of the underlay")
	in.State.Config.Driver = "plain"
	b.pass(in)
	anew("another driver")
}

func TestALookAtThePodsShowsInViewAndProblems(t *testing.T) {
	b := newBench(t, "b1")
	b.accel.local = []pods.Pod{{Name: "veth1"}}
	b.pass(cluster())
	b.accel.local = []pods.Pod{{Name: "veth1", Reason: "a shaper"}, {Name: "veth2"}, {Name: "veth3"}}
	b.accel.answer(0, errors.New("no map"))
	b.agent.lookAt(t.Context(), []string{"accel"}, "test")
	v := b.view()
	if calls := b.take(); calls != "accel" || v.PodsAccelerated != 2 || v.PodsNotAccelerated != 1 || len(v.Problems) != 2 || v.Failed["accel"] == "" {
		t.Errorf("called %q, view %+v", calls, v)
	}
}
