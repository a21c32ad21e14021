package filter

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"

	"github.com/ravencni/raven/pkg/datapath"
	"github.com/ravencni/raven/pkg/topology"
)

// Names of the sets; those of addresses come in two families, with 4 or 6 appended.
const (
	setRemote    = "remote"    // prefixes of other regions
	setInRegion  = "in_region" // on a gateway: prefixes of the other nodes of its region
	setLocal     = "local"     // this node's pods, and the extra source prefixes on an active gateway
	setMembers   = "members"   // underlay addresses of the other nodes of the region
	setThrows    = "throws"    // hosts that are reached past the tunnels although a remote prefix may cover them
	setUnderlays = "underlays" // names of the devices that lead to the members
)

// element is a member of a set: a key, or in an interval set the keys from key up to but not including end, where an
// empty end stands for the end of the key space.
type element struct{ key, end string }

func (e element) compare(o element) int {
	if c := cmp.Compare(e.key, o.key); c != 0 {
		return c
	}
	return cmp.Compare(e.end, o.end)
}

// setSpec is a set as it should be.
type setSpec struct {
	name     string
	keyType  nftables.SetDatatype
	interval bool
	elements []element // sorted
}

// set is the form in which the netlink library takes it.
func (s *setSpec) set(t *nftables.Table) *nftables.Set {
	var order binaryutil.ByteOrder = binaryutil.BigEndian
	if s.keyType == nftables.TypeIFName {
		order = binaryutil.NativeEndian
	}
	return &nftables.Set{Table: t, Name: s.name, KeyType: s.keyType, Interval: s.interval, KeyByteOrder: order}
}

// like says whether a set in the kernel can hold what s wants.
func (s *setSpec) like(k *nftables.Set) bool {
	return k.KeyType.Name == s.keyType.Name && k.Interval == s.interval && !k.IsMap && !k.HasTimeout && !k.Concatenation &&
		!k.Dynamic && !k.Constant && k.Size == 0
}

// wantedSets makes the sets of a plan.
func wantedSets(plan *topology.Plan, host datapath.Host) []setSpec {
	spans := flatten(claims(plan))
	var members []netip.Addr
	if plan.Overlay != nil {
		members = plan.Overlay.Members
	}
	var out []setSpec
	for _, v6 := range []bool{false, true} {
		suffix, keyType := "4", nftables.TypeIPAddr
		if v6 {
			suffix, keyType = "6", nftables.TypeIP6Addr
		}
		for _, s := range []struct {
			name  string
			owner owner
		}{{setRemote, ownerRemote}, {setInRegion, ownerInRegion}, {setLocal, ownerLocal}} {
			out = append(out, setSpec{s.name + suffix, keyType, true, spanElements(spans[s.owner], v6)})
		}
		out = append(out,
			setSpec{setMembers + suffix, keyType, false, addrElements(members, v6)},
			setSpec{setThrows + suffix, keyType, false, addrElements(plan.Throws, v6)})
	}
	var names []element
	for _, l := range underlays(host) {
		names = append(names, element{key: string(ifname(l))})
	}
	slices.SortFunc(names, element.compare)
	return append(out, setSpec{setUnderlays, nftables.TypeIFName, false, slices.Compact(names)})
}

// underlays are the names of the devices that lead to the members of the region.
func underlays(host datapath.Host) []string {
	var out []string
	for _, l := range append([]datapath.Link{host.Underlay}, host.Underlays...) {
		if l.Name != "" && !slices.Contains(out, l.Name) {
			out = append(out, l.Name)
		}
	}
	return out
}

func spanElements(spans []span, v6 bool) []element {
	var out []element
	for _, s := range spans {
		if s.first.Is6() != v6 {
			continue
		}
		e := element{key: string(s.first.AsSlice())}
		if next := s.last.Next(); next.IsValid() {
			e.end = string(next.AsSlice())
		}
		out = append(out, e)
	}
	return out
}

func addrElements(addrs []netip.Addr, v6 bool) []element {
	var out []element
	for _, a := range addrs {
		if a = a.Unmap(); a.IsValid() && a.Is6() == v6 {
			out = append(out, element{key: string(a.WithZone("").AsSlice())})
		}
	}
	slices.SortFunc(out, element.compare)
	return slices.Compact(out)
}

// encode turns elements into the kernel's: an interval is its first key and, flagged as an end, the key after its last.
func encode(es []element) []nftables.SetElement {
	out := make([]nftables.SetElement, 0, 2*len(es))
	for _, e := range es {
		out = append(out, nftables.SetElement{Key: []byte(e.key)})
		if e.end != "" {
			out = append(out, nftables.SetElement{Key: []byte(e.end), IntervalEnd: true})
		}
	}
	return out
}

// decode is the inverse of encode, for the kernel's elements in any order; the result is sorted.
func decode(ks []nftables.SetElement, interval bool) ([]element, error) {
	// At one key the end of an interval comes before the start of its neighbour.
	slices.SortFunc(ks, func(a, b nftables.SetElement) int {
		if c := cmp.Compare(string(a.Key), string(b.Key)); c != 0 {
			return c
		}
		switch {
		case a.IntervalEnd == b.IntervalEnd:
			return 0
		case a.IntervalEnd:
			return -1
		}
		return 1
	})
	out := make([]element, 0, len(ks))
	open := false
	for _, k := range ks {
		switch {
		case !interval:
			out = append(out, element{key: string(k.Key)})
		case k.IntervalEnd && open:
			out[len(out)-1].end, open = string(k.Key), false
		case k.IntervalEnd:
			// The nft tool writes an end at the lowest key, where nothing is open.
			if len(out) > 0 {
				return nil, fmt.Errorf("an interval ends at %x without a start", k.Key)
			}
		case open:
			return nil, fmt.Errorf("an interval starts at %x inside another", k.Key)
		default:
			out, open = append(out, element{key: string(k.Key)}), true
		}
	}
	return out, nil
}

// diff returns what to delete and what to add to come from have to want; both are sorted.
func diff(have, want []element) (del, add []element) {
	for i, j := 0, 0; i < len(have) || j < len(want); {
		c := 0
		switch {
		case i == len(have):
			c = 1
		case j == len(want):
			c = -1
		default:
			c = have[i].compare(want[j])
		}
		switch {
		case c < 0:
			del = append(del, have[i])
			i++
		case c > 0:
			add = append(add, want[j])
			j++
		default:
			i++
			j++
		}
	}
	return del, add
}
