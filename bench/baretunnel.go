package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/ravencni/raven/pkg/datapath"
	"github.com/ravencni/raven/test/lab"
)

// leaveTunnel has agents make the tunnel between the gateways, kills them, and removes all that they made but the tunnel,
// which outlives them. The tunnel's routes move to the main table, where other software would have put them. The members
// never had an agent.
func leaveTunnel(ctx context.Context, l *lab.Lab, o lab.AgentOptions) error {
	gateways := []string{clientGateway, serverGateway}
	if err := l.StartAgents(ctx, o, gateways...); err != nil {
		return err
	}
	for _, name := range gateways {
		if err := l.Agent(name).Stop(); err != nil {
			return err
		}
	}
	for _, name := range gateways {
		if err := strip(ctx, l.Host(name), l.TunnelDevice()); err != nil {
			return fmt.Errorf("leave nothing but the tunnel on %s: %w", name, err)
		}
	}
	return nil
}

func strip(ctx context.Context, h *lab.Host, device string) error {
	table := fmt.Sprint(datapath.TableRemote)
	routes, err := h.Run(ctx, "ip", "-4", "route", "show", "table", table, "dev", device)
	if err != nil {
		return err
	}
	var errs []error
	run := func(name string, args ...string) {
		_, err := h.Run(ctx, name, args...)
		errs = append(errs, err)
	}
	for _, family := range []string{"-4", "-6"} {
		for _, t := range []int{datapath.TableRemote, datapath.TableInRegion} {
			rules, err := h.Run(ctx, "ip", family, "rule", "show", "table", fmt.Sprint(t))
			errs = append(errs, err)
			for range strings.Count(rules, "\n") {
				run("ip", family, "rule", "del", "table", fmt.Sprint(t))
			}
			run("ip", family, "route", "flush", "table", fmt.Sprint(t))
		}
	}
	run("ip", "link", "del", datapath.OverlayDevice)
	run("nft", "flush", "ruleset")
	errs = append(errs, os.RemoveAll(h.Path("/sys/fs/bpf/raven")))
	found := 0
	for route := range strings.Lines(routes) {
		// "throw" and its like lead nowhere.
		if fields := strings.Fields(route); len(fields) > 0 && strings.Contains(fields[0], ".") {
			run("ip", append(append([]string{"-4", "route", "add"}, fields...), "dev", device)...)
			found++
		}
	}
	if found == 0 {
		errs = append(errs, fmt.Errorf("table %s has no routes by %s: %q", table, device, routes))
	}
	return errors.Join(errs...)
}
