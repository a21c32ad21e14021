package sysctl

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ravencni/raven/pkg/atomicfile"
)

// record is what sysctls.json holds: the values that stood before Raven's, oldest first.
type record struct {
	// Life names the boot and network namespace that the values belong to. Values of an earlier boot are void: the
	// host has set its own again since.
	Life    string  `json:"life"`
	Entries []entry `json:"entries"`
}

type entry struct {
	Key  string `json:"key"`
	Old  string `json:"old"`
	Ours string `json:"ours"`
	// Sides are the values of other keys that the kernel rewrote along with this one.
	Sides map[string]string `json:"sides,omitempty"`
}

// load reads the record; an absent file, and one of another life, gives an empty one.
func load(path string) (*record, error) {
	life, err := currentLife()
	if err != nil {
		return nil, err
	}
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return &record{Life: life}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the record of changed sysctls: %w", err)
	}
	var rec record
	if err := json.Unmarshal(b, &rec); err != nil {
		return nil, fmt.Errorf("read the record of changed sysctls %s: %w; look at the values in it, restore them by hand "+
			"and delete it", path, err)
	}
	if rec.Life != life {
		return &record{Life: life}, nil
	}
	return &rec, nil
}

func currentLife() (string, error) {
	boot, err := os.ReadFile(root + "/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("read the boot's identity: %w", err)
	}
	var st unix.Stat_t
	if err := unix.Stat("/proc/thread-self/ns/net", &st); err != nil {
		return "", fmt.Errorf("identify the network namespace: %w", err)
	}
	return fmt.Sprintf("%s/net:%d", strings.TrimSpace(string(boot)), st.Ino), nil
}

// save replaces the file as a whole, on disk before it returns; an empty record has no file.
func (r *record) save(path string) error {
	if len(r.Entries) == 0 {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove the record of changed sysctls: %w", err)
		}
		return nil
	}
	b, err := json.MarshalIndent(r, "", "  ")
	if err == nil {
		err = os.MkdirAll(filepath.Dir(path), 0o700)
	}
	if err == nil {
		err = atomicfile.Write(path, append(b, '\n'), 0o600)
	}
	if err != nil {
		return fmt.Errorf("write the record of changed sysctls, so none is changed: %w", err)
	}
	return nil
}

func (r *record) has(key string) bool {
	return slices.ContainsFunc(r.Entries, func(e entry) bool { return e.Key == key })
}

// remember adds the present value of a setting that is about to change; the first value recorded stays.
func (r *record) remember(s setting) error {
	if r.has(s.key) {
		return nil
	}
	old, err := Read(s.key)
	if err != nil {
		return err
	}
	e := entry{Key: s.key, Old: old, Ours: s.value}
	for _, side := range s.sides {
		value, err := Read(side)
		if errors.Is(err, fs.ErrNotExist) {
			continue // a device that went away meanwhile
		}
		if err != nil {
			return err
		}
		if e.Sides == nil {
			e.Sides = map[string]string{}
		}
		e.Sides[side] = value
	}
	r.Entries = append(r.Entries, e)
	return nil
}

// restoreExcept puts old values back, newest change first, and drops their entries; those of keep stay. A value that is
// no longer ours, or whose device is gone, is left alone. An entry that cannot be restored stays in the record.
func (r *record) restoreExcept(keep []string) (changes int, err error) {
	var left []entry
	var errs []error
	for _, e := range slices.Backward(r.Entries) {
		if slices.Contains(keep, e.Key) {
			left = append(left, e)
			continue
		}
		n, err := e.restore()
		changes += n
		if err != nil {
			errs = append(errs, err)
			left = append(left, e)
		}
	}
	slices.Reverse(left)
	r.Entries = left
	return changes, errors.Join(errs...)
}

func (e entry) restore() (changes int, err error) {
	value, err := Read(e.Key)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	if value != e.Ours {
		return 0, nil
	}
	if err := Write(e.Key, e.Old); err != nil {
		return 0, err
	}
	settings := make([]setting, 0, len(e.Sides))
	for key, value := range e.Sides {
		settings = append(settings, setting{key: key, value: value, optional: true})
	}
	n, err := applyAll(settings)
	return n + 1, err
}
