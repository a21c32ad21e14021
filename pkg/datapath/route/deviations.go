package route

import (
	"context"
	"errors"

	"github.com/ravencni/raven/pkg/datapath"
	"github.com/ravencni/raven/pkg/datapath/rtnl"
	"github.com/ravencni/raven/pkg/topology"
)

// Deviations lists what an Apply would write now, in the words of ip(8), and writes nothing; empty: all is as planned.
// An error names what could not be compared; the rest is.
func Deviations(ctx context.Context, plan *topology.Plan, host datapath.Host) ([]string, error) {
	want, err := wanted(plan, host)
	errs := []error{err}
	c, err := rtnl.Open()
	if err != nil {
		return nil, errors.Join(append(errs, err)...)
	}
	defer c.Close() // nothing was written
	var out []string
	say := func(requests []rtnl.Request) {
		for _, r := range requests {
			out = append(out, rtnl.Describe(r))
		}
	}
	for _, family := range families {
		if err := ctx.Err(); err != nil {
			return out, err
		}
		if !want.has(family) {
			continue // also a kernel without IPv6
		}
		have, err := c.Rules(family)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		gone, added := diffRules(want.rules, have, family)
		say(gone)
		say(added)
		for _, table := range tables {
			have, err := c.Routes(family, table)
			if err != nil {
				errs = append(errs, err)
				continue
			}
			say(diffRoutes(want.routes[table], have, family, table))
		}
	}
	return out, errors.Join(errs...)
}
