package accel

import (
	"errors"

	"github.com/ravencni/raven/pkg/datapath"
	"github.com/ravencni/raven/pkg/datapath/accel/pintree"
	"github.com/ravencni/raven/pkg/datapath/pods"
	"github.com/ravencni/raven/pkg/topology"
)

// fill brings the maps to what the plan says, writing differences only. Next hops come before the prefixes that point to
// them and go after them, and the switch comes last, so that a packet meets a consistent FIB at any time. The switch
// stays off where the FIB is not whole: to the programs a source without an entry is a stranger's.
func (a *Applier) fill(plan *topology.Plan, host datapath.Host, around surroundings, havePods map[address]podEntry,
	config nodeConfig) error {
	hops := nexthopsOf(plan, around)
	fib := fibOf(plan, hops)

	haveHops, err := readMap[uint32, nexthop](a.maps[mapNexthops])
	if err != nil {
		return err
	}
	slot, slotErr := a.slots.assign(haveHops, hops, a.maps[mapNexthops].MaxEntries())
	wantHops := make(map[uint32]nexthop, len(slot))
	for id, s := range slot {
		wantHops[s] = hops[id]
	}
	four, six := split(fib, slot)
	have4, err4 := readMap[fib4Key, fibEntry](a.maps[mapFib4])
	have6, err6 := readMap[fib6Key, fibEntry](a.maps[mapFib6])
	haveMembers, errMembers := readMap[address, member](a.maps[mapMembers])
	haveConfig, errConfig := readMap[uint32, nodeConfig](a.maps[mapConfig])
	if err := errors.Join(err4, err6, errMembers, errConfig); err != nil {
		return err
	}

	hopDiff, diff4, diff6 := diff(haveHops, wantHops), diff(have4, four), diff(have6, six)
	hopErr := update(a, mapNexthops, hopDiff)
	fibErr := hopErr
	if hopErr == nil {
		fibErr = errors.Join(update(a, mapFib4, diff4), update(a, mapFib6, diff6))
	}
	fibErr = errors.Join(fibErr, remove(a, mapFib4, diff4), remove(a, mapFib6, diff6))
	errs := []error{slotErr, fibErr}
	if fibErr == nil {
		errs = append(errs, update(a, mapNexthops, emptied(hopDiff)))
	}

	if a.incomplete = slotErr != nil || fibErr != nil; a.incomplete {
		config.Flags &^= flagAccelerate
	}

	members, local := diff(haveMembers, membersOf(plan, host)), diff(havePods, podsOf(a.pods))
	errs = append(errs, update(a, mapMembers, members), remove(a, mapMembers, members),
		update(a, mapPods, local), remove(a, mapPods, local))
	return errors.Join(append(errs, update(a, mapConfig, diff(haveConfig, map[uint32]nodeConfig{0: config})))...)
}

// emptied is the write that frees the slots which are in use and not wanted.
func emptied(d difference[uint32, nexthop]) difference[uint32, nexthop] {
	return difference[uint32, nexthop]{putKeys: d.deletions, putValues: make([]nexthop, len(d.deletions))}
}

func update[K comparable, V comparable](a *Applier, name string, d difference[K, V]) error {
	n, err := d.put(a.maps[name])
	a.stats.MapUpdates += uint64(n)
	return err
}

func remove[K comparable, V comparable](a *Applier, name string, d difference[K, V]) error {
	n, err := d.delete(a.maps[name])
	a.stats.MapDeletions += uint64(n)
	return err
}

// membersOf lists who may send VXLAN to this node.
func membersOf(plan *topology.Plan, host datapath.Host) map[address]member {
	members := make(map[address]member)
	if plan.Overlay != nil {
		for _, m := range plan.Overlay.Members {
			members[addressOf(m)] |= memberOfRegion
		}
	}
	if plan.Tunnel != nil && host.Tunnel.VXLAN.VNI != 0 {
		for _, p := range plan.Tunnel.Peers {
			if p.Endpoint.IsValid() {
				members[addressOf(p.Endpoint.Addr())] |= memberPeer
			}
		}
	}
	return members
}

func podsOf(list []pods.Pod) map[address]podEntry {
	entries := make(map[address]podEntry)
	for _, p := range list {
		if p.Reason != "" {
			continue
		}
		for _, addr := range p.Addrs {
			entries[addressOf(addr)] = pintree.EntryOf(p)
		}
	}
	return entries
}
