package accel

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"

	"github.com/cilium/ebpf"

	"github.com/ravencni/raven/pkg/datapath"
	"github.com/ravencni/raven/pkg/datapath/accel/attach"
	"github.com/ravencni/raven/pkg/datapath/pods"
	"github.com/ravencni/raven/pkg/datapath/rtnl"
	"github.com/ravencni/raven/pkg/topology"
)

// Deviations compares the pinned maps and the attached programs of an accelerated node with the plan, and writes
// nothing; empty: all is as planned. An error names what could not be compared.
func Deviations(ctx context.Context, plan *topology.Plan, host datapath.Host) ([]string, error) {
	a, err := New(Options{})
	if err != nil {
		return nil, err
	}
	tree := TreePath(a.options.PinRoot)
	a.attacher, a.maps = attach.New(tree), mapSet{}
	defer func() { _ = a.maps.close() }() // they were only read
	var out []string
	for _, name := range []string{mapConfig, mapFib4, mapFib6, mapNexthops, mapPods} {
		m, err := ebpf.LoadPinnedMap(filepath.Join(tree, name), nil)
		if err != nil {
			out = append(out, fmt.Sprintf("the map %s cannot be opened: %v", name, err))
			continue
		}
		a.maps[name] = m
	}
	if len(out) > 0 {
		return out, nil
	}
	conn, err := rtnl.Open()
	if err != nil {
		return nil, err
	}
	defer conn.Close() // nothing was written
	existing, err := a.existing()
	if err != nil {
		return nil, err
	}
	in, err := attach.Inspect(conn, attach.HaveTCX(), existing.programs)
	if err != nil {
		return nil, err
	}
	around, err := surroundingsOf(conn, host)
	if err != nil {
		return nil, err
	}
	local, podErr := pods.Discover(ctx, conn, plan.LocalPrefixes, in)
	a.pods = local
	fib, err := a.compareFib(plan, around)
	out = append(out, fib...)
	out = append(out, a.comparePods(existing.pods)...)
	attached, err2 := a.compareHooks(plan, host, around, in)
	return append(out, attached...), errors.Join(podErr, err, err2)
}

// nearlyFull is the share of a map's entries from which on it counts as full.
const nearlyFull = 0.9

func (a *Applier) full(name string, entries int) []string {
	if most := int(a.maps[name].MaxEntries()); float64(entries) >= nearlyFull*float64(most) {
		return []string{fmt.Sprintf("the map %s is full: %d of %d entries", name, entries, most)}
	}
	return nil
}

func (a *Applier) compareFib(plan *topology.Plan, around surroundings) (out []string, err error) {
	have4, err4 := readMap[fib4Key, fibEntry](a.maps[mapFib4])
	have6, err6 := readMap[fib6Key, fibEntry](a.maps[mapFib6])
	hops, errHops := readMap[uint32, nexthop](a.maps[mapNexthops])
	config, errConfig := readMap[uint32, nodeConfig](a.maps[mapConfig])
	if err := errors.Join(err4, err6, errHops, errConfig); err != nil {
		return nil, err
	}
	if config[0].Flags&flagAccelerate == 0 {
		out = append(out, "acceleration is switched off in the map raven_config")
	}
	out = append(out, a.full(mapFib4, len(have4))...)
	out = append(out, a.full(mapFib6, len(have6))...)
	have := make(map[netip.Prefix]fibEntry, len(have4)+len(have6))
	for k, v := range have4 {
		have[netip.PrefixFrom(netip.AddrFrom4(k.Addr), int(k.Prefixlen))] = v
	}
	for k, v := range have6 {
		have[netip.PrefixFrom(netip.AddrFrom16(k.Addr), int(k.Prefixlen))] = v
	}
	wantHops := nexthopsOf(plan, around)
	want := fibOf(plan, wantHops)
	told := map[string]bool{}
	for p, l := range want {
		e, ok := have[p]
		switch {
		case !ok:
			out = append(out, fmt.Sprintf("the FIB lacks the entry %s", p))
			continue
		case e.Scope != l.scope:
			out = append(out, fmt.Sprintf("the FIB's entry %s has scope %d, planned is %d", p, e.Scope, l.scope))
		}
		if l.nexthop == "" || told[l.nexthop] {
			continue
		}
		planned := wantHops[l.nexthop]
		planned.Group = groupOf(l.nexthop)
		if hops[e.Nexthop] != planned {
			told[l.nexthop] = true
			out = append(out, fmt.Sprintf("the FIB's entry %s leads to the next hop in slot %d, which is not %s as planned",
				p, e.Nexthop, l.nexthop))
		}
	}
	extra := 0
	for p := range have {
		if _, ok := want[p]; !ok {
			if extra++; extra == 1 {
				out = append(out, fmt.Sprintf("the FIB's entry %s is not planned", p))
			}
		}
	}
	if extra > 1 {
		out = append(out, fmt.Sprintf("and %d more entries of the FIB are not planned", extra-1))
	}
	return out, nil
}

func (a *Applier) comparePods(have map[address]podEntry) (out []string) {
	out = a.full(mapPods, len(have))
	for addr, want := range podsOf(a.pods) {
		e, ok := have[addr]
		switch {
		case !ok:
			out = append(out, fmt.Sprintf("the map raven_pods lacks the pod %s", netip.AddrFrom16(addr.Bytes).Unmap()))
		case e != want:
			out = append(out, fmt.Sprintf("the map raven_pods has another device or MAC for the pod %s",
				netip.AddrFrom16(addr.Bytes).Unmap()))
		}
	}
	return out
}

func (a *Applier) compareHooks(
	plan *topology.Plan, host datapath.Host, around surroundings, in *attach.Inspection,
) (out []string, err error) {
	for _, w := range a.hooks(plan, host, around, in) {
		if w.Reason != "" {
			out = append(out, fmt.Sprintf("%s is kept off the device %s: %s", w.Program, w.Device, w.Reason))
			continue
		}
		runs, checkErr := in.HasProgram(w.Program, w.Index)
		err = errors.Join(err, checkErr)
		if checkErr == nil && !runs {
			out = append(out, fmt.Sprintf("the program %s is not attached to the device %s", w.Program, w.Device))
		}
	}
	return out, err
}
