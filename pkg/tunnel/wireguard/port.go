package wireguard

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// portFree returns nil when UDP port can be bound on all addresses of both families, in the calling thread's network
// namespace. It is asked before a device is moved to the port, since a device that fails to move loses the old one.
func portFree(port int) error {
	for _, try := range []struct {
		family int
		any    unix.Sockaddr
	}{
		{unix.AF_INET, &unix.SockaddrInet4{Port: port}},
		{unix.AF_INET6, &unix.SockaddrInet6{Port: port}},
	} {
		if err := bindOnce(try.family, try.any); err != nil {
			return fmt.Errorf("UDP port %d is held by another program (ss -lunp 'sport = %d' names it): %w; end that program, "+
				"or give this gateway's endpoint another port", port, port, err)
		}
	}
	return nil
}

func bindOnce(family int, addr unix.Sockaddr) (err error) {
	s, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if errors.Is(err, unix.EAFNOSUPPORT) {
		return nil // then nobody can hold it
	}
	if err != nil {
		return fmt.Errorf("open a socket: %w", err)
	}
	defer func() { err = errors.Join(err, unix.Close(s)) }()
	if family == unix.AF_INET6 {
		if err := unix.SetsockoptInt(s, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1); err != nil {
			return fmt.Errorf("restrict a socket to IPv6: %w", err)
		}
	}
	if err := unix.Bind(s, addr); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
		return err
	}
	return nil
}
