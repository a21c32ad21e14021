// Package netns runs a test in a network and mount namespace of its own, so that nothing it does to interfaces,
// routes, nftables, sysctls or bpffs reaches the machine, whether it passes, fails or is killed.
package netns

import (
	"fmt"
	"os"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// Run executes f on an OS thread that lives in new network and mount namespaces: loopback is up, /sys shows the new
// network namespace, /sys/fs/bpf is an empty bpffs, /run and /var/lib are tmpfs, and /var/lib/raven an empty folder. Everything vanishes with
// the thread. f must not start goroutines that touch the network unless it hands them a socket or namespace handle,
// since they would run on threads of the machine's own namespace. t.FailNow and friends may be called in f.
func Run(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root to make a network namespace")
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		// Never unlocked: the runtime then ends the thread, and with it the namespaces.
		runtime.LockOSThread()
		if err := enter(); err != nil {
			t.Errorf("make a namespace for the test: %v", err)
			return
		}
		f(t)
	}()
	<-done
}

func enter() error {
	if err := unix.Unshare(unix.CLONE_NEWNET | unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("unshare network and mount namespaces: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	for _, m := range []struct{ kind, at string }{
		{"sysfs", "/sys"}, {"bpf", "/sys/fs/bpf"}, {"tmpfs", "/run"}, {"tmpfs", "/var/lib"},
	} {
		if err := unix.Mount(m.kind, m.at, m.kind, 0, ""); err != nil {
			return fmt.Errorf("mount %s at %s: %w", m.kind, m.at, err)
		}
	}
	if err := os.Mkdir("/var/lib/raven", 0o700); err != nil {
		return fmt.Errorf("make the state folder: %w", err)
	}
	return loopbackUp()
}

func loopbackUp() error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open a socket to set loopback up: %w", err)
	}
	defer unix.Close(s)
	ifr, err := unix.NewIfreq("lo")
	if err != nil {
		return fmt.Errorf("name loopback: %w", err)
	}
	ifr.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, ifr); err != nil {
		return fmt.Errorf("set loopback up: %w", err)
	}
	return nil
}
