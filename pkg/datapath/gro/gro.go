// Package gro switches off the merging of received segments (generic receive offload) by a VXLAN device.
package gro

import (
	"errors"
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ethtoolValue is struct ethtool_value (linux/ethtool.h).
type ethtoolValue struct{ cmd, data uint32 }

// ifreqData is struct ifreq (linux/if.h) with a pointer in its union.
type ifreqData struct {
	name [unix.IFNAMSIZ]byte
	data unsafe.Pointer
	_    [24 - unsafe.Sizeof(uintptr(0))]byte
}

// Off has a VXLAN device hand on packets as they come, and says whether that was news. Its packets have been through the GRO of
// the underlay's device already. With GRO they would wait once more in a queue of the device's own, which costs each of them a
// round of the processor's polling, and where Raven's programs decapsulate as well, that way would overtake this one.
func Off(device string) (changed bool, err error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false, fmt.Errorf("open a socket to set up device %s: %w", device, err)
	}
	defer func() { err = errors.Join(err, unix.Close(fd)) }()
	on := ethtoolValue{cmd: unix.ETHTOOL_GGRO}
	if err := ethtool(fd, device, &on); err != nil {
		return false, fmt.Errorf("read whether device %s has GRO: %w", device, err)
	}
	if on.data == 0 {
		return false, nil
	}
	if err := ethtool(fd, device, &ethtoolValue{cmd: unix.ETHTOOL_SGRO}); err != nil {
		return false, fmt.Errorf("switch off GRO of device %s: %w", device, err)
	}
	return true, nil
}

func ethtool(fd int, device string, value *ethtoolValue) error {
	request := ifreqData{data: unsafe.Pointer(value)}
	copy(request.name[:unix.IFNAMSIZ-1], device)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request)))
	runtime.KeepAlive(value)
	if errno != 0 {
		return errno
	}
	return nil
}
