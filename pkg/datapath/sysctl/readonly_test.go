package sysctl

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ravencni/raven/test/netns"
)

// In a container /proc/sys is read-only, and the host's /proc/sys/net is mounted elsewhere.
func TestAReadOnlyProcSysIsWrittenWhereTheManifestsMountIt(t *testing.T) {
	netns.Run(t, func(t *testing.T) {
		const key = "net/ipv4/ip_forward"
		elsewhere := filepath.Join(t.TempDir(), "proc", "sys")
		net := filepath.Join(elsewhere, "net")
		if err := os.MkdirAll(net, 0o755); err != nil {
			t.Fatal(err)
		}
		for _, m := range []struct {
			from, at string
			flags    uintptr
		}{
			{"/proc/sys/net", net, unix.MS_BIND},
			{"/proc/sys", "/proc/sys", unix.MS_BIND},
			{"", "/proc/sys", unix.MS_BIND | unix.MS_REMOUNT | unix.MS_RDONLY},
		} {
			if err := unix.Mount(m.from, m.at, "", m.flags, ""); err != nil {
				t.Fatalf("mount %s: %v", m.at, err)
			}
		}
		defer func() { // the folder must be free of mounts before it is removed
			if err := unix.Unmount(net, unix.MNT_DETACH); err != nil {
				t.Error(err)
			}
		}()
		before, err := Read(key)
		if err != nil {
			t.Fatal(err)
		}
		want := map[string]string{"0": "1", "1": "0"}[before]
		if err := Write(key, want); err == nil || !strings.Contains(err.Error(), key) {
			t.Fatalf("written without such a mount: %v", err)
		}
		defer func(usual string) { hostRoot = usual }(hostRoot)
		hostRoot = elsewhere
		if err := Write(key, want); err != nil {
			t.Fatal(err)
		}
		if after, err := Read(key); err != nil || after != want {
			t.Errorf("after the write it is %q, %v; want %q", after, err, want)
		}
	})
}
