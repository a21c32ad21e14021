package accel

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"

	"github.com/ravencni/raven/bpf"
	"github.com/ravencni/raven/pkg/datapath/accel/pintree"
)

// Names of the programs, which are also those of their pins.
const (
	FromPod      = pintree.FromPod
	FromOverlay  = "raven_from_overlay"
	FromTunnel   = "raven_from_tunnel"
	FromUnderlay = "raven_from_underlay"
	XDPUnderlay  = "raven_xdp_underlay"
)

// specOf gives the compiled object of a program.
var specOf = map[string]func() (*ebpf.CollectionSpec, error){
	FromPod:      bpf.LoadFromPod,
	FromOverlay:  bpf.LoadFromOverlay,
	FromTunnel:   bpf.LoadFromTunnel,
	FromUnderlay: bpf.LoadFromUnderlay,
	XDPUnderlay:  bpf.LoadXdpUnderlay,
}

// loadProgram loads a program with constants set, and keeps the pinned one where that is the same. It reports whether
// the pin changed. The caller closes the program; the pin keeps it.
func loadProgram(tree string, w wantedProgram, specOf map[string]func() (*ebpf.CollectionSpec, error), set mapSet,
	types *btf.Cache) (_ *ebpf.Program, changed bool, err error) {
	name := w.name
	spec, err := specOf[name]()
	if err != nil {
		return nil, false, fmt.Errorf("read the compiled program %s: %w", name, err)
	}
	for constant, value := range w.constants {
		v := spec.Variables[constant]
		if v == nil {
			return nil, false, fmt.Errorf("the compiled program %s has no constant %s", name, constant)
		}
		if err := v.Set(value); err != nil {
			return nil, false, fmt.Errorf("set %s of the program %s: %w", constant, name, err)
		}
	}
	shared := make(map[string]*ebpf.Map)
	for m := range spec.Maps {
		if set[m] != nil {
			shared[m] = set[m]
		}
	}
	collection, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{MapReplacements: shared, Cache: types})
	if err != nil {
		return nil, false, fmt.Errorf("load the program %s: %w", name, err)
	}
	defer collection.Close()
	fresh := collection.DetachProgram(name)
	if fresh == nil {
		return nil, false, fmt.Errorf("the compiled object of %s holds no program of that name", name)
	}
	return pinProgram(filepath.Join(tree, name), fresh)
}

// pinProgram makes path lead to fresh, unless the program there is the same: then it is returned in place of fresh. A
// reader of path finds one or the other at any time.
func pinProgram(path string, fresh *ebpf.Program) (_ *ebpf.Program, changed bool, err error) {
	defer func() {
		if err != nil {
			err = errors.Join(err, fresh.Close())
		}
	}()
	pinned, err := ebpf.LoadPinnedProgram(path, nil)
	if err == nil {
		same, err := sameProgram(pinned, fresh)
		if err != nil {
			return nil, false, errors.Join(fmt.Errorf("compare the pinned program %s: %w", path, err), pinned.Close())
		}
		if same {
			return pinned, false, fresh.Close()
		}
		if err := pinned.Close(); err != nil {
			return nil, false, fmt.Errorf("close the pinned program %s: %w", path, err)
		}
	} else if !errors.Is(err, os.ErrNotExist) {
		return nil, false, fmt.Errorf("open the pinned program %s: %w", path, err)
	}
	next := path + "_next"
	if err := os.Remove(next); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, false, fmt.Errorf("remove what an interrupted start left at %s: %w", next, err)
	}
	if err := fresh.Pin(next); err != nil {
		return nil, false, fmt.Errorf("pin the program at %s: %w", next, err)
	}
	if err := os.Rename(next, path); err != nil {
		return nil, false, fmt.Errorf("move the pinned program to %s: %w", path, err)
	}
	return fresh, true, nil
}

// sameProgram compares instructions (by the kernel's tag), maps, and constants.
func sameProgram(a, b *ebpf.Program) (bool, error) {
	ia, err := a.Info()
	if err != nil {
		return false, err
	}
	ib, err := b.Info()
	if err != nil {
		return false, err
	}
	if ia.Tag != ib.Tag || ia.Name != ib.Name {
		return false, nil
	}
	ma, _ := ia.MapIDs()
	mb, _ := ib.MapIDs()
	if len(ma) != len(mb) {
		return false, nil
	}
	// The order is that of use, so it is equal in equal programs. Constants live in a frozen map of one value, which each
	// load makes anew.
	for i := range ma {
		if ma[i] == mb[i] {
			continue
		}
		if same, err := sameConstants(ma[i], mb[i]); err != nil || !same {
			return false, err
		}
	}
	return true, nil
}

func sameConstants(a, b ebpf.MapID) (bool, error) {
	va, err := constantsOf(a)
	if err != nil {
		return false, err
	}
	vb, err := constantsOf(b)
	return va != nil && bytes.Equal(va, vb), err
}

// constantsOf returns the value of a map of constants, nil where the map is another kind.
func constantsOf(id ebpf.MapID) ([]byte, error) {
	m, err := ebpf.NewMapFromID(id)
	if err != nil {
		return nil, fmt.Errorf("open map %d: %w", id, err)
	}
	defer m.Close()
	info, err := m.Info()
	if err != nil {
		return nil, fmt.Errorf("read map %d: %w", id, err)
	}
	if !info.Frozen() || m.Type() != ebpf.Array {
		return nil, nil
	}
	value, err := m.LookupBytes(uint32(0))
	if err != nil {
		return nil, fmt.Errorf("read the constants in map %d: %w", id, err)
	}
	return value, nil
}

func programID(p *ebpf.Program) (ebpf.ProgramID, error) {
	info, err := p.Info()
	if err != nil {
		return 0, fmt.Errorf("read a program's id: %w", err)
	}
	id, _ := info.ID()
	return id, nil
}
