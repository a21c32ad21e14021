package controller

import (
	"slices"
	"strings"

	"github.com/ravencni/raven/pkg/election"
	"github.com/ravencni/raven/pkg/topology"
)

// told elsewhere: what the elections' conditions or the agents' own objects say better.
var toldElsewhere = []string{
	topology.ReasonNoActiveEndpoint, topology.ReasonEndpointNodeNotFound, topology.ReasonEndpointNotMember,
	topology.ReasonPeerKeyMissing, topology.ReasonExposedNotDialable, topology.ReasonNodeNotFound,
	topology.ReasonUnknownDriver, topology.ReasonNoRelay,
}

// findings sorts what the planner left out by the Gateway that it concerns. gatewayOf gives a node's Gateway; "": none.
func findings(plan *topology.Plan, gatewayOf func(node string) string) map[string]election.Findings {
	out := make(map[string]election.Findings)
	for _, p := range plan.Problems {
		kind, name, _ := strings.Cut(p.Object, "/")
		gateway, sentence := name, p.Message
		if kind != "Gateway" {
			gateway, sentence = gatewayOf(name), kind+" "+name+": "+p.Message
		}
		if gateway == "" || slices.Contains(toldElsewhere, p.Reason) {
			continue
		}
		found := out[gateway]
		switch p.Reason {
		case topology.ReasonSubnetConflict, topology.ReasonAddressConflict:
			found.Conflicts = append(found.Conflicts, sentence)
		default:
			found.LeftOut = append(found.LeftOut, sentence)
		}
		out[gateway] = found
	}
	// Those who win a conflict have no problem, but should know.
	for _, c := range plan.Conflicts {
		for _, o := range c.Objects {
			gateway, ok := strings.CutPrefix(o, "Gateway/")
			if found := out[gateway]; ok && len(found.Conflicts) == 0 {
				found.Conflicts = []string{c.Prefix.String() + " is claimed by " + strings.Join(c.Objects, ", ")}
				out[gateway] = found
			}
		}
	}
	return out
}
