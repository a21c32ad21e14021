package accel

import (
	"errors"
	"fmt"
	"hash/fnv"
	"slices"
)

// errNoSlot says that raven_nexthops is full.
var errNoSlot = errors.New("all slots of the map raven_nexthops are taken")

// groupOf is the number by which a restarted daemon finds the slot of a next hop again: FNV-1a, 32 bits, of its ID.
func groupOf(id string) uint32 {
	h := fnv.New32a()
	h.Write([]byte(id)) // never fails
	return h.Sum32()
}

// slots says where next hops live in raven_nexthops. Slot 0 stays empty, so that an entry without a next hop finds none.
type slots struct {
	// at is where this process put each ID.
	at map[string]uint32
	// group is groupOf; tests make it collide.
	group func(id string) uint32
}

func newSlots() *slots { return &slots{at: make(map[string]uint32), group: groupOf} }

// assign finds a slot for each wanted next hop: the one it has, else a free one. have is the map's content. After a
// restart a slot is known by its group. Where several slots or IDs share a group, a slot is taken over only if it already
// says what is wanted; otherwise the next hop moves to a free slot, its prefixes follow, and the old slot is freed after
// them. So no prefix points to another one's next hop, even for a moment. The values' Group fields are filled in.
func (s *slots) assign(have map[uint32]nexthop, wanted map[string]nexthop, size uint32) (map[string]uint32, error) {
	others := make(map[uint32]bool, len(s.at)) // slots of IDs that this process knows
	for _, slot := range s.at {
		others[slot] = true
	}
	candidates := make(map[uint32][]uint32) // group -> slots
	for slot, value := range have {
		if value != (nexthop{}) && !others[slot] {
			candidates[value.Group] = append(candidates[value.Group], slot)
		}
	}
	ids := make([]string, 0, len(wanted))
	sharing := make(map[uint32]int) // group -> wanted IDs
	for id, value := range wanted {
		value.Group = s.group(id)
		wanted[id] = value
		sharing[value.Group]++
		ids = append(ids, id)
	}
	slices.Sort(ids)

	result := make(map[string]uint32, len(wanted))
	taken := make(map[uint32]bool)
	take := func(id string, slot uint32) { result[id], taken[slot] = slot, true }
	for _, id := range ids {
		if slot, ok := s.at[id]; ok && !taken[slot] && have[slot].Group == wanted[id].Group && have[slot] != (nexthop{}) {
			take(id, slot)
		}
	}
	for _, id := range ids {
		if _, ok := result[id]; ok {
			continue
		}
		group := wanted[id].Group
		found := candidates[group]
		slices.Sort(found)
		for _, slot := range found {
			certain := len(found) == 1 && sharing[group] == 1
			if !taken[slot] && (certain || have[slot] == wanted[id]) {
				take(id, slot)
				break
			}
		}
	}
	var errs []error
	free := uint32(1)
	for _, id := range ids {
		if _, ok := result[id]; ok {
			continue
		}
		for free < size && (taken[free] || have[free] != (nexthop{})) {
			free++
		}
		if free >= size {
			errs = append(errs, fmt.Errorf("next hop %s is left to the kernel: %w", id, errNoSlot))
			continue
		}
		take(id, free)
	}
	s.at = result
	return result, errors.Join(errs...)
}
