package wireguard

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ravencni/raven/test/netns"
)

// In a pod the socket folder is a volume in a read-only root.
func TestFilesAreRemovedWhereTheSocketFolderIsAMount(t *testing.T) {
	netns.Run(t, func(t *testing.T) {
		const folder = "/run/wireguard"
		if err := os.Mkdir(folder, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount("tmpfs", folder, "tmpfs", 0, ""); err != nil {
			t.Fatal(err)
		}
		d, err := New(Options{StateDir: t.TempDir()})
		if err != nil {
			t.Fatal(err)
		}
		if err := d.removeFiles(); err != nil {
			t.Errorf("in a root that can be written to: %v", err)
		}
		if err := unix.Mount("", "/run", "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""); err != nil {
			t.Fatal(err)
		}
		if err := d.removeFiles(); err != nil {
			t.Errorf("in a read-only root: %v", err)
		}
	})
}
