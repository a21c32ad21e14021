package attach

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// Attacher attaches programs in the network namespace of the calling thread and pins the attachments, so that they
// outlive the process.
type Attacher struct {
	// Root is the pinned tree of one ABI version, such as /sys/fs/bpf/raven/v4.
	Root string
	// Clsact makes tc programs clsact filters, for kernels without tcx.
	Clsact bool
}

// New returns an Attacher for the tree at root that uses what the kernel has.
func New(root string) *Attacher {
	return &Attacher{Root: root, Clsact: !HaveTCX()}
}

// TC makes sure that program runs at the tc ingress of the hook's device: nothing is written where it does, and a
// program of another version is replaced without a gap. It reports whether something was written.
func (a *Attacher) TC(program *ebpf.Program, hook Hook, in *Inspection) (changed bool, err error) {
	if a.Clsact {
		changed, err = a.ensureFilter(program, hook, in)
		if err != nil {
			return changed, fmt.Errorf("attach %s to device %d as a clsact filter: %w", hook.Program, hook.Index, err)
		}
		old, err := a.removeLink(hook)
		return changed || old, err
	}
	changed, err = a.ensureLink(program, hook, link.TCXType, func() (link.Link, error) {
		return link.AttachTCX(link.TCXOptions{Interface: hook.Index, Program: program, Attach: ebpf.AttachTCXIngress})
	})
	if err != nil {
		return changed, fmt.Errorf("attach %s to device %d by tcx: %w", hook.Program, hook.Index, err)
	}
	// What an older kernel or a forced clsact left behind would count each packet twice.
	old, err := a.removeFilter(hook.Index, in)
	return changed || old, err
}

// XDP makes sure that program runs at the XDP hook of the device, in the driver. It fails where the driver has no XDP,
// and where another program is attached.
func (a *Attacher) XDP(program *ebpf.Program, hook Hook) (changed bool, err error) {
	changed, err = a.ensureLink(program, hook, link.XDPType, func() (link.Link, error) {
		return link.AttachXDP(link.XDPOptions{Interface: hook.Index, Program: program, Flags: link.XDPDriverMode})
	})
	if err != nil {
		return changed, fmt.Errorf("attach %s to the driver of device %d: %w", hook.Program, hook.Index, err)
	}
	return changed, nil
}

func (a *Attacher) ensureLink(program *ebpf.Program, hook Hook, typ link.Type,
	attach func() (link.Link, error)) (bool, error) {
	path := hook.pin(a.Root)
	info, err := program.Info()
	if err != nil {
		return false, fmt.Errorf("read the program's id: %w", err)
	}
	id, _ := info.ID()

	// Another process, of the agent and the CNI plugin, may do the same at the same time: then one of them meets the
	// other's link, first unpinned and then pinned.
	const most, step = 500 * time.Millisecond, 2 * time.Millisecond
	enough := time.NewTimer(most)
	defer enough.Stop()
	tick := time.NewTicker(step)
	defer tick.Stop()
	for {
		there, changed, err := a.keepLink(path, program, id, hook, typ)
		if there || err != nil {
			return changed, err
		}
		changed, err = makeLink(path, attach)
		// The kernel also says so of a link whose pin somebody removed, which ends only some time after its last user.
		if !errors.Is(err, unix.EEXIST) {
			return changed, err
		}
		select {
		case <-enough.C:
			return false, err
		case <-tick.C:
		}
	}
}

// keepLink looks at the pinned link, and makes it run program. It reports whether there is one that serves.
func (a *Attacher) keepLink(path string, program *ebpf.Program, id ebpf.ProgramID, hook Hook, typ link.Type) (there, changed bool, err error) {
	l, err := link.LoadPinnedLink(path, nil)
	if errors.Is(err, os.ErrNotExist) {
		return false, false, nil
	}
	if err != nil {
		return false, false, fmt.Errorf("open the pinned link %s (remove the file to have it made anew): %w", path, err)
	}
	defer l.Close()
	state, err := l.Info()
	if err != nil {
		return false, false, fmt.Errorf("read the pinned link %s: %w", path, err)
	}
	if state.Type == typ && deviceOf(state) == hook.Index {
		if state.Program == id {
			return true, false, nil
		}
		return true, true, l.Update(program)
	}
	// The device went and came again under the same number, or somebody detached the link.
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return false, false, fmt.Errorf("unpin the dead link %s: %w", path, err)
	}
	return false, false, nil
}

