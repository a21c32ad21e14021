package ipsec

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ravencni/raven/pkg/tunnel/link"
)

// states lists the kernel's XFRM states that have an if_id of ours, by if_id. All others are somebody else's.
func states() (map[uint32][]netlink.XfrmState, error) {
	all, err := link.Undisturbed(func() ([]netlink.XfrmState, error) { return netlink.XfrmStateList(netlink.FAMILY_ALL) })
	if err != nil {
		return nil, fmt.Errorf("list XFRM states: %w", err)
	}
	ours := map[uint32][]netlink.XfrmState{}
	for _, s := range all {
		if id := uint32(s.Ifid); id >= firstIfID && id < firstIfID+mostInterfaces {
			ours[id] = append(ours[id], s)
		}
	}
	return ours, nil
}

// endStates deletes states; that one has gone meanwhile is no error.
func endStates(all []netlink.XfrmState) (changes int, err error) {
	var errs []error
	for i := range all {
		switch err := netlink.XfrmStateDel(&all[i]); {
		case err == nil:
			changes++
		case !errors.Is(err, unix.ESRCH):
			errs = append(errs, fmt.Errorf("delete the XFRM state with SPI %#x: %w", uint32(all[i].Spi), err))
		}
	}
	return changes, errors.Join(errs...)
}

// sweep deletes the states and policies of one if_id, and of no other.
func sweep(ifID uint32) (changes int, err error) {
	all, err := states()
	if err != nil {
		return 0, err
	}
	changes, err = endStates(all[ifID])
	errs := []error{err}
	policies, err := link.Undisturbed(func() ([]netlink.XfrmPolicy, error) { return netlink.XfrmPolicyList(netlink.FAMILY_ALL) })
	if err != nil {
		return changes, errors.Join(append(errs, fmt.Errorf("list XFRM policies: %w", err))...)
	}
	for i := range policies {
		if uint32(policies[i].Ifid) != ifID {
			continue
		}
		switch err := netlink.XfrmPolicyDel(&policies[i]); {
		case err == nil:
			changes++
		case !errors.Is(err, unix.ENOENT):
			errs = append(errs, fmt.Errorf("delete an XFRM policy of if_id %#x: %w", ifID, err))
		}
	}
	return changes, errors.Join(errs...)
}
