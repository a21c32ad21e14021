package attach

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// ensureFilter makes our filter in the device's clsact qdisc run program. A filter of the same handle and priority is
// replaced by the kernel in one step.
func (a *Attacher) ensureFilter(program *ebpf.Program, hook Hook, in *Inspection) (bool, error) {
	info, err := program.Info()
	if err != nil {
		return false, fmt.Errorf("read the program's id: %w", err)
	}
	id, _ := info.ID()
	state := in.state(hook.Index)
	if state.ours == id {
		return false, nil
	}
	if state.hooks == "" {
		// The marker comes first: a qdisc without one would never be removed.
		if err := os.MkdirAll(a.marker(hook.Index), 0o700); err != nil {
			return false, fmt.Errorf("mark the clsact qdisc as ours: %w", err)
		}
		err := netlink.QdiscAdd(clsact(hook.Index))
		if errors.Is(err, unix.EEXIST) {
			// Somebody was faster: theirs.
			err = os.Remove(a.marker(hook.Index))
		}
		if err != nil {
			return false, fmt.Errorf("add a clsact qdisc: %w", err)
		}
		state.hooks = "clsact"
	}
	f := ourFilter(hook.Index)
	f.Fd, f.Name, f.DirectAction = program.FD(), hook.Program, true
	if err := netlink.FilterReplace(f); err != nil {
		return false, fmt.Errorf("add the filter: %w", err)
	}
	state.ours, state.name = id, hook.Program
	return true, nil
}

// removeFilter removes our filter from a device, and the clsact qdisc where we made it and nobody else uses it.
func (a *Attacher) removeFilter(index int, in *Inspection) (bool, error) {
	state := in.tc[index]
	if state == nil || state.ours == 0 {
		return false, nil
	}
	if err := netlink.FilterDel(ourFilter(index)); err != nil && !gone(err) {
		return false, fmt.Errorf("remove Raven's filter from device %d: %w", index, err)
	}
	state.ours = 0
	if _, err := os.Lstat(a.marker(index)); errors.Is(err, os.ErrNotExist) {
		return true, nil
	} else if err != nil {
		return true, fmt.Errorf("look for the clsact marker of device %d: %w", index, err)
	}
	// Ask again: others may have come since the inspection.
	now := &tcState{hooks: state.hooks}
	if err := in.filters(index, now); err != nil {
		return true, err
	}
	if now.ours == 0 && now.ingress == "" && now.egress == "" {
		if err := netlink.QdiscDel(clsact(index)); err != nil && !gone(err) {
			return true, fmt.Errorf("remove the clsact qdisc that Raven made on device %d: %w", index, err)
		}
		state.hooks = ""
	}
	if err := os.Remove(a.marker(index)); err != nil {
		return true, fmt.Errorf("remove the clsact marker of device %d: %w", index, err)
	}
	return true, nil
}

func clsact(index int) *netlink.Clsact {
	return &netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT,
	}}
}

func ourFilter(index int) *netlink.BpfFilter {
	return &netlink.BpfFilter{FilterAttrs: netlink.FilterAttrs{
		LinkIndex: index, Parent: netlink.HANDLE_MIN_INGRESS, Handle: FilterHandle, Priority: FilterPriority,
		Protocol: unix.ETH_P_ALL,
	}}
}

// gone is true for the kernel's answers about a device, a qdisc or a filter that is not there any more.
func gone(err error) bool {
	return errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EINVAL)
}

// ourFilters returns where our filters are, sorted by device.
func (in *Inspection) ourFilters() []Hook {
	var found []Hook
	for index, state := range in.tc {
		if state.ours != 0 {
			found = append(found, Hook{state.name, index})
		}
	}
	slices.SortFunc(found, func(a, b Hook) int { return cmp.Compare(a.Index, b.Index) })
	return found
}
