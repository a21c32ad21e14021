package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/ravencni/raven/pkg/topology"
	"github.com/ravencni/raven/pkg/tunnel"
)

// chooseDriver makes the driver that the configuration names. Where that cannot be done the one in use stays, and an
// agent that has none yet gives up. A gateway whose tunnels carry traffic runs both for a while. In all other cases what
// other drivers left behind, in this life or in an earlier one, is removed first: they would hold the same port and the
// same prefixes.
func (a *Agent) chooseDriver(ctx context.Context, state topology.State, now time.Time) error {
	name := state.Config.Driver
	if a.other != nil {
		a.carryOnSwitch(ctx, state, name, now)
	}
	if a.driver != nil && (a.driver.Name() == name || a.other != nil) {
		delete(a.problemsNow, "driver")
		return nil
	}
	driver, err := a.makeDriver(name)
	if err != nil && a.driver == nil {
		return err
	}
	if err != nil {
		a.problemsNow["driver"] = []topology.Problem{{
			Object: "ConfigMap/raven-agent-config", Reason: "DriverRefused",
			Message: fmt.Sprintf("%v; %s stays", err, a.driver.Name()),
		}}
		return nil
	}
	delete(a.problemsNow, "driver")
	if a.driver != nil {
		if a.beginSwitch(ctx, driver, now) {
			return nil
		}
		a.Log.Info("the tunnel driver changes", "from", a.driver.Name(), "to", name)
	}
	a.driver, a.port = driver, topology.PortKept
	a.clean(ctx, name)
	return nil
}

// clean removes what every driver but one left behind.
func (a *Agent) clean(ctx context.Context, but string) {
	if err := a.cleanDrivers(ctx, but); err != nil {
		a.Log.Warn("cannot remove what another tunnel driver left behind", "error", err)
	}
}

func (a *Agent) makeDriver(name string) (tunnel.Driver, error) {
	i := slices.IndexFunc(a.Drivers, func(c DriverChoice) bool { return c.Name == name })
	if i < 0 {
		return nil, fmt.Errorf("no tunnel driver is named %q", name)
	}
	choice := a.Drivers[i]
	if choice.Refuse != nil {
		return nil, choice.Refuse
	}
	driver, err := choice.New()
	if err != nil {
		return nil, fmt.Errorf("make the tunnel driver %s: %w", name, err)
	}
	return driver, nil
}

// cleanDrivers cleans up after every driver but one.
func (p *Parts) cleanDrivers(ctx context.Context, but string) error {
	var errs []error
	for _, choice := range p.Drivers {
		if choice.New == nil || choice.Name == but {
			continue
		}
		driver, err := choice.New()
		if err != nil {
			errs = append(errs, fmt.Errorf("make the tunnel driver %s: %w", choice.Name, err))
			continue
		}
		if err := driver.Cleanup(ctx); err != nil {
			errs = append(errs, fmt.Errorf("clean up after the tunnel driver %s: %w", choice.Name, err))
		}
	}
	return errors.Join(errs...)
}
