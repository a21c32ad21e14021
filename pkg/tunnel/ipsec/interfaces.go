package ipsec

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ravencni/raven/pkg/tunnel/link"
)

const (
	// firstIfID is the if_id of the XFRM interface number 0 ("rv" in ASCII and 16 bits for the number): high, since others
	// begin to count at 1.
	firstIfID = 0x72760000
	// mostInterfaces is how many numbers there are for peers.
	mostInterfaces = 4096
	// xfrmKind is the link type of XFRM interfaces.
	xfrmKind = "xfrm"
)

// peerInterface is the XFRM interface that leads to a peer. The kernel keeps its peer's name as the device's alias, so
// that the numbers outlive every process.
type peerInterface struct {
	name   string
	index  int
	number uint32
	peer   string
}

func (i peerInterface) ifID() uint32 { return firstIfID + i.number }

// baseName is a device's name without the number at its end.
func baseName(device string) string { return strings.TrimRight(device, "0123456789") }

// listInterfaces lists the XFRM interfaces of ours whose names begin like device's, by number, with the names that
// devices of others occupy.
func listInterfaces(device string) (ours []peerInterface, taken map[string]bool, err error) {
	links, err := link.Undisturbed(netlink.LinkList)
	if err != nil {
		return nil, nil, fmt.Errorf("list the XFRM interfaces: %w", err)
	}
	taken = map[string]bool{}
	for _, l := range links {
		a := l.Attrs()
		digits, named := strings.CutPrefix(a.Name, baseName(device))
		if !named {
			continue
		}
		x, isXFRM := l.(*netlink.Xfrmi)
		n, err := strconv.ParseUint(digits, 10, 16)
		if err != nil || !isXFRM || x.Ifid != firstIfID+uint32(n) {
			taken[a.Name] = true
			continue
		}
		ours = append(ours, peerInterface{name: a.Name, index: a.Index, number: uint32(n), peer: a.Alias})
	}
	slices.SortFunc(ours, func(a, b peerInterface) int { return int(a.number) - int(b.number) })
	return ours, taken, nil
}

// planInterfaces decides which interfaces stay, are made and go, so that each peer has one. A peer keeps its number for as
// long as it is wanted; a new one gets the lowest that is free.
func planInterfaces(device string, have []peerInterface, taken map[string]bool, peers []string) (keep, add, gone []peerInterface) {
	wanted := map[string]bool{}
	for _, p := range peers {
		wanted[p] = true
	}
	used := map[uint32]bool{}
	for _, i := range have {
		used[i.number] = true
		if wanted[i.peer] {
			delete(wanted, i.peer)
			keep = append(keep, i)
		} else {
			gone = append(gone, i)
		}
	}
	next := uint32(0)
	for _, p := range peers {
		if !wanted[p] {
			continue
		}
		delete(wanted, p)
		for used[next] || taken[baseName(device)+strconv.Itoa(int(next))] {
			next++
		}
		used[next] = true
		if next < mostInterfaces {
			add = append(add, peerInterface{name: baseName(device) + strconv.Itoa(int(next)), number: next, peer: p})
		}
	}
	return keep, add, gone
}

// create makes the interface. One without its alias, should this process die here, is nobody's, and goes in the next pass.
func (i peerInterface) create() error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = i.name
	l := &netlink.Xfrmi{LinkAttrs: attrs, Ifid: i.ifID()}
	err := netlink.LinkAdd(l)
	if errors.Is(err, unix.EEXIST) {
		err = fmt.Errorf("%w: another XFRM interface has the if_id %#x; end what made it (ip -d link show type xfrm)", err, i.ifID())
	}
	if err != nil {
		return fmt.Errorf("make the XFRM interface %s to %s: %w", i.name, i.peer, err)
	}
	if err := netlink.LinkSetAlias(l, i.peer); err != nil { // the kernel takes none while it makes a device
		return errors.Join(fmt.Errorf("note %s as the peer of the XFRM interface %s: %w", i.peer, i.name, err), netlink.LinkDel(l))
	}
	return nil
}

// remove deletes the interface, and the states and policies that only it could use.
func (i peerInterface) remove() (changes int, err error) {
	changes, err = link.Delete(i.name, xfrmKind)
	n, sweepErr := sweep(i.ifID())
	return changes + n, errors.Join(err, sweepErr)
}

// removeInterfaces deletes all XFRM interfaces of ours.
func removeInterfaces(device string) (changes int, err error) {
	have, _, err := listInterfaces(device)
	errs := []error{err}
	for _, i := range have {
		n, err := i.remove()
		changes += n
		errs = append(errs, err)
	}
	return changes, errors.Join(errs...)
}
