package host

import (
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/ravencni/raven/pkg/datapath/rtnl"
)

// MainTable is the main routing table of both families, read once, to look many addresses up without a system call
// each and without the rules that stand before it.
type MainTable struct {
	routes map[netip.Prefix][]Hop
	// bits4 and bits6 are the prefix lengths that occur, longest first.
	bits4, bits6 []int
}

// Hop is a way out of the main table.
type Hop struct {
	// Device is the index of the outgoing device.
	Device int
	// OnLink is true where the destination is a neighbour on that device, without a gateway.
	OnLink bool
}

// ReadMain reads the main table.
func ReadMain() (*MainTable, error) {
	c, err := rtnl.Open()
	if err != nil {
		return nil, fmt.Errorf("read the main routing table: %w", err)
	}
	defer c.Close() // nothing was written
	t := &MainTable{routes: map[netip.Prefix][]Hop{}}
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		routes, err := c.Routes(family, unix.RT_TABLE_MAIN)
		if err != nil {
			return nil, err
		}
		for _, r := range routes {
			t.add(r)
		}
	}
	longestFirst := func(a, b int) int { return b - a }
	slices.SortFunc(t.bits4, longestFirst)
	slices.SortFunc(t.bits6, longestFirst)
	return t, nil
}

func (t *MainTable) add(r rtnl.RawRoute) {
	if r.Type != unix.RTN_UNICAST {
		return
	}
	for _, device := range r.NextHops {
		onLink := !r.Gateway.IsValid() && len(r.NextHops) == 1
		t.routes[r.Prefix] = append(t.routes[r.Prefix], Hop{Device: device, OnLink: onLink})
	}
	bits := &t.bits6
	if r.Prefix.Addr().Is4() {
		bits = &t.bits4
	}
	if !slices.Contains(*bits, r.Prefix.Bits()) {
		*bits = append(*bits, r.Prefix.Bits())
	}
}

// Lookup returns every hop of the longest prefix that holds addr, whatever the metric: what a member sends may come in
// by any of them. The result is empty where no route leads there.
func (t *MainTable) Lookup(addr netip.Addr) []Hop {
	addr = addr.Unmap()
	lengths := t.bits6
	if addr.Is4() {
		lengths = t.bits4
	}
	for _, bits := range lengths {
		prefix, err := addr.Prefix(bits)
		if err != nil {
			return nil // an invalid address has no route
		}
		if hops := t.routes[prefix]; len(hops) > 0 {
			return hops
		}
	}
	return nil
}
