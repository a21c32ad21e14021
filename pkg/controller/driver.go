package controller

import (
	"maps"
	"slices"

	"github.com/ravencni/raven/pkg/apis/raven/v1beta1"
	"github.com/ravencni/raven/pkg/topology"
)

// driverInUse is the tunnel driver that most nodes say they offer, the first by name of several: what the agents' flags
// chose where raven-agent-config names none. Where no node has said anything it is plain, of which no keys are asked.
func driverInUse(endpoints []*v1beta1.TunnelEndpoint) string {
	offers := map[string]int{}
	for _, e := range endpoints {
		for _, t := range e.Status.Tunnels {
			offers[t.Driver]++
		}
	}
	chosen := topology.DriverPlain
	for _, driver := range slices.Sorted(maps.Keys(offers)) {
		if offers[driver] > offers[chosen] {
			chosen = driver
		}
	}
	return chosen
}
