package agent

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/ravencni/raven/pkg/agent/source"
	"github.com/ravencni/raven/pkg/agent/view"
	"github.com/ravencni/raven/pkg/apis/raven/v1beta1"
	"github.com/ravencni/raven/pkg/datapath"
	"github.com/ravencni/raven/pkg/topology"
)

// pass brings the node to what the source says now. It returns an error only where the agent cannot work at all.
func (a *Agent) pass(ctx context.Context, why string) error {
	begin := time.Now()
	in := a.input()
	v := &view.View{
		Synced: in.Synced, Waiting: in.Waiting, FromSnapshot: !in.Synced && a.Seed != nil,
		Gateways: len(in.State.Gateways), Nodes: len(in.State.Nodes), Endpoints: len(in.State.Endpoints),
		Held: heldBack(in, a.Node), Passed: a.View().Passed,
	}
	a.problemsNow["source"] = in.Problems
	if v.NoneYet = a.noneYet(in); v.NoneYet {
		v.Held = ""
	}
	if v.NoneYet || v.Held != "" || (!in.Synced && a.Seed == nil) {
		// Nothing to go by: whatever is in the kernel stays.
		old := a.View()
		v.Plan, v.Host, v.Driver, v.Peers = old.Plan, old.Host, old.Driver, old.Peers
		v.PublicKey, v.Offered, v.Also = old.PublicKey, old.Offered, old.Also
		v.UnderlayMTU, v.KeyRequest, v.PeerAddrs = old.UnderlayMTU, old.KeyRequest, old.PeerAddrs
		v.ListenPort, v.Datapath, v.DatapathReason = old.ListenPort, old.Datapath, old.DatapathReason
		v.PodsAccelerated, v.PodsNotAccelerated = old.PodsAccelerated, old.PodsNotAccelerated
		a.problemsNow["held"] = nil
		if v.Held != "" && in.Synced {
			a.problemsNow["held"] = []topology.Problem{{Object: "Input", Reason: "NothingToApply", Message: v.Held}}
		}
		a.finish(in, v)
		return nil
	}
	delete(a.problemsNow, "held")

	state := in.State
	if a.Proxy != nil {
		a.Proxy(state)
	}
	if err := a.chooseDriver(ctx, state, begin); err != nil {
		return err
	}
	state.Config.Driver = a.driver.Name()
	a.rotateKey(ctx, state, begin)
	plan := a.compile(state, in.Throws, why)
	a.compileOther()
	a.checkNodeIP(plan)

	var host datapath.Host
	failed, whole := a.apply(ctx, a.steps(plan, a.driver), plan, &host, why)
	if !whole {
		return nil // shutting down
	}
	a.setFailed(failed)
	a.track(host)
	v.Plan, v.Host, v.Driver = plan, host, a.driver.Name()
	v.UnderlayMTU = a.knownMTU(plan, host, state.Endpoints)
	v.Datapath, v.DatapathReason = a.datapathMode(plan)
	a.notAccelerated(v)
	v.ListenPort = listenPort(plan, state.Config)
	v.PublicKey, v.Offered = a.publicKey(ctx, plan, state.Endpoints)
	v.Also = a.alsoOffered(ctx)
	v.KeyRequest = a.keyRequest
	v.Peers, v.PeerAddrs = a.peers(ctx), peerAddrs(plan, state.Nodes)
	v.Passed = time.Now()
	if a.Metrics != nil {
		a.Metrics.Passed(time.Since(begin).Seconds())
	}
	a.finish(in, v)
	return nil
}

// input is what the source says, with what Gateways lost of the controller's word.
func (a *Agent) input() source.Input {
	in := a.Source.Input()
	delete(a.problemsNow, "elected")
	if !a.Standalone {
		in.State.Gateways, a.problemsNow["elected"] = a.elected.Keep(in.State.Gateways, time.Now())
	}
	return in
}

// heldBack says why an input must not be applied; empty: it may. An answer without any Gateway, or without the very node
// that this agent runs on, would take down working tunnels, and it is what an empty folder, a folder that is being
// filled and a broken cache look like.
func heldBack(in source.Input, node string) string {
	if in.Emptied || !in.State.Config.EnableTunnel {
		return "" // said in so many words
	}
	if len(in.State.Gateways) == 0 {
		return "it has no Gateway; whatever Raven set up before stays"
	}
	if !slices.ContainsFunc(in.State.Nodes, func(n *corev1.Node) bool { return n.Name == node }) {
		return "it has no Node " + node + ", which this agent runs on; whatever Raven set up before stays: check --node-name, " +
			"or run raven-agent --cleanup where the node has left the cluster for good"
	}
	return ""
}

