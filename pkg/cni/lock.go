package cni

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ravencni/raven/pkg/datapath/accel/attach"
)

const (
	// addWait bounds the wait of an ADD for another run of the plugin: the pod's start waits, too.
	addWait = 2 * time.Second
	// patientWait is that of all others. Where many pods start at once, each attachment waits in the kernel for those
	// before it.
	patientWait = 30 * time.Second
)

// flock locks an open file, shared or exclusive. The kernel gives the lock back when the file is closed, at the latest
// when the last process that was given it ends.
func flock(f *os.File, how int, wait time.Duration) error {
	const step = 2 * time.Millisecond
	enough := time.NewTimer(wait)
	defer enough.Stop()
	tick := time.NewTicker(step)
	defer tick.Stop()
	for {
		err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return err
		}
		select {
		case <-enough.C:
			return fmt.Errorf("another run of %s holds %s for more than %v", Type, f.Name(), wait)
		case <-tick.C:
		}
	}
}

// lockTree keeps those who clear up (exclusive) apart from those who attach (shared): a device's number may be taken
// anew while its old pin is looked at. The lock lies on the folder of pins, so it leaves nothing behind.
func (o *objects) lockTree(how int, wait time.Duration) (*os.File, error) {
	folder := filepath.Join(o.tree, attach.LinksFolder)
	f, err := os.Open(folder)
	if errors.Is(err, os.ErrNotExist) {
		if err := os.Mkdir(folder, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
			return nil, fmt.Errorf("make the folder of pinned links: %w", err)
		}
		f, err = os.Open(folder)
	}
	if err != nil {
		return nil, fmt.Errorf("open the folder of pinned links: %w", err)
	}
	if err := flock(f, how, wait); err != nil {
		return nil, errors.Join(fmt.Errorf("lock the folder of pinned links: %w", err), f.Close())
	}
	return f, nil
}