// makeLink attaches and pins.
func makeLink(path string, attach func() (link.Link, error)) (bool, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return false, fmt.Errorf("make the folder of pinned links: %w", err)
	}
	l, err := attach()
	if err != nil {
		return false, err
	}
	// Closing releases our handle; the pin keeps the attachment.
	defer l.Close()
	if err := l.Pin(path); err != nil {
		return false, fmt.Errorf("pin the link at %s: %w", path, err)
	}
	return true, nil
}

// deviceOf is the index of the device that a link is attached to, 0 where the device has gone.
func deviceOf(info *link.Info) int {
	if tcx := info.TCX(); tcx != nil {
		return int(tcx.Ifindex)
	}
	if xdp := info.XDP(); xdp != nil {
		return int(xdp.Ifindex)
	}
	return 0
}

// removeLink detaches and unpins a hook's link, if there is one.
func (a *Attacher) removeLink(hook Hook) (bool, error) {
	path := hook.pin(a.Root)
	l, err := link.LoadPinnedLink(path, nil)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err == nil {
		// The kernel ends a link some time after its last user; detaching acts at once. It fails on a link whose device
		// has gone, which is as good.
		_ = l.Detach()
		err = l.Close()
	}
	return true, errors.Join(err, os.Remove(path))
}

// State is what a pinned link does.
type State struct {
	// Device is the index of the device that it is attached to; 0: none, since the device has gone or somebody detached
	// the link.
	Device int
	// Program that it runs.
	Program ebpf.ProgramID
}

// State reads the pinned link of a hook; the error is os.ErrNotExist where there is none.
func (a *Attacher) State(hook Hook) (State, error) {
	l, err := link.LoadPinnedLink(hook.pin(a.Root), nil)
	if err != nil {
		return State{}, fmt.Errorf("open the pinned link of device %d: %w", hook.Index, err)
	}
	defer l.Close()
	info, err := l.Info()
	if err != nil {
		return State{}, fmt.Errorf("read the pinned link of device %d: %w", hook.Index, err)
	}
	return State{Device: deviceOf(info), Program: info.Program}, nil
}

// Leave gives up the attachment of a device that is about to go, without the wait for the kernel that detaching costs.
// Without one it does nothing. in must know the device.
func (a *Attacher) Leave(hook Hook, in *Inspection) error {
	if err := os.Remove(hook.pin(a.Root)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("unpin the link of device %d: %w", hook.Index, err)
	}
	_, err := a.removeFilter(hook.Index, in)
	return err
}

// OnClsact is the id of our program in a device's clsact qdisc; 0: none.
func (in *Inspection) OnClsact(index int) ebpf.ProgramID {
	if state := in.tc[index]; state != nil {
		return state.ours
	}
	return 0
}

// ForgetMarkers removes the markers of clsact qdiscs whose devices have gone, which exists tells.
func (a *Attacher) ForgetMarkers(exists func(index int) bool) error {
	return a.sweepMarkers(exists)
}

// Hooks lists the pinned links, sorted. A tree that does not exist has none.
func (a *Attacher) Hooks() ([]Hook, error) {
	entries, err := os.ReadDir(filepath.Join(a.Root, LinksFolder))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("list pinned links: %w", err)
	}
	var hooks []Hook
	for _, e := range entries {
		if h, ok := parseHook(e.Name()); ok {
			hooks = append(hooks, h)
		}
	}
	return hooks, nil
}

