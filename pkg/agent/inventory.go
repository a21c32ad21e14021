package agent

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ravencni/raven/pkg/datapath"
	"github.com/ravencni/raven/pkg/datapath/host"
)

// Inventory lists everything of Raven's in this network namespace, one line each, sorted: devices, rules, routes of the
// two tables, the nft table, pinned BPF objects and recorded sysctls. It looks for itself instead of asking those who
// made it, so that it also finds what they forgot.
func Inventory(stateDir string) ([]string, error) {
	var found []string
	var errs []error
	for _, list := range []func() ([]string, error){
		deviceInventory, ruleInventory, routeInventory, nftInventory, pinInventory,
		func() ([]string, error) { return recordInventory(stateDir) },
	} {
		lines, err := list()
		found = append(found, lines...)
		errs = append(errs, err)
	}
	slices.Sort(found)
	return slices.Compact(found), errors.Join(errs...)
}

func deviceInventory() ([]string, error) {
	links, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list network devices: %w", err)
	}
	var out []string
	for _, l := range links {
		if host.Ours(l.Attrs().Name) {
			out = append(out, fmt.Sprintf("device %s (%s)", l.Attrs().Name, l.Type()))
		}
	}
	return out, nil
}

func ruleInventory() ([]string, error) {
	rules, err := netlink.RuleList(unix.AF_UNSPEC)
	if err != nil {
		return nil, fmt.Errorf("list rules: %w", err)
	}
	var out []string
	for _, r := range rules {
		if r.Protocol == datapath.RouteProtocol {
			out = append(out, fmt.Sprintf("rule %d (%s) iif %q -> table %d", r.Priority, familyName(r.Family), r.IifName, r.Table))
		}
	}
	return out, nil
}

func routeInventory() ([]string, error) {
	var out []string
	for _, table := range []int{datapath.TableRemote, datapath.TableInRegion} {
		for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
			routes, err := netlink.RouteListFiltered(family, &netlink.Route{Table: table}, netlink.RT_FILTER_TABLE)
			if err != nil {
				return out, fmt.Errorf("list the routes of table %d: %w", table, err)
			}
			for _, r := range routes {
				out = append(out, fmt.Sprintf("route %s table %d", r.Dst, table))
			}
		}
	}
	return out, nil
}

func nftInventory() ([]string, error) {
	conn, err := nftables.New()
	if err != nil {
		return nil, fmt.Errorf("open nftables: %w", err)
	}
	tables, err := conn.ListTables()
	if err != nil {
		return nil, fmt.Errorf("list nft tables: %w", err)
	}
	var out []string
	for _, t := range tables {
		if t.Name == "raven" {
			out = append(out, "nft table raven")
		}
	}
	return out, nil
}

func pinInventory() ([]string, error) {
	trees, err := filepath.Glob(filepath.Join(datapath.PinRoot, "*"))
	if err != nil {
		return nil, fmt.Errorf("look for pinned BPF objects: %w", err)
	}
	if _, err := os.Lstat(datapath.PinRoot); err == nil && len(trees) == 0 {
		trees = []string{datapath.PinRoot}
	}
	for i, t := range trees {
		trees[i] = "pinned BPF objects " + t
	}
	return trees, nil
}

func recordInventory(stateDir string) ([]string, error) {
	path := filepath.Join(stateDir, "sysctls.json")
	if _, err := os.Lstat(path); err != nil {
		return nil, nil //nolint:nilerr // no record: nothing was changed
	}
	return []string{"changed sysctls recorded in " + path}, nil
}

func familyName(family int) string {
	return map[int]string{unix.AF_INET: "IPv4", unix.AF_INET6: "IPv6"}[family]
}
