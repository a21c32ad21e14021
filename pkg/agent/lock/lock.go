// Package lock lets one agent at a time act in a network namespace.
package lock

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Lock is held until Release, or until the process ends, however it ends: the kernel gives flock back.
type Lock struct {
	file *os.File
	// made is the state folder, where it was made for the lock alone.
	made string
}

// Acquire takes the lock of the calling thread's network namespace: a file in the state folder, which is made where it is
// missing. Only who may write there can take it. The error names the process that holds it.
func Acquire(stateDir string) (l *Lock, err error) {
	path, err := fileOf(stateDir)
	if err != nil {
		return nil, err
	}
	l = &Lock{}
	if _, err := os.Lstat(stateDir); errors.Is(err, os.ErrNotExist) {
		l.made = stateDir
	}
	if err := os.MkdirAll(stateDir, 0o700); err != nil {
		return nil, fmt.Errorf("make the state folder: %w", err)
	}
	for {
		l.file, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
		if err != nil {
			return nil, fmt.Errorf("open the agent's lock: %w", err)
		}
		stands, err := l.take()
		if err == nil && stands {
			return l, nil
		}
		if closed := l.file.Close(); err != nil || closed != nil {
			return nil, errors.Join(err, closed)
		}
		// Its last holder removed the file between open and flock: the next one counts.
	}
}

// fileOf is where the lock of a network namespace stands.
func fileOf(stateDir string) (string, error) {
	var ns unix.Stat_t
	if err := unix.Stat("/proc/thread-self/ns/net", &ns); err != nil {
		return "", fmt.Errorf("identify the network namespace: %w", err)
	}
	return filepath.Join(stateDir, fmt.Sprintf("agent-net-%d.lock", ns.Ino)), nil
}

// take locks the open file, writes this process into it, and reports whether the file still has its name.
func (l *Lock) take() (stands bool, err error) {
	path := l.file.Name()
	err = unix.Flock(int(l.file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return false, l.held()
	}
	if err != nil {
		return false, fmt.Errorf("take the agent's lock %s: %w", path, err)
	}
	mine, err := l.file.Stat()
	if err != nil {
		return false, fmt.Errorf("look at the agent's lock: %w", err)
	}
	named, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) || err == nil && !os.SameFile(mine, named) {
		return false, nil
	}
	if err == nil {
		err = l.file.Truncate(0)
	}
	if err == nil {
		_, err = fmt.Fprintf(l.file, "%d\n", os.Getpid())
	}
	if err != nil {
		return false, fmt.Errorf("write the agent's lock: %w", err)
	}
	return true, nil
}

// held tells who holds the lock, by the holder's own word.
func (l *Lock) held() error {
	who := "another process"
	if text, err := io.ReadAll(io.LimitReader(l.file, 32)); err == nil && len(text) > 0 {
		who = "process " + strings.TrimSpace(string(text))
	}
	return fmt.Errorf("%s already acts as Raven's agent in this network namespace (it holds %s): stop it first",
		who, l.file.Name())
}

// Release gives the lock back and leaves nothing of it on disk.
func (l *Lock) Release() error {
	// The file goes while it is locked: who opened it before finds out after the lock is free.
	err := errors.Join(os.Remove(l.file.Name()), l.file.Close())
	if l.made != "" {
		_ = os.Remove(l.made) // fails where something else is in it by now, and that is right
	}
	return err
}