// noneYet says that the cluster has no Gateway, and that this agent has never known it to have one: a fresh installation,
// not an answer that lost them. As with an input that is held back nothing is touched, but nothing is wrong either, and a
// rollout of the agents may go on.
func (a *Agent) noneYet(in source.Input) bool {
	return in.Synced && !in.Emptied && len(in.State.Gateways) == 0 && in.State.Config.EnableTunnel && a.View().Plan == nil &&
		(a.Seed == nil || len(a.Seed.State.Gateways) == 0)
}

// apply runs steps, and returns what failed by part. It reports whether it came to the end, rather than being cancelled.
func (a *Agent) apply(
	ctx context.Context, steps []step, plan *topology.Plan, host *datapath.Host, why string,
) (failed map[string]string, whole bool) {
	failed = map[string]string{}
	for _, s := range steps {
		if ctx.Err() != nil {
			return nil, false
		}
		changes, err := s.apply(ctx, plan, host)
		a.heart.Beat(time.Now())
		if ctx.Err() != nil {
			return nil, false
		}
		if a.Metrics != nil {
			a.Metrics.Ran(s.name, changes, err)
		}
		if changes > 0 {
			a.Log.Info("applied", "part", s.name, "changes", changes, "because", why)
		}
		if err != nil {
			failed[s.name] = oneLine(err)
			if s.needed {
				break
			}
		}
	}
	return failed, true
}

// setFailed names what does not work.
func (a *Agent) setFailed(failed map[string]string) {
	a.failed = failed
	problems := []topology.Problem{}
	for _, part := range slices.Sorted(maps.Keys(failed)) {
		problems = append(problems, topology.Problem{Object: "Applier/" + part, Reason: "ApplyFailed", Message: failed[part]})
	}
	a.problemsNow["appliers"] = problems
}

// lookAt applies the last plan to some parts alone, which needs a pass that went well. What else may have changed comes
// with a notice of its own.
func (a *Agent) lookAt(ctx context.Context, parts []string, why string) {
	v := *a.View()
	steps := slices.DeleteFunc(a.steps(a.plan, a.driver), func(s step) bool { return !slices.Contains(parts, s.name) })
	failed, whole := a.apply(ctx, steps, a.plan, &v.Host, why)
	if !whole {
		return // shutting down
	}
	a.setFailed(failed)
	v.Datapath, v.DatapathReason = a.datapathMode(a.plan)
	a.notAccelerated(&v)
	a.show(&v)
}

// track names the devices whose own changes call for a pass.
func (a *Agent) track(host datapath.Host) {
	if a.Track == nil {
		return
	}
	var indices []int
	for _, l := range append(slices.Clone(host.Underlays), host.Outers...) {
		indices = append(indices, l.Index)
	}
	for _, d := range host.Incoming() {
		indices = append(indices, d.Index)
	}
	a.Track(indices...)
}

// oneLine writes joined errors on one line.
func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }

// finish ends a pass: snapshot and what show does.
func (a *Agent) finish(in source.Input, v *view.View) {
	if in.Synced && v.Held == "" && !v.NoneYet && a.snapshots != nil {
		a.snapshots.offer(in)
	}
	a.listed = slices.ContainsFunc(in.State.Endpoints, func(e *v1beta1.TunnelEndpoint) bool { return e.Name == a.Node })
	a.show(v)
}

// show tells the outcome: view, log and published status.
func (a *Agent) show(v *view.View) {
	v.Failed = maps.Clone(a.failed) // readers of the view run beside the loop
	if a.Beside != nil {
		a.problemsNow["beside"] = a.Beside()
	}
	v.Problems, v.Elsewhere = a.gather()
	a.problems.Set(v.Problems, v.Elsewhere)
	a.latest.Store(v)
	a.publish(v)
}

// readPeers refreshes the tunnels' figures in the view, and publishes a tunnel that came up or went down.
func (a *Agent) readPeers(ctx context.Context) {
	if a.driver == nil || a.plan == nil {
		return
	}
	v := *a.View()
	v.Peers = a.peers(ctx)
	v.Failed = maps.Clone(a.failed)
	a.latest.Store(&v)
	a.publish(&v)
}

// checkNodeIP compares --node-ip with what the cluster says.
func (a *Agent) checkNodeIP(plan *topology.Plan) {
	delete(a.problemsNow, "node-ip")
	if !a.NodeIP.IsValid() || plan.Role == topology.RoleNone || a.NodeIP == plan.NodeIP4 || a.NodeIP == plan.NodeIP6 {
		return
	}
	a.problemsNow["node-ip"] = []topology.Problem{{
		Object: "Node/" + a.Node, Reason: "NodeIPDiffers",
		Message: fmt.Sprintf("--node-ip is %s, and the cluster knows this node by %s; the cluster's word counts",
			a.NodeIP, nodeIPs(plan)),
	}}
}
