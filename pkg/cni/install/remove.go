package install

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// RemoveConfig takes the plugin out of every configuration, byte by byte, and calls say with a line for each. The binary
// stays for RemoveBinary.
func RemoveConfig(ctx context.Context, confDir string, say func(string)) error {
	f := folder(confDir)
	if _, err := os.Stat(confDir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	unwrapped, errConf := f.unwrap()
	lists, errLists := f.takeOut("")
	dropIns, errDropIns := f.removeDropIns("")
	errs := []error{errConf, errLists, errDropIns}
	if len(dropIns) > 0 {
		// The runtime does not watch the folder of a network: a renamed primary configuration makes it look.
		if primary, err := f.primary(); err == nil && primary != nil {
			errs = append(errs, replace(primary.path, primary.text, primary.text))
		}
	}
	for _, path := range append(append(unwrapped, lists...), dropIns...) {
		say(fmt.Sprintf("removed %s from the CNI configuration %s", Type, path))
	}
	return errors.Join(append(errs, f.left())...)
}

// left names configurations that call the plugin, or may: one that is half written now may be whole in a moment.
func (f folder) left() error {
	names, err := f.names()
	errs := []error{err}
	for _, name := range names {
		path := filepath.Join(string(f), name)
		found, err := f.read(name)
		switch {
		case errors.Is(err, fs.ErrNotExist): // it has gone since
		case err == nil && found.list != nil && found.list.has():
			errs = append(errs, fmt.Errorf("the CNI configuration %s still calls %s: somebody put it back", path, Type))
		case err != nil:
			text, readErr := os.ReadFile(path)
			if readErr != nil && !errors.Is(readErr, fs.ErrNotExist) || bytes.Contains(text, []byte(`"`+Type+`"`)) {
				errs = append(errs, fmt.Errorf("the CNI configuration %s may still call %s: %w", path, Type, err))
			}
		}
	}
	return errors.Join(errs...)
}

// RemoveBinary removes the plugin's binary, unless a configuration still calls it: then pods would fail.
func RemoveBinary(confDir, binDir string, say func(string)) error {
	if _, err := os.Stat(confDir); err == nil {
		if err := folder(confDir).left(); err != nil {
			return fmt.Errorf("the CNI plugin's binary stays: %w", err)
		}
	}
	path := filepath.Join(binDir, Type)
	err := os.Remove(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove the CNI plugin's binary: %w", err)
	}
	say("removed " + path)
	return nil
}
