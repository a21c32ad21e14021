package install

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ravencni/raven/pkg/atomicfile"
)

const (
	listSuffix = ".conflist"
	// savedSuffix ends the name of a single plugin's configuration that a list of ours stands in for.
	savedSuffix = ".raven-saved"
	// wrapSuffix ends the name of that list.
	wrapSuffix = ".raven" + listSuffix
	// dropIn is the name of our plugin's file in the folder of a network.
	dropIn = "99-raven-cni.conf"
	// truncatedFor is how long an invalid file is taken for one that somebody is writing.
	truncatedFor = 5 * time.Second
)

// folder is the runtime's configuration folder.
type folder string

// file is one configuration.
type file struct {
	path string
	text []byte
	// list is nil for a single plugin's configuration.
	list *chain
}

// errUnsettled says that a file is being written.
var errUnsettled = errors.New("it is being written")

// names lists the files that a runtime looks at, in its order.
func (f folder) names() ([]string, error) {
	entries, err := os.ReadDir(string(f)) // sorted
	if err != nil {
		return nil, fmt.Errorf("list CNI configurations: %w", err)
	}
	var names []string
	for _, e := range entries {
		switch filepath.Ext(e.Name()) {
		case ".conf", listSuffix, ".json":
			if !e.IsDir() {
				names = append(names, e.Name())
			}
		}
	}
	return names, nil
}

// read reads one configuration; the error says why it is none.
func (f folder) read(name string) (*file, error) {
	path := filepath.Join(string(f), name)
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read a CNI configuration: %w", err)
	}
	out := &file{path: path, text: text}
	if strings.HasSuffix(name, listSuffix) {
		out.list, err = parseList(text)
	} else {
		_, err = wrap(text)
	}
	if err != nil {
		return nil, fmt.Errorf("%s is no network configuration: %w", path, err)
	}
	return out, nil
}

// primary is the configuration that the runtime uses: the first valid one. It is nil where there is none, and
// errUnsettled where the first one may become valid any moment.
func (f folder) primary() (*file, error) {
	names, err := f.names()
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		found, err := f.read(name)
		if err == nil {
			return found, nil
		}
		info, statErr := os.Stat(filepath.Join(string(f), name))
		if statErr == nil && time.Since(info.ModTime()) < truncatedFor {
			return nil, fmt.Errorf("%w: %w", errUnsettled, err)
		}
	}
	return nil, nil
}

// listFor is the list of ours that stands in for a single plugin's configuration. It comes behind that and before all
// that came behind that.
func listFor(conf string) string { return strings.TrimSuffix(conf, filepath.Ext(conf)) + wrapSuffix }

// wrapConf puts a list of ours in the place of a single plugin's configuration. The list comes first, and serves from
// the moment that the other is renamed away.
func (f folder) wrapConf(conf *file) error {
	text, err := wrap(conf.text)
	if err != nil {
		return err
	}
	if err := atomicfile.Write(listFor(conf.path), text, 0o644); err != nil {
		return err
	}
	// Whatever stands there now is saved; where that is not what was wrapped, the next look wraps it.
	if err := os.Rename(conf.path, conf.path+savedSuffix); err != nil {
		return fmt.Errorf("put %s aside: %w", conf.path, err)
	}
	return nil
}

// saved lists the configurations that lists of ours stand in for.
func (f folder) saved() ([]string, error) {
	return filepath.Glob(filepath.Join(string(f), "*"+savedSuffix))
}

// rewrap brings our lists to what was saved, which somebody may have been writing while it was.
func (f folder) rewrap() error {
	list, err := f.saved()
	errs := []error{err}
	for _, saved := range list {
		text, err := os.ReadFile(saved)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		want, err := wrap(text)
		if err != nil {
			continue // half written
		}
		conf := strings.TrimSuffix(saved, savedSuffix)
		path := listFor(conf)
		if have, err := os.ReadFile(path); err != nil || !bytes.Equal(have, want) {
			errs = append(errs, atomicfile.Write(path, want, 0o644))
		}
	}
	return errors.Join(errs...)
}

// unwrap gives saved configurations their names back, and then takes our lists away.
func (f folder) unwrap() (undone []string, err error) {
	list, err := f.saved()
	errs := []error{err}
	for _, saved := range list {
		conf := strings.TrimSuffix(saved, savedSuffix)
		err := unix.Renameat2(unix.AT_FDCWD, saved, unix.AT_FDCWD, conf, unix.RENAME_NOREPLACE)
		if errors.Is(err, unix.EEXIST) {
			err = os.Remove(saved) // its owner wrote a newer one
		}
		if err == nil {
			err = os.Remove(listFor(conf))
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("give %s its name back: %w", conf, err))
			continue
		}
		undone = append(undone, conf)
	}
	return undone, errors.Join(errs...)
}

// dropIns lists our files in the folders of networks.
func (f folder) dropIns() ([]string, error) {
	return filepath.Glob(filepath.Join(string(f), "*", dropIn))
}

// takeOut removes our plugin from every list but the one at path.
func (f folder) takeOut(but string) (undone []string, err error) {
	names, err := f.names()
	errs := []error{err}
	for _, name := range names {
		path := filepath.Join(string(f), name)
		if path == but || strings.HasSuffix(name, wrapSuffix) {
			continue
		}
		changed, err := f.takeOutOf(name)
		if err != nil {
			errs = append(errs, fmt.Errorf("take %s out of %s: %w", Type, path, err))
		}
		if changed {
			undone = append(undone, path)
		}
	}
	return undone, errors.Join(errs...)
}

// racesMost bounds the attempts to change a list that somebody keeps writing.
const racesMost = 20

// takeOutOf removes our plugin from one list. What is no list does not call it. The error is errRaced where somebody else
// kept writing it.
func (f folder) takeOutOf(name string) (changed bool, err error) {
	for range racesMost {
		found, readErr := f.read(name)
		if readErr != nil || found.list == nil || !found.list.has() {
			return false, nil // left tells of one that may call it and cannot be read
		}
		if err = replace(found.path, found.text, found.list.without()); !errors.Is(err, errRaced) {
			return err == nil, err
		}
	}
	return false, err
}

// removeDropIns takes our files out of the folders of networks, and folders that are empty then.
func (f folder) removeDropIns(but string) (undone []string, err error) {
	list, err := f.dropIns()
	errs := []error{err}
	for _, path := range list {
		if path == but {
			continue
		}
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("remove a CNI configuration: %w", err))
			continue
		}
		undone = append(undone, path)
		_ = unix.Rmdir(filepath.Dir(path)) // fails where others have something in it, and that is right
	}
	return slices.Compact(undone), errors.Join(errs...)
}
