package checks

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ravencni/raven/pkg/datapath"
	"github.com/ravencni/raven/test/lab"
)

const (
	// repairWithin is the time from the first removal to the last repair.
	repairWithin = 100 * time.Millisecond
	// removals in a row; the median counts, since on a busy machine any program may have to wait for a processor.
	removals = 5
	// probeEvery is the probe's interval: 500 datagrams per second.
	probeEvery = 2 * time.Millisecond
	// peace is the number of answers between two removals: more than a second's, so that a restart of a network manager
	// is what it looks like, not a fight.
	peace = 600
)

// damagedNodes lose their rules and routes at once: the probe's own member and its gateway.
var damagedNodes = []string{"hangzhou-2", "hangzhou-1"}

// Repair removes, as systemd-networkd does when it starts, every rule and route that it does not know.
var Repair = Check{
	Name: "repair-routes",
	Says: "a network manager that removes all foreign rules and routes of a member and a gateway at once " +
		"is made good within 100 ms",
	Run: func(ctx context.Context, l *lab.Lab) (evidence string, err error) {
		from, err := findEnd(l, "hangzhou-2/a")
		if err != nil {
			return "", err
		}
		to, err := findEnd(l, "qingdao-2/a")
		if err != nil {
			return "", err
		}
		before, err := routesOf(ctx, l)
		if err != nil {
			return "", err
		}
		p, err := from.host.ProbeDatagrams(ctx, to.addr(4), probeEvery)
		if err != nil {
			return "", err
		}
		var first, whole []time.Duration
		objects := 0
		for range removals {
			if err := p.AwaitAnswers(ctx, peace); err != nil {
				return "", errors.Join(err, stopProbe(ctx, p))
			}
			repairs, err := damageOnce(ctx, l)
			if err != nil {
				return "", errors.Join(err, stopProbe(ctx, p))
			}
			for _, r := range repairs {
				first, whole, objects = append(first, r.first), append(whole, r.whole), objects+r.objects
			}
		}
		sent, lost, err := p.Stop(ctx)
		if err != nil {
			return "", err
		}
		after, err := routesOf(ctx, l)
		if err != nil {
			return "", err
		}
		for node, k := range before {
			if diff := k.Diff(after[node]); diff != "" {
				return "", fmt.Errorf("the rules and routes of %s are not what they were:\n%s", node, diff)
			}
		}
		evidence = fmt.Sprintf("%d removals of %d rules and routes: first write after %s, all back after %s; "+
			"%d of %d datagrams lost at 500 per second, %.1f per removal", len(whole), objects, spread(first), spread(whole),
			lost, sent, float64(lost)/removals)
		if m := median(whole); m > repairWithin {
			return "", fmt.Errorf("the median repair took %s, want at most %s: %s", m, repairWithin, evidence)
		}
		return evidence, nil
	},
}

func stopProbe(ctx context.Context, p *lab.DatagramProber) error {
	_, _, err := p.Stop(ctx)
	return err
}

// repair is how long after the first removal the first and the last object came back.
type repair struct {
	first, whole time.Duration
	objects      int
}

// damageOnce removes rules and routes on all damagedNodes side by side and waits until all are back.
func damageOnce(ctx context.Context, l *lab.Lab) (repairs []repair, err error) {
	watches := map[string]*lab.RouteWatch{}
	defer func() {
		for _, w := range watches {
			err = errors.Join(err, w.Stop())
		}
	}()
	for _, node := range damagedNodes {
		if watches[node], err = l.Host(node).WatchRoutes(datapath.TableRemote, datapath.TableInRegion); err != nil {
			return nil, err
		}
	}
	done := make(chan error, len(damagedNodes))
	for _, node := range damagedNodes {
		go func() { done <- removeForeign(l.Host(node)) }()
	}
	for range damagedNodes {
		err = errors.Join(err, <-done)
	}
	if err != nil {
		return nil, err
	}
	for _, node := range damagedNodes {
		var events []lab.RouteEvent
		err := lab.Await(ctx, "the rules and routes of "+node+" to come back", func(context.Context) error {
			more, err := watches[node].Events()
			if err != nil {
				return err
			}
			events = append(events, more...)
			r, missing := account(events)
			if len(missing) > 0 || r.objects == 0 {
				return fmt.Errorf("missing of %d: %s", r.objects, strings.Join(missing, ", "))
			}
			repairs = append(repairs, r)
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return repairs, nil
}

// account reads what happened on one node.
func account(events []lab.RouteEvent) (r repair, missing []string) {
	gone, removed := map[string]bool{}, map[string]bool{}
	for _, e := range events {
		switch {
		case e.Gone:
			gone[e.Key], removed[e.Key] = true, true
		case gone[e.Key]:
			delete(gone, e.Key)
			if r.whole = e.At.Sub(events[0].At); r.first == 0 {
				r.first = r.whole
			}
		}
	}
	for key := range gone {
		missing = append(missing, key)
	}
	r.objects = len(removed)
	return r, missing
}

// removeForeign removes every rule that is not the kernel's own, and every route of the tables that these led to.
func removeForeign(h *lab.Host) error {
	nl := h.Netlink()
	var errs []error
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		rules, err := nl.RuleList(family)
		if err != nil {
			return fmt.Errorf("list the rules of %s: %w", h.Name, err)
		}
		var routes []netlink.Route
		for _, table := range []int{datapath.TableRemote, datapath.TableInRegion} {
			in, err := nl.RouteListFiltered(family, &netlink.Route{Table: table}, netlink.RT_FILTER_TABLE)
			if err != nil {
				return fmt.Errorf("list the routes of %s: %w", h.Name, err)
			}
			routes = append(routes, in...)
		}
		for _, r := range rules {
			if r.Protocol == unix.RTPROT_KERNEL {
				continue
			}
			r.Family = family
			if err := nl.RuleDel(&r); err != nil {
				errs = append(errs, fmt.Errorf("remove rule %s of %s: %w", r, h.Name, err))
			}
		}
		for _, r := range routes {
			if err := nl.RouteDel(&r); err != nil {
				errs = append(errs, fmt.Errorf("remove route %s of %s: %w", r, h.Name, err))
			}
		}
	}
	return errors.Join(errs...)
}

// routesOf lists rules and routes of the damaged nodes.
func routesOf(ctx context.Context, l *lab.Lab) (map[string]lab.Kernel, error) {
	all := map[string]lab.Kernel{}
	for _, node := range damagedNodes {
		k := lab.Kernel{}
		for _, what := range []string{"rule", "route show table 9027", "route show table 9028"} {
			for _, family := range []string{"-4", "-6"} {
				// A table that holds nothing is an error to ip.
				out, err := l.Host(node).Run(ctx, "sh", "-c", "ip "+family+" "+what+" 2>&1; true")
				if err != nil {
					return nil, err
				}
				k[family+" "+what] = out
			}
		}
		all[node] = k
	}
	return all, nil
}

func median(all []time.Duration) time.Duration {
	sorted := slices.Sorted(slices.Values(all))
	return sorted[len(sorted)/2]
}

// spread shows median, least and most.
func spread(all []time.Duration) string {
	return fmt.Sprintf("%.1f ms (%.1f to %.1f)", milliseconds(median(all)), milliseconds(slices.Min(all)),
		milliseconds(slices.Max(all)))
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
