package source

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// maxFile is the size in bytes above which a manifest is refused: ten thousand Nodes as kubectl prints them take about
// half of it, and a stray disk image must not fill the agent's memory.
const maxFile = 128 << 20

// identity tells whether a file may have changed: the inode catches an atomic rename and a swapped symlink, the rest an
// edit in place.
type identity struct {
	dev, ino     uint64
	size         int64
	mtime, ctime int64 // nanoseconds since the epoch
}

// entry is a manifest as the folder lists it.
type entry struct {
	name string // relative to the folder
	id   identity
	err  error // it is there, but cannot be looked at
}

// listing is the folder at one moment.
type listing struct {
	folder  identity
	entries []entry // sorted by name
}

func (l listing) equal(o listing) bool {
	return l.folder == o.folder && slices.EqualFunc(l.entries, o.entries, func(a, b entry) bool {
		return a.name == b.name && a.id == b.id && (a.err == nil) == (b.err == nil)
	})
}

// newest is when the folder or one of its files changed last.
func (l listing) newest() time.Time {
	newest := max(l.folder.mtime, l.folder.ctime)
	for _, e := range l.entries {
		newest = max(newest, e.id.mtime, e.id.ctime)
	}
	return time.Unix(0, newest)
}

// list looks at the manifests of a folder without reading them. Symlinks are followed; sub-folders, other suffixes and
// names that begin with a dot (editors' files, a projected volume's ..data) are left out.
func list(dir string) (listing, error) {
	folder, mode, err := identify(dir)
	if err != nil {
		return listing{}, fmt.Errorf("look at the manifests folder: %w", err)
	}
	if mode&unix.S_IFMT != unix.S_IFDIR {
		return listing{}, fmt.Errorf("look at the manifests folder: %s is not a folder", dir)
	}
	found, err := os.ReadDir(dir)
	if err != nil {
		return listing{}, fmt.Errorf("list the manifests folder: %w", err)
	}
	out := listing{folder: folder}
	for _, f := range found {
		if !isManifest(f.Name()) {
			continue
		}
		id, mode, err := identify(filepath.Join(dir, f.Name()))
		switch {
		case errors.Is(err, fs.ErrNotExist) && f.Type()&fs.ModeSymlink == 0:
			continue // deleted since the folder was listed
		case err == nil && mode&unix.S_IFMT == unix.S_IFDIR:
			continue
		case err == nil && mode&unix.S_IFMT != unix.S_IFREG:
			err = errors.New("it is not a regular file") // opening a FIFO would wait for ever
		}
		out.entries = append(out.entries, entry{name: f.Name(), id: id, err: err})
	}
	slices.SortFunc(out.entries, func(a, b entry) int { return cmp.Compare(a.name, b.name) })
	return out, nil
}

func isManifest(name string) bool {
	switch filepath.Ext(name) {
	case ".yaml", ".yml", ".json":
		return !strings.HasPrefix(name, ".")
	}
	return false
}

func identify(path string) (identity, uint32, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return identity{}, 0, &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	return identityOf(&st), st.Mode, nil
}

func identityOf(st *unix.Stat_t) identity {
	return identity{dev: st.Dev, ino: st.Ino, size: st.Size, mtime: st.Mtim.Nano(), ctime: st.Ctim.Nano()}
}

// errMoved says that a file changed between being listed and being read; the next look reads it.
var errMoved = errors.New("it is being changed")

// readFile reads a file if it still is the one that was listed.
func readFile(dir string, e entry) ([]byte, error) {
	if e.err != nil {
		return nil, e.err
	}
	if e.id.size > maxFile {
		return nil, fmt.Errorf("it has %d bytes; at most %d are read", e.id.size, maxFile)
	}
	path := filepath.Join(dir, e.name)
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if now, _, err := identify(path); err != nil || now != e.id {
		return nil, errMoved
	}
	return content, nil
}
