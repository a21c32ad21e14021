package agent

import (
	"net/netip"
	"slices"

	"github.com/ravencni/raven/pkg/agent/concern"
	"github.com/ravencni/raven/pkg/agent/source"
	"github.com/ravencni/raven/pkg/topology"
)

// planned is all that a plan is made of, and that changes.
type planned struct {
	state  topology.State
	throws []netip.Addr
	mtu    int // of the underlay
}

// compile makes the plan, or takes the last one where nothing of what it was made of is another: in a large cluster a
// plan is the dearest part of a pass, and most passes look for what changed in the kernel.
func (a *Agent) compile(state topology.State, throws []netip.Addr, why string) *topology.Plan {
	from := planned{state: state, throws: throws, mtu: a.measureUnderlay(state)}
	last := a.planned
	a.planned = from // its objects are the ones that the next input most likely shares
	if a.plan != nil && last.mtu == from.mtu && slices.Equal(last.throws, throws) && source.SameState(last.state, state) {
		return a.plan
	}
	plan := topology.Compile(state, a.Node, topology.Local{UnderlayMTU: from.mtu, Direct: a.Direct, Throws: throws})
	a.logPlan(plan, why)
	a.plan, a.scope = plan, concern.New(state, a.Node, a.Standalone)
	a.problemsNow["plan"] = plan.Problems
	return plan
}
