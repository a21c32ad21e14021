package cni

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ravencni/raven/pkg/datapath/accel/device"
	"github.com/ravencni/raven/pkg/datapath/rtnl"
)

// sandbox is a pod's network namespace, open and locked: two runs of the plugin for one pod follow one another.
type sandbox struct {
	file *os.File
	// handed: the lock was given to this process, and is its until the end, so that what it says last is in the log before
	// anybody else goes on.
	handed bool
}

// errGone says that there is no such network namespace any more.
var errGone = errors.New("the pod's network namespace has gone")

func openSandbox(path string, wait time.Duration) (*sandbox, error) {
	if path == "" {
		return nil, errGone
	}
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, errGone
	}
	if err != nil {
		return nil, fmt.Errorf("open the pod's network namespace: %w", err)
	}
	return lockSandbox(f, wait)
}

// lockSandbox takes over a file, and closes it where it fails.
func lockSandbox(f *os.File, wait time.Duration) (*sandbox, error) {
	// What is left of a namespace that was unmounted is an empty file.
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &fs); err != nil || fs.Type != unix.NSFS_MAGIC && fs.Type != unix.PROC_SUPER_MAGIC {
		return nil, errors.Join(errGone, err, f.Close())
	}
	if err := flock(f, unix.LOCK_EX, wait); err != nil {
		return nil, errors.Join(fmt.Errorf("lock the pod's network namespace: %w", err), f.Close())
	}
	return &sandbox{file: f}, nil
}

func (s *sandbox) close() {
	if !s.handed {
		_ = s.file.Close()
	}
}

// veth finds the host's end of the pod's interface. It is *unable where that is no veth to this namespace.
func (s *sandbox) veth(conn *rtnl.Conn, ifName string) (device.Device, error) {
	id, err := s.id(conn)
	if err != nil {
		return device.Device{}, err
	}
	inside, err := device.List(conn, id)
	if err != nil {
		return device.Device{}, fmt.Errorf("look into the pod's network namespace: %w", err)
	}
	for _, eth := range inside {
		if eth.Name != ifName {
			continue
		}
		if eth.Kind != "veth" {
			return device.Device{}, unablef("the pod's interface %s is a %s device, not a veth", ifName, eth.Kind)
		}
		host, err := device.Get(conn, eth.Peer)
		if errors.Is(err, unix.ENODEV) {
			err = nil
		}
		if err != nil {
			return device.Device{}, err
		}
		if host.Kind != "veth" || host.Peer != eth.Index || host.PeerNamespace != id {
			return device.Device{}, unablef("the other end of the pod's interface %s is not on the host", ifName)
		}
		return host, nil
	}
	return device.Device{}, unablef("the pod has no interface %s", ifName)
}

// id is the number by which the host's namespace knows this one.
func (s *sandbox) id(conn *rtnl.Conn) (int, error) {
	var host, pod unix.Stat_t
	if err := unix.Stat("/proc/thread-self/ns/net", &host); err != nil {
		return 0, fmt.Errorf("identify the host's network namespace: %w", err)
	}
	if err := unix.Fstat(int(s.file.Fd()), &pod); err != nil {
		return 0, fmt.Errorf("identify the pod's network namespace: %w", err)
	}
	if host.Dev == pod.Dev && host.Ino == pod.Ino {
		return 0, unablef("the pod lives in the host's network")
	}
	for range 2 {
		id, err := netlink.GetNetNsIdByFd(int(s.file.Fd()))
		if err != nil {
			return 0, fmt.Errorf("ask for the number of the pod's network namespace: %w", err)
		}
		if id >= 0 {
			return id, nil
		}
		// The kernel gives numbers where it shows devices whose other ends are elsewhere.
		if _, err := device.List(conn, device.OwnNamespace); err != nil {
			return 0, err
		}
	}
	return 0, unablef("no device of the host leads into the pod's network namespace")
}
