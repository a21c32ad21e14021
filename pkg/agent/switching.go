package agent

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ravencni/raven/pkg/apis/raven/v1beta1"
	"github.com/ravencni/raven/pkg/datapath"
	"github.com/ravencni/raven/pkg/topology"
	"github.com/ravencni/raven/pkg/tunnel"
)

const (
	// switchPatience is how long a new driver has to bring up what the old one has up. Then the old one goes all the same,
	// and the new one gets its port: the second port may be closed on the way, or a peer may not have the driver at all.
	switchPatience = time.Minute
	// switchSteady is how long the new tunnels must have stood before traffic goes by them: the peers' packet filters are
	// applied a moment after their tunnels.
	switchSteady = time.Second
	// farewell is how long the old driver stays for peers that still send by it, and at least for what is under way.
	farewell, farewellLeast = 2 * time.Minute, time.Second
	// switchPeriod is between passes while two drivers run.
	switchPeriod = time.Second
)

// switching is a gateway's second driver while the region changes from one to another: first the new one, until its
// tunnels stand, then the old one, until no peer sends by it any more.
type switching struct {
	driver tunnel.Driver
	// old: traffic goes by the new driver already, and this is the one that went before.
	old     bool
	began   time.Time
	steady  time.Time // since when the new tunnels stand; zero: they do not
	port    topology.PortChoice
	planned planned
	plan    *topology.Plan
	devices []tunnel.Device
	waiting string // what was logged last
}

// beginSwitch starts driver beside the one in use, unless nothing is lost by an abrupt change. It reports whether it did.
func (a *Agent) beginSwitch(ctx context.Context, driver tunnel.Driver, now time.Time) bool {
	if a.plan == nil || a.plan.Tunnel == nil || len(up(ctx, a.driver)) == 0 {
		return false
	}
	port := topology.PortSecond
	if a.plan.Tunnel.Second {
		port = topology.PortMain
	}
	a.other = &switching{driver: driver, began: now, port: port}
	a.Log.Info("the tunnel driver is to change; both run until the new tunnels stand", "from", a.driver.Name(), "to", driver.Name())
	return true
}

// carryOnSwitch takes the next step of a switch that is under way towards the driver called name.
func (a *Agent) carryOnSwitch(ctx context.Context, state topology.State, name string, now time.Time) {
	o := a.other
	if o.old && name == o.driver.Name() { // back again, and it is still there
		o.old, o.began, o.steady = false, now, time.Time{}
	}
	switch {
	case o.old && now.Sub(o.began) < farewellLeast:
	case o.old:
		lagging := a.lagging(state)
		if len(lagging) == 0 || now.Sub(o.began) >= farewell || name != a.driver.Name() {
			if len(lagging) > 0 {
				a.Log.Warn("the old tunnel driver ends though peers have not changed", "driver", o.driver.Name(), "peers", lagging)
			}
			a.endOther(ctx)
		}
	case name != o.driver.Name() || a.plan.Tunnel == nil: // neither is wanted any more
		a.endOther(ctx)
	default:
		missing := a.missing(ctx)
		a.logWaiting(missing)
		switch {
		case len(missing) > 0 && now.Sub(o.began) >= switchPatience:
			a.Log.Warn("the new tunnel driver does not come up beside the old one and takes its place", "driver", name, "missing", missing)
			a.driver, a.port, a.other = o.driver, topology.PortMain, nil
			a.clean(ctx, name)
		case len(missing) > 0:
			o.steady = time.Time{}
		case o.steady.IsZero():
			o.steady = now
		case now.Sub(o.steady) >= switchSteady:
			a.flip(now)
		}
	}
}

// flip makes the driver that has come up the one that traffic goes by.
func (a *Agent) flip(now time.Time) {
	o := a.other
	a.Log.Info("the tunnel driver changes", "from", a.driver.Name(), "to", o.driver.Name())
	devices := slices.Clone(a.View().Host.Tunnels())
	a.driver, o.driver = o.driver, a.driver
	if a.plan.Tunnel.Second {
		a.port, o.port = o.port, topology.PortSecond
	} else {
		a.port, o.port = o.port, topology.PortMain
	}
	o.old, o.began, o.devices, o.waiting = true, now, devices, ""
	o.plan, o.planned = a.plan, planned{}
}

