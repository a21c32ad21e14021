package agent

import (
	"maps"
	"reflect"
	"slices"

	"github.com/ravencni/raven/pkg/topology"
)

// logPlan writes one line where the plan is another than before.
func (a *Agent) logPlan(plan *topology.Plan, why string) {
	old := a.plan
	if old == nil {
		a.Log.Info("planned", "role", plan.Role, "region", plan.Region, "peers", few(names(peersOf(plan))),
			"nexthops", len(plan.NextHops), "prefixes", len(plan.Prefixes), "because", why)
		return
	}
	if reflect.DeepEqual(old, plan) {
		return
	}
	var attrs []any
	if old.Role != plan.Role || old.Region != plan.Region {
		attrs = append(attrs, "role", plan.Role, "region", plan.Region)
	}
	attrs = difference(attrs, "peers", peersOf(old), peersOf(plan))
	attrs = difference(attrs, "nexthops", nextHopsOf(old), nextHopsOf(plan))
	attrs = difference(attrs, "prefixes", prefixesOf(old), prefixesOf(plan))
	for _, part := range []struct {
		name     string
		old, now any
	}{
		{"overlay", old.Overlay, plan.Overlay}, {"listen_port", port(old), port(plan)}, {"throws", old.Throws, plan.Throws},
		{"local_prefixes", old.LocalPrefixes, plan.LocalPrefixes}, {"conflicts", old.Conflicts, plan.Conflicts},
		{"node_ips", nodeIPs(old), nodeIPs(plan)},
	} {
		if !reflect.DeepEqual(part.old, part.now) {
			attrs = append(attrs, part.name, "changed")
		}
	}
	// Problems have lines of their own.
	if len(attrs) > 0 {
		a.Log.Info("the plan changed", append(attrs, "because", why)...)
	}
}

func port(p *topology.Plan) int {
	if p.Tunnel == nil {
		return 0
	}
	return p.Tunnel.ListenPort
}

// difference adds what came, went and changed, by name.
func difference(attrs []any, what string, old, now map[string]any) []any {
	var came, went, changed []string
	for _, name := range slices.Sorted(maps.Keys(now)) {
		if before, ok := old[name]; !ok {
			came = append(came, name)
		} else if !reflect.DeepEqual(before, now[name]) {
			changed = append(changed, name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(old)) {
		if _, ok := now[name]; !ok {
			went = append(went, name)
		}
	}
	for _, d := range []struct {
		word string
		list []string
	}{{"added", came}, {"removed", went}, {"changed", changed}} {
		if len(d.list) > 0 {
			attrs = append(attrs, what+"_"+d.word, few(d.list))
		}
	}
	return attrs
}

// few keeps a log line readable where a whole region comes or goes.
func few(list []string) any {
	const shown = 8
	if len(list) <= shown {
		return list
	}
	return struct {
		Count int
		First []string
	}{len(list), list[:shown]}
}

func names(m map[string]any) []string { return slices.Sorted(maps.Keys(m)) }

func peersOf(p *topology.Plan) map[string]any {
	out := map[string]any{}
	if p.Tunnel != nil {
		for _, peer := range p.Tunnel.Peers {
			out[peer.Node] = peer
		}
	}
	return out
}

func nextHopsOf(p *topology.Plan) map[string]any {
	out := map[string]any{}
	for _, h := range p.NextHops {
		out[h.ID] = h
	}
	return out
}

func prefixesOf(p *topology.Plan) map[string]any {
	out := map[string]any{}
	for _, prefix := range p.Prefixes {
		out[prefix.Prefix.String()+" "+string(prefix.Scope)] = prefix.NextHop
	}
	return out
}
