package sysctl

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// root is where the kernel shows sysctls; those below net are of the calling thread's network namespace.
const root = "/proc/sys"

// hostRoot is where a container finds the host's sysctls writable: runtimes mount /proc/sys read-only in every container
// that is not privileged, and the manifests mount the host's /proc/sys/net here. They, too, are of the calling thread's
// network namespace.
var hostRoot = "/host/proc/sys"

// Read returns the value of a key such as net/ipv4/ip_forward. A key that the kernel does not have gives an error that
// wraps fs.ErrNotExist.
func Read(key string) (string, error) {
	b, err := os.ReadFile(filepath.Join(root, key))
	if err != nil {
		return "", fmt.Errorf("read sysctl %s: %w", key, err)
	}
	return strings.TrimSpace(string(b)), nil
}

// Write sets a key.
func Write(key, value string) error {
	f, err := os.OpenFile(filepath.Join(root, key), os.O_WRONLY, 0)
	if errors.Is(err, unix.EROFS) {
		f, err = os.OpenFile(filepath.Join(hostRoot, key), os.O_WRONLY, 0)
	}
	if err != nil {
		return fmt.Errorf("set sysctl %s=%s: %w", key, value, err)
	}
	_, err = f.WriteString(value)
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("set sysctl %s=%s: %w", key, value, err)
	}
	return nil
}

// IPv6On says why IPv6 does not work on a device: nil where it does.
func IPv6On(device string) error {
	value, err := Read("net/ipv6/conf/" + device + "/disable_ipv6")
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("IPv6 is absent on device %s: its MTU is below 1280 bytes or the kernel has no IPv6", device)
	case err != nil:
		return err
	case value != "0":
		return fmt.Errorf("IPv6 is disabled on device %s: set net.ipv6.conf.%s.disable_ipv6=0 and, for devices to come, "+
			"net.ipv6.conf.default.disable_ipv6=0", device, device)
	}
	return nil
}
