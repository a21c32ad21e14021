package lab

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// makeDisk mounts a root file system that begins as the machine's own and keeps every change in memory, and returns where.
// It has the machine's /dev and is not entered yet.
func makeDisk() (string, error) {
	const base = "/mnt" // a folder that every system has; who enters the disk does not see it again
	if err := unix.Mount("tmpfs", base, "tmpfs", 0, "mode=755"); err != nil {
		return "", fmt.Errorf("mount memory for the node's disk: %w", err)
	}
	parts := map[string]string{}
	for _, part := range []string{"upper", "work", "root"} {
		parts[part] = filepath.Join(base, part)
		if err := os.Mkdir(parts[part], 0o755); err != nil {
			return "", fmt.Errorf("make the node's disk: %w", err)
		}
	}
	root := parts["root"]
	options := fmt.Sprintf("lowerdir=/,upperdir=%s,workdir=%s", parts["upper"], parts["work"])
	if err := unix.Mount("overlay", root, "overlay", 0, options); err != nil {
		return "", fmt.Errorf("mount the node's disk over the machine's: %w", err)
	}
	if err := unix.Mount("/dev", filepath.Join(root, "dev"), "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return "", fmt.Errorf("bind the machine's devices into the node's disk: %w", err)
	}
	return root, nil
}

// enterDisk makes a mounted file system the root of the mount namespace, and lets go of the former one.
func enterDisk(root string) error {
	if err := unix.Chdir(root); err != nil {
		return fmt.Errorf("enter the node's disk: %w", err)
	}
	// The old root comes to lie on top of the new one, from where it is taken off.
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("make the node's disk its root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("let go of the machine's disk: %w", err)
	}
	if err := unix.Chdir("/"); err != nil {
		return fmt.Errorf("enter the node's disk: %w", err)
	}
	return nil
}
