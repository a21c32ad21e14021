package sysctl

import (
	"context"
	"errors"
	"fmt"

	"github.com/ravencni/raven/pkg/datapath"
	"github.com/ravencni/raven/pkg/topology"
)

// Deviations lists the settings that an Apply would write now, and writes nothing; empty: all are as planned.
func (a *Applier) Deviations(ctx context.Context, plan *topology.Plan, host datapath.Host) ([]string, error) {
	rec, err := load(a.path)
	if err != nil {
		return nil, err
	}
	wanted, err := a.hostSettings(ctx, plan, host, rec)
	errs := []error{err}
	var out []string
	for _, s := range append(ownDeviceSettings(plan, host), wanted...) {
		differs, err := s.differs()
		errs = append(errs, err)
		if !differs {
			continue
		}
		value, err := Read(s.key)
		errs = append(errs, err)
		out = append(out, fmt.Sprintf("sysctl %s is %s, planned is %s", s.key, value, s.value))
	}
	return out, errors.Join(errs...)
}
