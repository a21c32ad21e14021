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

// lockWait bounds the wait for another run of the plugin.
const lockWait = 2 * time.Second

// flock locks an open file, shared or exclusive. The kernel gives the lock back when the file is closed, at the latest
// when the process ends.
func flock(f *os.File, how int) error {
	const step = 2 * time.Millisecond
	enough := time.NewTimer(lockWait)
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
			return fmt.Errorf("another run of %s holds %s for more than %v", Type, f.Name(), lockWait)
		case <-tick.C:
		}
	}
}

// lockTree keeps those who clear up (exclusive) apart from those who attach (shared): a device's number may be taken
// anew while its old pin is looked at. The lock lies on the folder of pins, so it leaves nothing behind.
func (o *objects) lockTree(how int) (*os.File, error) {
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
	if err := flock(f, how); err != nil {
		return nil, errors.Join(fmt.Errorf("lock the folder of pinned links: %w", err), f.Close())
	}
	return f, nil
}
