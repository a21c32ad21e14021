// Package route keeps the policy rules at priority 100 and the tables 9027 and 9028 as the Plan wants them.
//
// The two tables are Raven's alone: a route of anybody else in them would misroute cross-region traffic and is removed.
// A rule is Raven's where priority, table and protocol all say so; any other rule is left alone, also one that shares
// the priority.
package route

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/ravencni/raven/pkg/datapath"
	"github.com/ravencni/raven/pkg/datapath/rtnl"
	"github.com/ravencni/raven/pkg/topology"
)

var (
	families = []uint8{unix.AF_INET, unix.AF_INET6}
	tables   = []uint32{datapath.TableRemote, datapath.TableInRegion}
)

// Applier implements datapath.Applier. It comes after the overlay and the tunnel driver: routes need their devices.
type Applier struct{}

var _ datapath.Applier = (*Applier)(nil)

// New makes the applier; it holds no state, the kernel does.
func New() *Applier { return &Applier{} }

// Name is route.
func (*Applier) Name() string { return "route" }

// Apply brings rules and tables to the plan. Routes come before the rules that lead to them, throws before all others,
// and rules go before their routes, so that no look-up meets half a table.
func (*Applier) Apply(ctx context.Context, plan *topology.Plan, host datapath.Host) (changes int, err error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	want, err := wanted(plan, host)
	errs := []error{err}
	n, err := apply(ctx, want)
	return n, errors.Join(append(errs, err)...)
}

// Cleanup removes Raven's rules and empties its tables.
func (*Applier) Cleanup(ctx context.Context) error {
	_, err := apply(ctx, &state{})
	return err
}

// state is everything of this package's in the kernel.
type state struct {
	rules  []rtnl.Rule
	routes map[uint32][]rtnl.Route
}

func apply(ctx context.Context, want *state) (changes int, err error) {
	c, err := rtnl.Open()
	if err != nil {
		return 0, err
	}
	defer c.Close() // every write was answered

	var errs []error
	var goneRules, newRules, routes []rtnl.Request
	for _, family := range families {
		have, err := c.Rules(family)
		if err != nil {
			if family == unix.AF_INET6 && errors.Is(err, unix.EAFNOSUPPORT) && !want.has(family) {
				continue // a kernel without IPv6, of which nothing is wanted
			}
			errs = append(errs, err)
			continue
		}
		gone, added := diffRules(want.rules, have, family)
		goneRules = append(goneRules, gone...)
		newRules = append(newRules, added...)
		for _, table := range tables {
			have, err := c.Routes(family, table)
			if err != nil {
				errs = append(errs, err)
				continue
			}
			routes = append(routes, diffRoutes(want.routes[table], have, family, table)...)
		}
	}
	for _, step := range [][]rtnl.Request{goneRules, routes, newRules} {
		if err := ctx.Err(); err != nil {
			return changes, errors.Join(append(errs, err)...)
		}
		n, err := write(c, step)
		changes += n
		errs = append(errs, err)
	}
	return changes, errors.Join(errs...)
}

func (s *state) has(family uint8) bool {
	for _, r := range s.rules {
		if r.Family == family {
			return true
		}
	}
	return false
}

// maxReported bounds how many failed writes of one kind an error lists: ten thousand routes fail together.
const maxReported = 5

func write(c *rtnl.Conn, requests []rtnl.Request) (changes int, err error) {
	var errs []error
	failed := 0
	for i, err := range c.Write(requests) {
		r := requests[i]
		if err == nil {
			changes++
			continue
		}
		deletion := r.Type == unix.RTM_DELROUTE || r.Type == unix.RTM_DELRULE
		if deletion && (errors.Is(err, unix.ESRCH) || errors.Is(err, unix.ENOENT)) {
			continue // it went by itself meanwhile
		}
		if failed++; failed <= maxReported {
			errs = append(errs, fmt.Errorf("%s: %w", rtnl.Describe(r), err))
		}
	}
	if failed > maxReported {
		errs = append(errs, fmt.Errorf("and %d more writes of routes or rules failed", failed-maxReported))
	}
	return changes, errors.Join(errs...)
}
