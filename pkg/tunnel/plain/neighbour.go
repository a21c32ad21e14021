package plain

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ravencni/raven/pkg/topology"
	"github.com/ravencni/raven/pkg/tunnel/link"
)

// entry is one permanent row of the FDB (family AF_BRIDGE: MAC -> outer address) or of the neighbour tables
// (address -> MAC).
type entry struct {
	family int
	ip     netip.Addr
	mac    mac
}

type mac [6]byte

func (m mac) String() string { return net.HardwareAddr(m[:]).String() }

// key is what the kernel keeps one row of: the FDB one per unicast MAC, the others one per address.
func (e entry) key() entry {
	if e.family == unix.AF_BRIDGE {
		return entry{family: e.family, mac: e.mac}
	}
	return entry{family: e.family, ip: e.ip}
}

func (e entry) String() string {
	if e.family == unix.AF_BRIDGE {
		return fmt.Sprintf("FDB entry %s dst %s", e.mac, e.ip)
	}
	return fmt.Sprintf("neighbour %s lladdr %s", e.ip, e.mac)
}

// entriesOf lists what a peer needs: frames to its MAC go to its outer address, and its next-hop addresses, the node's
// own for IPv4 prefixes and the link-local one for IPv6 prefixes, are at that MAC.
func entriesOf(p peer) []entry {
	mac := mac(p.mac)
	entries := []entry{
		{unix.AF_BRIDGE, p.outer, mac},
		{unix.AF_INET6, topology.LinkLocalFromMAC(p.mac), mac},
	}
	if p.underlay.Is4() {
		entries = append(entries, entry{unix.AF_INET, p.underlay, mac})
	}
	return entries
}

// applyNeighbours brings the permanent entries of l to what peers need and returns the number of writes.
func applyNeighbours(l netlink.Link, peers []peer) (changes int, err error) {
	name := l.Attrs().Name
	wanted := map[entry]peer{}
	taken := map[entry]bool{} // keys of wanted
	for _, p := range peers {
		if p.err == nil {
			for _, e := range entriesOf(p) {
				wanted[e], taken[e.key()] = p, true
			}
		}
	}
	have, err := permanentEntries(l)
	if err != nil {
		return 0, fmt.Errorf("list neighbours on %s: %w", name, err)
	}
	var errs []error
	for e, p := range wanted {
		if _, there := have[e]; there {
			continue
		}
		if err := netlink.NeighSet(e.netlink(l)); err != nil { // replaces what the key had
			errs = append(errs, fmt.Errorf("set %v on %s for region %s (node %s): %w", e, name, p.region, p.node, err))
			continue
		}
		changes++
	}
	for e, n := range have {
		if taken[e.key()] {
			continue // as planned, or replaced just now
		}
		if err := netlink.NeighDel(&n); err != nil && !errors.Is(err, unix.ENOENT) {
			errs = append(errs, fmt.Errorf("remove %v from %s: %w", e, name, err))
			continue
		}
		changes++
	}
	return changes, errors.Join(errs...)
}

// permanentEntries lists the rows of l that somebody configured; the others the kernel has learned and may forget.
func permanentEntries(l netlink.Link) (map[entry]netlink.Neigh, error) {
	entries := map[entry]netlink.Neigh{}
	for _, family := range []int{unix.AF_BRIDGE, unix.AF_INET, unix.AF_INET6} {
		rows, err := link.Undisturbed(func() ([]netlink.Neigh, error) { return netlink.NeighList(l.Attrs().Index, family) })
		if err != nil {
			return nil, err
		}
		for _, n := range rows {
			ip, ok := netip.AddrFromSlice(n.IP)
			if ok && n.State&netlink.NUD_PERMANENT != 0 && len(n.HardwareAddr) == len(mac{}) {
				n.Family = family
				entries[entry{family, ip.Unmap(), mac(n.HardwareAddr)}] = n
			}
		}
	}
	return entries, nil
}

func (e entry) netlink(l netlink.Link) *netlink.Neigh {
	n := &netlink.Neigh{
		LinkIndex: l.Attrs().Index, Family: e.family, State: netlink.NUD_PERMANENT,
		IP: e.ip.AsSlice(), HardwareAddr: e.mac[:],
	}
	if e.family == unix.AF_BRIDGE {
		n.Flags = netlink.NTF_SELF
	}
	return n
}
