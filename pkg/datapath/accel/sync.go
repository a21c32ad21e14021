package accel

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
)

// batch is how many entries one system call reads or writes.
const batch = 4096

// readMap returns all entries of a map. An array has all its entries at all times; those that are all zero are left out.
func readMap[K comparable, V comparable](m *ebpf.Map) (map[K]V, error) {
	out := make(map[K]V)
	var zero V
	array := m.Type() == ebpf.Array
	add := func(k K, v V) {
		if !array || v != zero {
			out[k] = v
		}
	}
	var cursor ebpf.MapBatchCursor
	size := min(batch, m.MaxEntries())
	keys, values := make([]K, size), make([]V, size)
	for {
		n, err := m.BatchLookup(&cursor, keys, values, nil)
		for i := range n {
			add(keys[i], values[i])
		}
		switch {
		case err == nil:
		case errors.Is(err, ebpf.ErrKeyNotExist):
			return out, nil
		case errors.Is(err, ebpf.ErrNotSupported):
			var key K
			var value V
			entries := m.Iterate()
			for entries.Next(&key, &value) {
				add(key, value)
			}
			if err := entries.Err(); err != nil {
				return nil, fmt.Errorf("read the map %s: %w", nameOf(m), err)
			}
			return out, nil
		default:
			return nil, fmt.Errorf("read the map %s: %w", nameOf(m), err)
		}
	}
}

// difference is what turns one set of entries into another.
type difference[K comparable, V comparable] struct {
	putKeys   []K
	putValues []V
	deletions []K
}

func diff[K comparable, V comparable](have, want map[K]V) difference[K, V] {
	var d difference[K, V]
	for k, v := range want {
		if old, ok := have[k]; !ok || old != v {
			d.putKeys, d.putValues = append(d.putKeys, k), append(d.putValues, v)
		}
	}
	for k := range have {
		if _, ok := want[k]; !ok {
			d.deletions = append(d.deletions, k)
		}
	}
	return d
}

// put writes new and changed entries and returns how many it wrote. What does not fit is left out, and an error.
func (d difference[K, V]) put(m *ebpf.Map) (int, error) {
	var written int
	for written < len(d.putKeys) {
		end := min(written+batch, len(d.putKeys))
		n, err := m.BatchUpdate(d.putKeys[written:end], d.putValues[written:end], nil)
		if errors.Is(err, ebpf.ErrNotSupported) {
			if err = m.Put(d.putKeys[written], d.putValues[written]); err == nil {
				n = 1
			}
		}
		written += n
		if err != nil {
			return written, fmt.Errorf("write entry %d of %d new ones to the map %s, which holds at most %d: %w",
				written+1, len(d.putKeys), nameOf(m), m.MaxEntries(), err)
		}
	}
	return written, nil
}

// delete removes entries and returns how many it removed. One that is gone already is as good.
func (d difference[K, V]) delete(m *ebpf.Map) (int, error) {
	var removed int
	for _, k := range d.deletions {
		switch err := m.Delete(k); {
		case err == nil:
			removed++
		case !errors.Is(err, ebpf.ErrKeyNotExist):
			return removed, fmt.Errorf("remove an entry from the map %s: %w", nameOf(m), err)
		}
	}
	return removed, nil
}

func nameOf(m *ebpf.Map) string {
	info, err := m.Info()
	if err != nil {
		return m.String()
	}
	return info.Name
}
