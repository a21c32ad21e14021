package overlay

import (
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/ravencni/raven/pkg/datapath"
	"github.com/ravencni/raven/pkg/datapath/rtnl"
	"github.com/ravencni/raven/pkg/topology"
)

// applyNeighbours diffs neighbours of both families and the forwarding database of device against the overlay's
// neighbours.
func applyNeighbours(device int, overlay *topology.Overlay, ipv6 bool) (changes int, err error) {
	c, err := rtnl.Open()
	if err != nil {
		return 0, err
	}
	defer c.Close() // every write was answered

	var writes []rtnl.Request
	var errs []error
	families := []uint8{unix.AF_INET, unix.AF_BRIDGE}
	if ipv6 {
		families = append(families, unix.AF_INET6)
	}
	for _, family := range families {
		want, err := entries(family, device, overlay)
		errs = append(errs, err)
		have, err := c.Neighbours(family, device)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if family == unix.AF_BRIDGE {
			writes = append(writes, diffForwarding(want, have)...)
		} else {
			writes = append(writes, diffNeighbours(want, have)...)
		}
	}
	for i, err := range c.Write(writes) {
		// An entry to delete may have gone by itself meanwhile.
		if writes[i].Type == unix.RTM_DELNEIGH && errors.Is(err, unix.ENOENT) {
			continue
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s on %s: %w", rtnl.Describe(writes[i]), datapath.OverlayDevice, err))
			continue
		}
		changes++
	}
	return changes, errors.Join(errs...)
}

// entries lists the wanted entries of one family: node IP -> MAC for IPv4, link-local -> MAC for IPv6, and MAC ->
// underlay address for the forwarding database.
func entries(family uint8, device int, overlay *topology.Overlay) (want []rtnl.Neighbour, err error) {
	var errs []error
	for _, n := range overlay.Neighbours {
		underlay := n.Underlay.Unmap()
		if len(n.MAC) != len(rtnl.MAC{}) || !underlay.IsValid() {
			errs = append(errs, fmt.Errorf("skip neighbour %s: it has address %s and MAC %q", n.Node, n.Underlay, n.MAC))
			continue
		}
		e := rtnl.Neighbour{Family: family, Device: device, State: unix.NUD_PERMANENT, MAC: rtnl.MAC(n.MAC)}
		switch family {
		case unix.AF_INET:
			if !underlay.Is4() {
				continue // its IPv4 prefixes go via the IPv6 link-local
			}
			e.Addr = underlay
		case unix.AF_INET6:
			e.Addr = n.LinkLocal6()
		default:
			if underlay.Is4() != overlay.Underlay.Unmap().Is4() {
				errs = append(errs, fmt.Errorf("skip neighbour %s: its address %s is not of the family of ours, %s, and one "+
					"VXLAN device sends in one family", n.Node, underlay, overlay.Underlay))
				continue
			}
			e.Addr = underlay
		}
		want = append(want, e)
	}
	if family != unix.AF_INET {
		return want, errors.Join(errs...)
	}
	return want, nil // the pass for the forwarding database reports what is bad
}

// diffNeighbours leaves alone what the kernel made by itself (multicast, incomplete and the like): only permanent
// entries are somebody's will.
func diffNeighbours(want []rtnl.Neighbour, have []rtnl.RawNeighbour) (writes []rtnl.Request) {
	wanted := make(map[netip.Addr]rtnl.Neighbour, len(want))
	for _, w := range want {
		wanted[w.Addr] = w
	}
	present := make(map[netip.Addr]bool, len(have))
	for _, h := range have {
		w, ok := wanted[h.Addr]
		switch {
		case ok && w == h.Neighbour:
			present[h.Addr] = true
		case !ok && h.State&unix.NUD_PERMANENT != 0:
			writes = append(writes, rtnl.Request{Type: unix.RTM_DELNEIGH, Payload: h.Payload})
		}
	}
	for _, w := range want {
		if !present[w.Addr] {
			writes = append(writes, set(w))
			present[w.Addr] = true
		}
	}
	return writes
}

// diffForwarding knows that one MAC may have several remotes: a wrong first one is replaced in place, further ones are
// deleted.
func diffForwarding(want []rtnl.Neighbour, have []rtnl.RawNeighbour) (writes []rtnl.Request) {
	remotes := make(map[rtnl.MAC][]rtnl.RawNeighbour, len(have))
	for _, h := range have {
		remotes[h.MAC] = append(remotes[h.MAC], h)
	}
	for _, w := range want {
		have, listed := remotes[w.MAC]
		delete(remotes, w.MAC)
		right := false
		for _, h := range have {
			right = right || h.Neighbour == w
		}
		for i, h := range have {
			if h.Neighbour != w && (right || i > 0) {
				writes = append(writes, rtnl.Request{Type: unix.RTM_DELNEIGH, Payload: h.Payload})
			}
		}
		if !listed || !right {
			writes = append(writes, set(w))
		}
	}
	for _, strangers := range remotes {
		for _, h := range strangers {
			writes = append(writes, rtnl.Request{Type: unix.RTM_DELNEIGH, Payload: h.Payload})
		}
	}
	return writes
}

func set(n rtnl.Neighbour) rtnl.Request {
	return rtnl.Request{
		Type: unix.RTM_NEWNEIGH, Flags: unix.NLM_F_CREATE | unix.NLM_F_REPLACE,
		Payload: n.Payload(datapath.RouteProtocol),
	}
}
