package cni

import (
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// inNamespaces runs f on a thread of its own in a network and a mount namespace. The thread ends with f.
func inNamespaces(network, mounts int, f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with f
		// A thread that shares its root with others cannot change its mounts.
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			done <- fmt.Errorf("part with the other threads' root: %w", err)
			return
		}
		if err := unix.Setns(mounts, unix.CLONE_NEWNS); err != nil {
			done <- fmt.Errorf("enter the mount namespace: %w", err)
			return
		}
		if err := unix.Setns(network, unix.CLONE_NEWNET); err != nil {
			done <- fmt.Errorf("enter the network namespace: %w", err)
			return
		}
		done <- f()
	}()
	return <-done
}
