package conformance

import (
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
)

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// capture returns all frames that cross a device of the host while f runs.
func (h *host) capture(device string, f func()) (frames [][]byte, err error) {
	fd := -1
	err = h.try(func() error {
		const all = unix.ETH_P_ALL<<8&0xff00 | unix.ETH_P_ALL>>8 // in network order
		i, err := net.InterfaceByName(device)
		if err != nil {
			return err
		}
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, all); err != nil {
			return err
		}
		return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: i.Index})
	})
	if fd >= 0 {
		defer unix.Close(fd)
	}
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", device, err)
	}
	f()
	buffer := make([]byte, 1<<16)
	for {
		n, _, err := unix.Recvfrom(fd, buffer, 0)
		if err == unix.EAGAIN {
			return frames, nil
		}
		if err != nil {
			return frames, fmt.Errorf("read %s: %w", device, err)
		}
		frames = append(frames, append([]byte(nil), buffer[:n]...))
	}
}
