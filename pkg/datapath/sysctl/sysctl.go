// Package sysctl keeps the kernel settings that Raven's forwarding needs, and gives back every host-wide one that it
// changed.
package sysctl

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"

	"github.com/ravencni/raven/pkg/datapath"
	"github.com/ravencni/raven/pkg/topology"
)

// Options of an Applier.
type Options struct {
	// Acceleration asks for the conntrack settings that a flow needs whose middle the stack does not see.
	Acceleration bool
	// StateDir holds the record of changed values, sysctls.json; empty means datapath.StateDir.
	StateDir string
}

// Applier implements datapath.Applier. Settings of Raven's own devices vanish with them; the old value of any other is
// on disk before it is changed, and comes back on Cleanup or when it is no longer wanted, unless somebody else changed
// it meanwhile.
type Applier struct {
	acceleration bool
	path         string
}

var _ datapath.Applier = (*Applier)(nil)

// New makes the applier.
func New(o Options) *Applier {
	dir := o.StateDir
	if dir == "" {
		dir = datapath.StateDir
	}
	return &Applier{acceleration: o.Acceleration, path: filepath.Join(dir, "sysctls.json")}
}

// Name is sysctl.
func (*Applier) Name() string { return "sysctl" }

// Apply sets what differs. Devices that are not there yet are skipped: the next pass finds them.
func (a *Applier) Apply(ctx context.Context, plan *topology.Plan, host datapath.Host) (changes int, err error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	own, err := applyAll(ownDeviceSettings(plan, host))
	n, hostErr := a.applyHostWide(ctx, plan, host)
	return own + n, errors.Join(err, hostErr)
}

// Cleanup restores every value that was changed host-wide and forgets the record.
func (a *Applier) Cleanup(context.Context) error {
	rec, err := load(a.path)
	if err != nil {
		return err
	}
	_, err = rec.restoreExcept(nil)
	return errors.Join(err, rec.save(a.path))
}

// setting is one wanted value.
type setting struct {
	key, value string
	// optional settings are skipped where the kernel does not have the key.
	optional bool
	// sides are keys that the kernel changes along with this one.
	sides []string
}

// applyAll writes the settings that differ, without a record.
func applyAll(settings []setting) (changes int, err error) {
	var errs []error
	for _, s := range settings {
		differs, err := s.differs()
		if err == nil && differs {
			if err = Write(s.key, s.value); err == nil {
				changes++
			}
		}
		errs = append(errs, err)
	}
	return changes, errors.Join(errs...)
}

func (s setting) differs() (bool, error) {
	value, err := Read(s.key)
	if s.optional && errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil && value != s.value, err
}

// applyHostWide records, then writes, then restores what an earlier pass changed and this one no longer wants.
func (a *Applier) applyHostWide(ctx context.Context, plan *topology.Plan, host datapath.Host) (changes int, err error) {
	rec, err := load(a.path)
	if err != nil {
		return 0, fmt.Errorf("leave host-wide sysctls as they are: %w", err)
	}
	wanted, err := a.hostSettings(ctx, plan, host, rec)
	errs := []error{err}
	var due []setting
	for _, s := range wanted {
		differs, err := s.differs()
		if err == nil && differs {
			if err = rec.remember(s); err == nil {
				due = append(due, s)
			}
		}
		errs = append(errs, err)
	}
	if len(due) > 0 {
		if err := rec.save(a.path); err != nil {
			return 0, errors.Join(append(errs, err)...)
		}
	}
	n, err := applyAll(due)
	changes += n
	errs = append(errs, err)

	keys := make([]string, 0, len(wanted))
	for _, s := range wanted {
		keys = append(keys, s.key)
	}
	if slices.ContainsFunc(rec.Entries, func(e entry) bool { return !slices.Contains(keys, e.Key) }) {
		n, err := rec.restoreExcept(keys)
		changes += n
		errs = append(errs, err, rec.save(a.path))
	}
	return changes, errors.Join(errs...)
}
