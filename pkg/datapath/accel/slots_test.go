package accel

import (
	"fmt"
	"maps"
	"testing"

	"pgregory.net/rapid"
)

func hop(device uint32) nexthop { return nexthop{Kind: kindTunnel, Ifindex: device} }

// store is the map raven_nexthops.
type store map[uint32]nexthop

// run is one pass: assign, write, free.
func (s store) run(t interface{ Fatal(...any) }, table *slots, wanted map[string]nexthop) map[string]uint32 {
	slot, err := table.assign(s, wanted, 64)
	if err != nil {
		t.Fatal(err)
	}
	used := make(map[uint32]string)
	for id, n := range slot {
		if n == 0 {
			t.Fatal("slot 0 was given to", id)
		}
		if other := used[n]; other != "" {
			t.Fatal("slot", n, "was given to", id, "and", other)
		}
		used[n] = id
		s[n] = wanted[id]
	}
	for n := range s {
		if used[n] == "" {
			delete(s, n)
		}
	}
	return slot
}

func TestAFailoverRewritesTheSlotAndNotTheNumber(t *testing.T) {
	s, table := store{}, newSlots()
	before := s.run(t, table, map[string]nexthop{"region/a": hop(1), "region/b": hop(1)})
	after := s.run(t, table, map[string]nexthop{"region/a": hop(2), "region/b": hop(1)})
	if !maps.Equal(before, after) || s[after["region/a"]].Ifindex != 2 {
		t.Errorf("before %v, after %v, map %v", before, after, s)
	}
}

func TestARestartedDaemonFindsItsSlotsByGroup(t *testing.T) {
	s := store{}
	before := s.run(t, newSlots(), map[string]nexthop{"region/a": hop(1), "region/b": hop(1), "region/c": hop(1)})
	// With another daemon, a failed-over next hop, and one less.
	after := s.run(t, newSlots(), map[string]nexthop{"region/b": hop(7), "region/c": hop(1)})
	if after["region/b"] != before["region/b"] || after["region/c"] != before["region/c"] {
		t.Errorf("before %v, after %v", before, after)
	}
}

func TestAFullTableCostsOnlyWhatDoesNotFit(t *testing.T) {
	table := newSlots()
	wanted := make(map[string]nexthop)
	for i := range 5 {
		wanted[fmt.Sprint("region/", i)] = hop(1)
	}
	slot, err := table.assign(store{}, wanted, 4)
	if err == nil || len(slot) != 3 {
		t.Errorf("%v, error %v", slot, err)
	}
}

// Whatever hashes collide and whichever daemons restart in between, no slot that prefixes may still point to is taken
// over for another next hop, and a pass that wants what is there changes nothing.
func TestNoSlotChangesHandsWhilePrefixesPointToIt(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		groups := uint32(rapid.IntRange(1, 4).Draw(t, "groups"))
		daemon := func() *slots {
			table := newSlots()
			table.group = func(id string) uint32 { return groupOf(id)%groups + 1 }
			return table
		}
		s, table := store{}, daemon()
		owner := make(map[uint32]string) // as the prefixes have it
		for range rapid.IntRange(1, 8).Draw(t, "passes") {
			restart := rapid.Bool().Draw(t, "restart")
			if restart {
				table = daemon()
			}
			wanted := make(map[string]nexthop)
			for i := range 6 {
				if rapid.Bool().Draw(t, "there") {
					wanted[fmt.Sprint("region/", i)] = hop(uint32(rapid.IntRange(1, 3).Draw(t, "device")))
				}
			}
			held := maps.Clone(s)
			slot := s.run(t, table, wanted)
			for id, n := range slot {
				// A restarted daemon cannot tell an ID that went from one that came if they are alone with their group.
				alone := restart && count(held, wanted[id].Group) == 1 && count(wanted, wanted[id].Group) == 1
				if old := owner[n]; old != "" && old != id && held[n] != wanted[id] && !alone {
					t.Fatalf("slot %d went from %s to %s and from %+v to %+v", n, old, id, held[n], wanted[id])
				}
			}
			owner = make(map[uint32]string)
			for id, n := range slot {
				owner[n] = id
			}
			again := s.run(t, table, maps.Clone(wanted))
			if !maps.Equal(slot, again) {
				t.Fatalf("a second pass moved %v to %v", slot, again)
			}
			if restarted := s.run(t, daemon(), maps.Clone(wanted)); !sameValues(s, slot, restarted) {
				t.Fatalf("a restart moved %v to %v", slot, restarted)
			}
		}
	})
}

func count[K comparable](values map[K]nexthop, group uint32) (n int) {
	for _, v := range values {
		if v.Group == group {
			n++
		}
	}
	return n
}

// sameValues is true where each ID's slot holds the same value as before, or the very slot.
func sameValues(s store, a, b map[string]uint32) bool {
	for id, n := range a {
		if s[n] != s[b[id]] {
			return false
		}
	}
	return len(a) == len(b)
}
