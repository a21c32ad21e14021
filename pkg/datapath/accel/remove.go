package accel

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/ravencni/raven/pkg/datapath/accel/attach"
	"github.com/ravencni/raven/pkg/datapath/accel/pintree"
	"github.com/ravencni/raven/pkg/datapath/rtnl"
)

// remove takes everything of ours out of the kernel: the switch first, so that every program passes packets from then
// on, then attachments, then pins. Nothing is written where nothing is left.
func (a *Applier) remove(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	a.pods, a.attachments = nil, nil
	a.slots = newSlots()
	errs := []error{a.unload(), a.switchOff()}

	conn, err := rtnl.Open()
	if err != nil {
		return errors.Join(append(errs, err)...)
	}
	defer conn.Close()
	in, err := attach.Inspect(conn, attach.HaveTCX(), nil)
	if err != nil {
		return errors.Join(append(errs, err)...)
	}
	trees, err := a.trees()
	errs = append(errs, err)
	// One tree's folder of attachments then speaks for all. It need not exist: clsact filters hold their programs.
	at := &attach.Attacher{Root: TreePath(a.options.PinRoot)}
	for _, tree := range trees {
		if tree != at.Root {
			errs = append(errs, at.Adopt(tree))
		}
	}
	hooks, err := at.Hooks()
	errs = append(errs, err)
	n, err := at.Retain(hooks, nil, in)
	a.stats.Attachments += uint64(n)
	errs = append(errs, err)
	// What is still attached must stay findable for the next attempt.
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if trees, err = a.trees(); err != nil {
		return err
	}
	for _, tree := range trees {
		if err := os.RemoveAll(tree); err != nil {
			errs = append(errs, fmt.Errorf("remove the pinned tree %s: %w", tree, err))
		}
		a.stats.Pins++
	}
	// It stays where others keep something in it.
	if err := os.Remove(a.options.PinRoot); err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, unix.ENOTEMPTY) {
		errs = append(errs, fmt.Errorf("remove the folder of pinned trees: %w", err))
	}
	return errors.Join(errs...)
}

// switchOff clears the pinned configuration.
func (a *Applier) switchOff() error {
	path := filepath.Join(TreePath(a.options.PinRoot), mapConfig)
	m, err := ebpf.LoadPinnedMap(path, nil)
	if err != nil {
		return nil // no map, no program that asks it; one of another kind is removed with the tree
	}
	defer m.Close()
	var c nodeConfig
	if err := m.Lookup(uint32(0), &c); err != nil || c == (nodeConfig{}) {
		return nil
	}
	if err := m.Put(uint32(0), nodeConfig{}); err != nil {
		return fmt.Errorf("switch acceleration off in %s: %w", path, err)
	}
	a.stats.MapUpdates++
	return nil
}

// trees lists the pinned trees of all ABI versions.
func (a *Applier) trees() ([]string, error) {
	entries, err := os.ReadDir(a.options.PinRoot)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list the pinned trees: %w", err)
	}
	var trees []string
	for _, e := range entries {
		if _, ok := pintree.ParseTree(e.Name()); ok {
			trees = append(trees, filepath.Join(a.options.PinRoot, e.Name()))
		}
	}
	return trees, nil
}

// unload lets go of maps and programs; the pins keep them.
func (a *Applier) unload() error {
	var errs []error
	for _, p := range a.programs {
		errs = append(errs, p.Close())
	}
	a.programs = nil
	errs = append(errs, a.maps.close())
	a.maps = nil
	return errors.Join(errs...)
}
