// Package atomicfile makes and replaces files so that a reader, or a machine that loses power, sees the old or the new
// content and never a part.
package atomicfile

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// Write replaces path with content, on disk before it returns. The temporary file beside it begins with a dot, which
// folder readers leave out.
func Write(path string, content []byte, mode os.FileMode) error {
	return put(path, content, mode, os.Rename)
}

// Create makes path with content, on disk before it returns, and fails with fs.ErrExist where path exists: of two
// processes that make one file at once one succeeds, and nobody's file is replaced.
func Create(path string, content []byte, mode os.FileMode) error {
	// A rename would overwrite; a hard link does not.
	return put(path, content, mode, os.Link)
}

// put writes a temporary file and has place give it its name.
func put(path string, content []byte, mode os.FileMode, place func(from, to string) error) (err error) {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+".*") // O_EXCL, 0600
	if err != nil {
		return fmt.Errorf("make a temporary file for %s: %w", path, err)
	}
	defer func() {
		// A rename took the temporary name away, a link or an error did not.
		if removed := os.Remove(f.Name()); !errors.Is(removed, os.ErrNotExist) {
			err = errors.Join(err, removed)
		}
	}()
	_, err = f.Write(content)
	if err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := place(f.Name(), path); err != nil {
		return fmt.Errorf("put %s in place: %w", path, err)
	}
	return syncDir(dir)
}

// syncDir makes the new name durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("open %s to flush it: %w", dir, err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("flush %s to disk: %w", dir, err)
	}
	return nil
}
