package accel

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
)

// mapSet holds the shared maps by name.
type mapSet map[string]*ebpf.Map

// errLayout says that the pinned tree was made by a build that forgot to raise the ABI number.
var errLayout = errors.New("the pinned objects are of another layout under the same ABI number " +
	"(they are removed and made anew; raven-agent --cleanup does so at once)")

// openMaps opens the pinned maps of a tree and makes those that are missing. It returns the number made. A map of
// another layout is errLayout: the programs that use it could not be replaced one by one.
func openMaps(tree string, specs map[string]*ebpf.MapSpec) (set mapSet, made int, err error) {
	set = make(mapSet)
	defer func() {
		if err != nil {
			err = errors.Join(err, set.close())
			set = nil
		}
	}()
	for _, name := range slices.Sorted(maps.Keys(specs)) {
		spec := specs[name].Copy()
		spec.Pinning = ebpf.PinNone // pinned below, with an error that names the path
		path := filepath.Join(tree, name)
		m, err := ebpf.LoadPinnedMap(path, nil)
		switch {
		case err == nil:
			set[name] = m
			if err := agree(spec, m); err != nil {
				return set, made, fmt.Errorf("%w: the map %s: %w", errLayout, path, err)
			}
		case errors.Is(err, os.ErrNotExist):
			if m, err = ebpf.NewMap(spec); err != nil {
				return set, made, fmt.Errorf("make the map %s: %w", name, err)
			}
			set[name] = m
			if err := m.Pin(path); err != nil {
				return set, made, fmt.Errorf("pin the map at %s: %w", path, err)
			}
			made++
		default:
			return set, made, fmt.Errorf("open the pinned map %s: %w", path, err)
		}
	}
	return set, made, nil
}

// agree compares a pinned map with what the programs expect, down to the names of fields.
func agree(spec *ebpf.MapSpec, m *ebpf.Map) error {
	if err := spec.Compatible(m); err != nil {
		return err
	}
	handle, err := m.Handle()
	if err != nil {
		return nil // some map types carry no types: sizes must do
	}
	defer handle.Close()
	types, err := handle.Spec(nil)
	if err != nil {
		return fmt.Errorf("read the types of the pinned map: %w", err)
	}
	for _, want := range []btf.Type{spec.Key, spec.Value} {
		name := want.TypeName()
		if name == "" {
			continue
		}
		got, err := types.AnyTypesByName(name)
		if err != nil {
			return fmt.Errorf("the pinned map has no type %s", name)
		}
		if !slices.ContainsFunc(got, func(t btf.Type) bool { return layout(t) == layout(want) }) {
			return fmt.Errorf("%s is %s in the pinned map and %s in the programs", name, layout(got[0]), layout(want))
		}
	}
	return nil
}

// layout spells out a type: names, sizes and offsets of fields, values of enums.
func layout(t btf.Type) string {
	switch t := btf.UnderlyingType(t).(type) {
	case *btf.Struct:
		s := fmt.Sprintf("struct %s[%d]{", t.Name, t.Size)
		for _, m := range t.Members {
			s += fmt.Sprintf("%s@%d:%s;", m.Name, m.Offset.Bytes(), layout(m.Type))
		}
		return s + "}"
	case *btf.Array:
		return fmt.Sprintf("[%d]%s", t.Nelems, layout(t.Type))
	case *btf.Enum:
		s := fmt.Sprintf("enum %s[%d]{", t.Name, t.Size)
		for _, v := range t.Values {
			s += fmt.Sprintf("%s=%d;", v.Name, v.Value)
		}
		return s + "}"
	case *btf.Int:
		return fmt.Sprintf("int[%d]", t.Size)
	default:
		return fmt.Sprintf("%T %s", t, t.TypeName())
	}
}

// keepPinned pins again what somebody unpinned by hand. It fails where a pin now leads to another map.
func (s mapSet) keepPinned(tree string) (made int, err error) {
	for _, name := range slices.Sorted(maps.Keys(s)) {
		path := filepath.Join(tree, name)
		pinned, err := ebpf.LoadPinnedMap(path, nil)
		if errors.Is(err, os.ErrNotExist) {
			// A clone, since a Map that believes to be pinned would try to move its pin.
			clone, err := s[name].Clone()
			if err == nil {
				err = errors.Join(clone.Pin(path), clone.Close())
			}
			if err != nil {
				return made, fmt.Errorf("pin the map at %s again: %w", path, err)
			}
			made++
			continue
		}
		if err != nil {
			return made, fmt.Errorf("open the pinned map %s: %w", path, err)
		}
		same, err := sameMap(pinned, s[name])
		if err := errors.Join(err, pinned.Close()); err != nil {
			return made, fmt.Errorf("compare the pinned map %s: %w", path, err)
		}
		if !same {
			return made, errReplaced
		}
	}
	return made, nil
}

// errReplaced says that somebody else put an object of theirs where ours was pinned.
var errReplaced = errors.New("the pinned object was replaced")

func sameMap(a, b *ebpf.Map) (bool, error) {
	ia, err := mapID(a)
	if err != nil {
		return false, err
	}
	ib, err := mapID(b)
	return ia == ib, err
}

func mapID(m *ebpf.Map) (ebpf.MapID, error) {
	info, err := m.Info()
	if err != nil {
		return 0, err
	}
	id, _ := info.ID()
	return id, nil
}

func (s mapSet) close() error {
	var errs []error
	for _, m := range s {
		errs = append(errs, m.Close())
	}
	return errors.Join(errs...)
}
