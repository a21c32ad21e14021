package install

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// errRaced says that somebody else wrote the file at the same time: theirs stands, and is to be looked at again.
var errRaced = errors.New("somebody else wrote it at the same time")

// exchangesMost bounds the exchanges with a writer that never rests.
const exchangesMost = 1000

// replace puts content in place of a file that holds was, with its mode and owner, and loses nothing that another
// process writes meanwhile: the new file and the old one change places in one step, and only then is looked at what the
// old one was. If it was not what we read, or is open for writing, they change back.
//
// The runtime sees a rename of the file, which is what makes it read its configuration anew.
func replace(path string, was, content []byte) (err error) {
	tmp, err := beside(path, content)
	if err != nil {
		return err
	}
	defer func() {
		if removed := os.Remove(tmp); !errors.Is(removed, os.ErrNotExist) {
			err = errors.Join(err, removed)
		}
	}()
	placed, err := hold(tmp)
	if err != nil {
		return err
	}
	defer func() { placed.Close() }() // of whichever was put in last; a reference alone has nothing to flush
	if err := exchange(tmp, path); err != nil {
		return err
	}
	quiet, err := untouched(tmp, was)
	if quiet || err != nil {
		return errors.Join(err, syncFolder(filepath.Dir(path)))
	}
	// What is at tmp is newer than what we read. It goes back; what comes out must then be what we put in last, else it
	// is newer still.
	for range exchangesMost {
		newer, err := hold(tmp)
		if err != nil {
			return err
		}
		if err = exchange(tmp, path); err == nil {
			err = placed.raced(tmp)
		}
		placed.Close()
		placed = newer
		if err != nil {
			return err
		}
	}
	return errRaced
}

// beside makes a file of this content in the folder of path, with the mode and owner of path. Its name has no ending
// that a runtime reads.
func beside(path string, content []byte) (string, error) {
	var like unix.Stat_t
	if err := unix.Stat(path, &like); err != nil {
		return "", fmt.Errorf("look at %s: %w", path, err)
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".raven*")
	if err != nil {
		return "", fmt.Errorf("make a file beside %s: %w", path, err)
	}
	_, err = f.Write(content)
	err = errors.Join(err, f.Chmod(os.FileMode(like.Mode&0o777)), f.Chown(int(like.Uid), int(like.Gid)), f.Sync(), f.Close())
	if err != nil {
		return "", errors.Join(fmt.Errorf("write a file beside %s: %w", path, err), os.Remove(f.Name()))
	}
	return f.Name(), nil
}

func exchange(a, b string) error {
	err := unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE)
	if errors.Is(err, unix.ENOENT) {
		return errRaced // it was deleted: nothing to replace
	}
	if err != nil {
		return fmt.Errorf("exchange %s and %s: %w", a, b, err)
	}
	return nil
}

// held is a file that keeps its inode number, whatever is renamed over it: a number that is free goes to the next file
// made, and a writer's file would be taken for ours.
type held struct{ *os.File }

func hold(path string) (held, error) {
	f, err := os.OpenFile(path, unix.O_PATH, 0)
	if err != nil {
		return held{}, fmt.Errorf("look at %s: %w", path, err)
	}
	return held{f}, nil
}

// raced is errRaced where the file stands at path: what was put in last came out, so nobody has written since.
func (h held) raced(path string) error {
	last, err := h.Stat()
	if err != nil {
		return fmt.Errorf("look at %s: %w", h.Name(), err)
	}
	out, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("look at %s: %w", path, err)
	}
	if os.SameFile(last, out) {
		return errRaced
	}
	return nil
}

// untouched is true where the file holds was and nobody has it open for writing: the kernel gives a read lease to no
// other file.
func untouched(path string, was []byte) (bool, error) {
	f, err := os.Open(path)
	if err != nil {
		return false, fmt.Errorf("open %s: %w", path, err)
	}
	defer f.Close()
	if _, err := unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_RDLCK); errors.Is(err, unix.EAGAIN) {
		return false, nil
	}
	now, err := os.ReadFile(path)
	if err != nil {
		return false, fmt.Errorf("read %s: %w", path, err)
	}
	return bytes.Equal(now, was), nil
}

// syncFolder makes names durable.
func syncFolder(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("open %s to flush it: %w", path, err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("flush %s to disk: %w", path, err)
	}
	return nil
}