// endOther takes the second driver away.
func (a *Agent) endOther(ctx context.Context) {
	o := a.other
	a.other = nil
	if err := o.driver.Cleanup(ctx); err != nil {
		a.Log.Warn("cannot remove what another tunnel driver left behind", "error", err)
		return
	}
	a.Log.Info("one tunnel driver is left", "driver", a.driver.Name(), "removed", o.driver.Name())
}

// missing names the peers to which the driver in use has a tunnel and the new one has none.
func (a *Agent) missing(ctx context.Context) (names []string) {
	if a.other.plan == nil {
		return []string{"all"} // it has not been applied yet
	}
	stand := up(ctx, a.other.driver)
	for _, node := range up(ctx, a.driver) {
		if !slices.Contains(stand, node) {
			names = append(names, node)
		}
	}
	return names
}

func (a *Agent) logWaiting(missing []string) {
	text := strings.Join(missing, ", ")
	if text != a.other.waiting && text != "" {
		a.Log.Info("waiting for the new driver's tunnels", "driver", a.other.driver.Name(), "missing", text)
	}
	a.other.waiting = text
}

// lagging names the gateways that do not say yet that their traffic goes by the driver that this node's goes by. Those of
// regions behind a relay are among them: who still plans for the old driver leaves a region out whose gateway has not got it.
func (a *Agent) lagging(state topology.State) (names []string) {
	if a.plan.Tunnel == nil {
		return nil
	}
	for _, gateway := range topology.TunnelNodes(state.Gateways) {
		for _, te := range state.Endpoints {
			if te.Name == gateway && len(te.Status.Tunnels) > 0 && te.Status.Tunnels[0].Driver != a.driver.Name() && gateway != a.Node {
				names = append(names, gateway)
			}
		}
	}
	return names
}

// up names the peers to which a driver has a tunnel.
func up(ctx context.Context, d tunnel.Driver) (nodes []string) {
	all, err := d.Status(ctx)
	if err != nil {
		return nil // it tells in the status of the pass
	}
	for _, p := range all {
		if p.State == tunnel.StateUp {
			nodes = append(nodes, p.Node)
		}
	}
	return nodes
}

// compileOther makes the plan of the new driver where anything that it is made of has changed.
func (a *Agent) compileOther() {
	o := a.other
	if o == nil || o.old {
		return
	}
	from := a.planned
	from.state.Config.Driver, from.port = o.driver.Name(), o.port
	if o.plan == nil || !o.planned.same(from) {
		o.plan = a.compiled(from)
	}
	o.planned = from
}

// besides is the step that applies the new driver, and names the devices of the second one.
func (a *Agent) besides() step {
	return step{name: "second tunnel", apply: func(ctx context.Context, _ *topology.Plan, host *datapath.Host) (int, error) {
		o := a.other
		if o.old {
			host.Also = o.devices
			return 0, nil
		}
		result, err := o.driver.Apply(ctx, o.plan)
		o.devices = result.PerPeer
		if result.Device.Name != "" {
			o.devices = append([]tunnel.Device{result.Device}, o.devices...)
		}
		host.Also = o.devices
		if err != nil {
			err = fmt.Errorf("bring up %s beside %s: %w", o.driver.Name(), a.driver.Name(), err)
		}
		return result.Changes, err
	}}
}

// alsoOffered is what this node publishes of its second driver; nil where it has none.
func (a *Agent) alsoOffered(ctx context.Context) *v1beta1.TunnelPort {
	o := a.other
	if o == nil || o.plan == nil || o.plan.Tunnel == nil {
		return nil
	}
	key, err := o.driver.PublicKey(ctx)
	if err != nil {
		a.Log.Warn("cannot read the key of the second tunnel driver", "error", err)
		return nil
	}
	t := o.plan.Tunnel
	return &v1beta1.TunnelPort{Driver: o.driver.Name(), Port: t.ListenPort, Second: t.Second, PublicKey: key}
}
