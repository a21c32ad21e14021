package cni

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/ravencni/raven/pkg/datapath/accel/attach"
	"github.com/ravencni/raven/pkg/datapath/accel/pintree"
)

// objects are the daemon's pinned objects, opened.
type objects struct {
	tree             string
	attacher         *attach.Attacher
	program          *ebpf.Program
	id               ebpf.ProgramID
	pods, fib4, fib6 *ebpf.Map
}

// open opens what is pinned under root. It is *unable where there is nothing that this plugin knows.
func open(root string, tcx bool) (_ *objects, err error) {
	tree := pintree.TreePath(root)
	if _, err := os.Stat(tree); err != nil {
		return nil, absent(root, err)
	}
	o := &objects{tree: tree, attacher: &attach.Attacher{Root: tree, Clsact: !tcx}}
	defer func() {
		if err != nil {
			o.close()
		}
	}()
	if o.program, err = ebpf.LoadPinnedProgram(filepath.Join(tree, pintree.FromPod), nil); err != nil {
		return nil, fmt.Errorf("open the pinned program %s: %w", pintree.FromPod, err)
	}
	info, err := o.program.Info()
	if err != nil {
		return nil, fmt.Errorf("read the pinned program %s: %w", pintree.FromPod, err)
	}
	o.id, _ = info.ID()
	for _, m := range []struct {
		name       string
		to         **ebpf.Map
		key, value uintptr // bytes
	}{
		{pintree.Pods, &o.pods, unsafe.Sizeof(pintree.Address{}), unsafe.Sizeof(pintree.PodEntry{})},
		{pintree.Fib4, &o.fib4, unsafe.Sizeof(pintree.Fib4Key{}), unsafe.Sizeof(pintree.FibEntry{})},
		{pintree.Fib6, &o.fib6, unsafe.Sizeof(pintree.Fib6Key{}), unsafe.Sizeof(pintree.FibEntry{})},
	} {
		opened, err := ebpf.LoadPinnedMap(filepath.Join(tree, m.name), nil)
		if err != nil {
			return nil, fmt.Errorf("open the pinned map %s: %w", m.name, err)
		}
		*m.to = opened
		if opened.KeySize() != uint32(m.key) || opened.ValueSize() != uint32(m.value) {
			return nil, unablef("the pinned map %s is of another layout than this plugin's", m.name)
		}
	}
	return o, nil
}

// absent says why there is no tree.
func absent(root string, err error) error {
	if !errors.Is(err, fs.ErrNotExist) {
		return unablef("the pinned objects cannot be looked at: %v", err)
	}
	entries, err := os.ReadDir(root)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return unablef("the pinned objects cannot be looked at: %v", err)
	}
	var others []string
	for _, e := range entries {
		if _, ok := pintree.ParseTree(e.Name()); ok {
			others = append(others, e.Name())
		}
	}
	if len(others) > 0 {
		return unablef("the agent's pinned objects are of version %s, and this plugin knows v%d", strings.Join(others, ", "), pintree.ABI)
	}
	return unablef("nothing is pinned at %s: the agent did not run since the node's start, or does not accelerate", root)
}

func (o *objects) close() {
	_ = o.program.Close()
	for _, m := range []*ebpf.Map{o.pods, o.fib4, o.fib6} {
		_ = m.Close()
	}
}

// local is true for addresses in this node's pod prefixes, as the FIB has them.
func (o *objects) local(addr netip.Addr) bool {
	var entry pintree.FibEntry
	var err error
	if addr.Is4() {
		err = o.fib4.Lookup(pintree.Fib4Key{Prefixlen: 32, Addr: addr.As4()}, &entry)
	} else {
		err = o.fib6.Lookup(pintree.Fib6Key{Prefixlen: 128, Addr: addr.As16()}, &entry)
	}
	return err == nil && entry.Scope == pintree.ScopeLocal
}

// entry reads raven_pods.
func (o *objects) entry(addr netip.Addr) (e pintree.PodEntry, there bool, err error) {
	err = o.pods.Lookup(pintree.AddressOf(addr), &e)
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return e, false, nil
	}
	if err != nil {
		return e, false, fmt.Errorf("look up %s in the map of pods: %w", addr, err)
	}
	return e, true, nil
}

// entries reads all of raven_pods.
func (o *objects) entries() (map[netip.Addr]pintree.PodEntry, error) {
	all := make(map[netip.Addr]pintree.PodEntry)
	var key pintree.Address
	var value pintree.PodEntry
	list := o.pods.Iterate()
	for list.Next(&key, &value) {
		all[pintree.AddrOf(key)] = value
	}
	// A map that changes all the time is read as far as it goes: who adds to it meanwhile is not stale.
	if err := list.Err(); err != nil && !errors.Is(err, ebpf.ErrIterationAborted) {
		return nil, fmt.Errorf("read the map of pods: %w", err)
	}
	return all, nil
}

// deleteEntry removes an address, unless somebody wrote another entry there since it was read.
func (o *objects) deleteEntry(addr netip.Addr, was pintree.PodEntry) error {
	if now, there, err := o.entry(addr); err != nil || !there || now != was {
		return err
	}
	if err := o.pods.Delete(pintree.AddressOf(addr)); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("remove %s from the map of pods: %w", addr, err)
	}
	return nil
}

// deleteEntriesOf removes the entries of a device but those of addrs.
func (o *objects) deleteEntriesOf(index int, but ...netip.Addr) error {
	all, err := o.entries()
	errs := []error{err}
	for addr, e := range all {
		if int(e.Ifindex) == index && !slices.Contains(but, addr) {
			errs = append(errs, o.deleteEntry(addr, e))
		}
	}
	return errors.Join(errs...)
}

// hook is where the program of a device is.
func hook(index int) attach.Hook { return attach.Hook{Program: pintree.FromPod, Index: index} }

// stands says whether the tree is still there: the agent's cleanup may remove it at any time.
func (o *objects) stands() bool {
	_, err := os.Lstat(filepath.Join(o.tree, pintree.FromPod))
	return err == nil
}

// undo removes what was put into a tree that had been removed meanwhile.
func (o *objects) undo(index int) {
	_ = os.Remove(attach.LinkPath(o.tree, hook(index)))
	for _, folder := range []string{filepath.Join(o.tree, attach.LinksFolder), o.tree, filepath.Dir(o.tree)} {
		_ = unix.Rmdir(folder) // fails where something is in it, and that is right
	}
}
