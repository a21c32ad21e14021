package controller

import (
	"testing"

	"github.com/ravencni/raven/pkg/apis/raven/v1beta1"
)

func TestTheDriverInUseIsWhatMostNodesOffer(t *testing.T) {
	offering := func(drivers ...string) (all []*v1beta1.TunnelEndpoint) {
		for _, d := range drivers {
			all = append(all, &v1beta1.TunnelEndpoint{Status: v1beta1.TunnelEndpointStatus{
				Tunnels: []v1beta1.TunnelPort{{Driver: d}},
			}})
		}
		return all
	}
	for want, endpoints := range map[string][]*v1beta1.TunnelEndpoint{
		"plain":     nil,
		"wireguard": offering("wireguard", "ipsec", "wireguard"),
		"ipsec":     offering("wireguard", "ipsec"),
	} {
		if got := driverInUse(endpoints); got != want {
			t.Errorf("%d endpoints: %s is in use, want %s", len(endpoints), got, want)
		}
	}
}
