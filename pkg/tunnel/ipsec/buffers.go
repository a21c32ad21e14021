package ipsec

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// socketBuffer in bytes is what a UDP socket on the way of packets holds while its reader waits for a processor: some 1800
// of the largest ones. The kernel's default holds 92, which a tunnel sends in a few hundredths of a second.
const socketBuffer = 4 << 20

// widen gives a socket the buffer, beyond net.core.rmem_max where this process may go beyond it.
func widen(fd int) error {
	err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, socketBuffer)
	if errors.Is(err, unix.EPERM) {
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, socketBuffer)
	}
	return os.NewSyscallError("setsockopt", err)
}

// widenAll does so with the UDP sockets of another process, which has no setting for that, and returns how many it has.
func widenAll(pid int) (sockets int, err error) {
	process, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return 0, fmt.Errorf("open process %d: %w", pid, err)
	}
	defer unix.Close(process)
	files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		return 0, fmt.Errorf("list the files of process %d: %w", pid, err)
	}
	var errs []error
	for _, f := range files {
		number, err := strconv.Atoi(f.Name())
		if err != nil {
			return sockets, fmt.Errorf("read the number of a file of process %d: %w", pid, err)
		}
		fd, err := unix.PidfdGetfd(process, number, 0)
		if errors.Is(err, unix.EBADF) {
			continue // closed meanwhile
		}
		if err != nil {
			return sockets, fmt.Errorf("take file %d of process %d: %w", number, pid, err)
		}
		if isUDP(fd) {
			sockets++
			errs = append(errs, widen(fd))
		}
		errs = append(errs, os.NewSyscallError("close", unix.Close(fd)))
	}
	return sockets, errors.Join(errs...)
}

func isUDP(fd int) bool {
	protocol, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL)
	return err == nil && protocol == unix.IPPROTO_UDP
}
