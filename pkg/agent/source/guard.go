package source

import (
	"fmt"

	"github.com/ravencni/raven/pkg/topology"
)

// keep decides which of the last known objects survive a new answer that lacks them, since an empty or partial answer
// must never tear down a working tunnel:
//
//   - Without any Gateway in the new answer nothing is removed at all.
//   - A kind that had objects keeps them where the new answer has none of that kind.
//   - withhold: nothing is removed, for an answer that is known to be in the middle of a change.
//
// Everything that the new answer has is taken. Within a kind that still has objects a missing one is removed.
func keep(last, fresh objects, origin string, withhold bool) (objects, []topology.Problem) {
	withhold = withhold || (len(fresh.gateways) == 0 && len(last.gateways) > 0)
	var problems []topology.Problem
	out := objects{
		gateways:  keepKind("Gateways", origin, last.gateways, fresh.gateways, withhold, &problems),
		nodes:     keepKind("Nodes", origin, last.nodes, fresh.nodes, withhold, &problems),
		endpoints: keepKind("TunnelEndpoints", origin, last.endpoints, fresh.endpoints, withhold, &problems),
		configs:   fresh.configs, // a missing ConfigMap leaves its last known values in Config
	}
	return out, problems
}

func keepKind[T any](
	kind, origin string, last, fresh map[string]T, withhold bool, problems *[]topology.Problem,
) map[string]T {
	if len(fresh) == 0 && len(last) > 0 {
		*problems = append(*problems, topology.Problem{
			Object: origin, Reason: ReasonNothingLeft,
			Message: fmt.Sprintf("it holds no %s any more; the last known %d stay; to take Raven off this node set "+
				"enable-l3-tunnel to \"false\" in ConfigMap kube-system/raven-cfg, or stop the agent and run "+
				"raven-agent --cleanup", kind, len(last)),
		})
		withhold = true
	}
	if !withhold {
		return fresh
	}
	out := make(map[string]T, len(last)+len(fresh))
	for name, object := range last {
		out[name] = object
	}
	for name, object := range fresh {
		out[name] = object
	}
	return out
}
