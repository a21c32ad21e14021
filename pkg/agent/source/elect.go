package source

import (
	"time"

	"github.com/ravencni/raven/pkg/apis/raven/v1beta1"
	"github.com/ravencni/raven/pkg/election"
	"github.com/ravencni/raven/pkg/topology"
)

// Elect fills in what a controller would: members and active endpoints in the status of the Gateways. What a manifest's
// status says already is kept. All agents that read the same manifests come to the same result, since nothing but the
// manifests counts: no clock, no history.
func Elect(state topology.State) topology.State {
	results := election.FillStatuses(state.Gateways, state.Nodes, election.Options{
		EnableTunnel: state.Config.EnableTunnel, MissingReadyIsReady: true, TrustStatus: true,
		Endpoints: state.Endpoints, Driver: state.Config.Driver, Now: time.Unix(0, 0).UTC(),
	})
	gateways := make([]*v1beta1.Gateway, 0, len(results))
	for _, r := range results {
		gateways = append(gateways, r.Gateway)
	}
	state.Gateways = gateways
	return state
}