// Programs returns the ids of the programs that the pinned links run.
func (a *Attacher) Programs() (map[ebpf.ProgramID]bool, error) {
	hooks, err := a.Hooks()
	if err != nil {
		return nil, err
	}
	ids := make(map[ebpf.ProgramID]bool)
	for _, h := range hooks {
		l, err := link.LoadPinnedLink(h.pin(a.Root), nil)
		if err != nil {
			continue // it went meanwhile, or is no link: then nothing runs by it
		}
		if info, err := l.Info(); err == nil {
			ids[info.Program] = true
		}
		if err := l.Close(); err != nil {
			return nil, fmt.Errorf("close the pinned link of device %d: %w", h.Index, err)
		}
	}
	return ids, nil
}

// Retain removes what is not in keep: of the links in listed, which Hooks returned, and of the filters that the Inspection
// saw, with clsact qdiscs of ours that are empty then. It returns the number of attachments removed. Both lists are older
// than keep, so that what the CNI plugin attaches meanwhile stays.
func (a *Attacher) Retain(listed []Hook, keep map[Hook]bool, in *Inspection) (removed int, err error) {
	var errs []error
	for _, h := range listed {
		if keep[h] {
			continue
		}
		ok, err := a.removeLink(h)
		if err != nil {
			errs = append(errs, fmt.Errorf("detach %s from device %d: %w", h.Program, h.Index, err))
		}
		if ok {
			removed++
		}
	}
	for _, h := range in.ourFilters() {
		if a.Clsact && keep[h] {
			continue
		}
		ok, err := a.removeFilter(h.Index, in)
		if err != nil {
			errs = append(errs, err)
		}
		if ok {
			removed++
		}
	}
	return removed, errors.Join(append(errs, a.sweepMarkers(func(index int) bool {
		return in.tc[index] != nil && in.tc[index].hooks != ""
	}))...)
}

// Adopt moves the pins of another ABI's tree into this one, where the programs are then replaced without a gap.
func (a *Attacher) Adopt(old string) error {
	var errs []error
	for _, folder := range []string{LinksFolder, ClsactFolder} {
		entries, err := os.ReadDir(filepath.Join(old, folder))
		if errors.Is(err, os.ErrNotExist) || len(entries) == 0 {
			continue
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if err := os.MkdirAll(filepath.Join(a.Root, folder), 0o700); err != nil {
			errs = append(errs, err)
			continue
		}
		for _, e := range entries {
			from, to := filepath.Join(old, folder, e.Name()), filepath.Join(a.Root, folder, e.Name())
			if _, err := os.Lstat(to); err == nil {
				// This version was faster, by the CNI plugin: unpinning the other ends it.
				errs = append(errs, os.Remove(from))
				continue
			}
			errs = append(errs, os.Rename(from, to))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("take over the attachments of %s: %w", old, err)
	}
	return nil
}

func (a *Attacher) marker(index int) string {
	return filepath.Join(a.Root, ClsactFolder, strconv.Itoa(index))
}

// sweepMarkers forgets the clsact qdiscs that went with their devices, or that others removed.
func (a *Attacher) sweepMarkers(stays func(index int) bool) error {
	entries, err := os.ReadDir(filepath.Join(a.Root, ClsactFolder))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list clsact markers: %w", err)
	}
	for _, e := range entries {
		index, err := strconv.Atoi(e.Name())
		if err == nil && stays(index) {
			continue
		}
		if err := os.Remove(filepath.Join(a.Root, ClsactFolder, e.Name())); err != nil {
			return fmt.Errorf("remove the clsact marker of device %s: %w", e.Name(), err)
		}
	}
	return nil
}

// RunsXDP is true where the hook's pinned link runs the program of this id.
func (a *Attacher) RunsXDP(name string, index int, program uint32) bool {
	l, err := link.LoadPinnedLink(Hook{name, index}.pin(a.Root), nil)
	if err != nil {
		return false
	}
	defer l.Close()
	info, err := l.Info()
	return err == nil && uint32(info.Program) == program
}
