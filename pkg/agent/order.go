package agent

import (
	"context"

	"github.com/ravencni/raven/pkg/datapath"
	"github.com/ravencni/raven/pkg/topology"
	"github.com/ravencni/raven/pkg/tunnel"
)

// step is one part of a pass. It may fill in host for the steps after it.
type step struct {
	name  string
	apply func(ctx context.Context, plan *topology.Plan, host *datapath.Host) (changes int, err error)
	// needed: the steps after this one make no sense without it.
	needed bool
}

// steps puts the parts in an order in which no packet ever meets a half that leaks or loops: what routes point at
// exists before the routes do, and goes away after them; where all of it goes away, in the opposite order.
func (a *Agent) steps(plan *topology.Plan, driver tunnel.Driver) []step {
	sysctl, overlay := applier(a.Sysctl), applier(a.Overlay)
	filter, route := applier(a.Filter), applier(a.Route)
	link := step{name: "tunnel", apply: func(ctx context.Context, plan *topology.Plan, host *datapath.Host) (int, error) {
		result, err := driver.Apply(ctx, plan)
		host.Tunnel, host.TunnelPerPeer = result.Device, result.PerPeer
		return result.Changes, err
	}}
	find := step{name: "host", needed: true, apply: func(_ context.Context, plan *topology.Plan, host *datapath.Host) (int, error) {
		found, err := a.Resolve(plan, host.Tunnel)
		if err == nil {
			found.TunnelPerPeer, found.Also = host.TunnelPerPeer, host.Also
			*host = found
		}
		return 0, err
	}}
	accel := applier(a.Accel)

	if plan.Role == topology.RoleNone {
		return []step{accel, route, filter, overlay, link, sysctl}
	}
	var build, withdraw []step
	if plan.Tunnel != nil {
		if a.other != nil {
			build = append(build, a.besides())
		}
		build = append(build, link)
	} else {
		withdraw = append(withdraw, link)
	}
	build = append(build, find)
	if plan.Overlay != nil {
		build = append(build, overlay)
	} else {
		withdraw = append(withdraw, overlay)
	}
	// The settings of our own devices need the devices, and conntrack's must stand before acceleration.
	build = append(build, sysctl, filter, route, accel)
	return append(build, withdraw...)
}

func applier(p datapath.Applier) step {
	return step{name: p.Name(), apply: func(ctx context.Context, plan *topology.Plan, host *datapath.Host) (int, error) {
		return p.Apply(ctx, plan, *host)
	}}
}
