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
	port   topology.PortChoice
}

func (p planned) same(o planned) bool {
	return p.mtu == o.mtu && p.port == o.port && slices.Equal(p.throws, o.throws) && source.SameState(p.state, o.state)
}

func (a *Agent) compiled(from planned) *topology.Plan {
	return topology.Compile(from.state, a.Node, topology.Local{UnderlayMTU: from.mtu, Direct: a.Direct, Throws: from.throws, Port: from.port})
}

// compile makes the plan, or takes the last one where nothing of what it was made of is another: in a large cluster a
// plan is the dearest part of a pass, and most passes look for what changed in the kernel.
func (a *Agent) compile(state topology.State, throws []netip.Addr, why string) *topology.Plan {
	from := planned{state: state, throws: throws, mtu: a.measureUnderlay(state), port: a.port}
	last := a.planned
	a.planned = from // its objects are the ones that the next input most likely shares
	if a.plan != nil && last.same(from) {
		return a.plan
	}
	plan := a.compiled(from)
	a.logPlan(plan, why)
	a.plan, a.scope = plan, concern.New(state, a.Node, a.Standalone)
	a.problemsNow["plan"] = plan.Problems
	return plan
}
