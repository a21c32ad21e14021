package cluster

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// memory is a tmpfs on every Linux: what etcd writes costs no disk.
const memory = "/dev/shm"

const prefix = "raven-cluster-"

// makeFolder makes the folder of one control plane and removes those of processes that were killed. unlock comes after
// the folder was removed.
func makeFolder() (dir string, unlock func() error, err error) {
	base := memory
	if unix.Access(base, unix.W_OK) != nil {
		base = os.TempDir()
	}
	old, err := filepath.Glob(filepath.Join(base, prefix+"*"))
	if err != nil {
		return "", nil, fmt.Errorf("look for folders of former control planes: %w", err)
	}
	for _, o := range old {
		// Its owner holds a lock on it for as long as it lives.
		if unlock, err := lock(o); err == nil {
			if err := errors.Join(os.RemoveAll(o), unlock()); err != nil {
				return "", nil, fmt.Errorf("remove what a control plane left that was killed: %w", err)
			}
		}
	}
	// It gets the name that others look for once it is locked.
	fresh, err := os.MkdirTemp(base, "."+prefix)
	if err != nil {
		return "", nil, fmt.Errorf("make a folder for the control plane: %w", err)
	}
	if unlock, err = lock(fresh); err != nil {
		return "", nil, errors.Join(fmt.Errorf("lock the control plane's folder: %w", err), os.Remove(fresh))
	}
	dir = filepath.Join(base, strings.TrimPrefix(filepath.Base(fresh), "."))
	if err := os.Rename(fresh, dir); err != nil {
		return "", nil, errors.Join(fmt.Errorf("name the control plane's folder: %w", err), os.Remove(fresh), unlock())
	}
	return dir, unlock, nil
}

func lock(dir string) (unlock func() error, err error) {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	return func() error { return unix.Close(fd) }, nil
}

// file is a path in the cluster's folder.
func (c *Cluster) file(name string) string { return filepath.Join(c.dir, name) }
