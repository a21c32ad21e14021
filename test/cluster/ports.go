package cluster

import (
	"errors"
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"
)

// The ports of a control plane, by their place in ports.
const (
	portEtcd = iota
	portPeer
	portAPI
)

// ports are TCP ports of the loopback address that are held for as long as the control plane lives, so that nobody else
// gets one between its choice and its use, or while the API server is away. The sockets are bound and do not listen; the
// programs bind the same ports beside them (SO_REUSEPORT).
type ports struct {
	sockets []int
	numbers []int
}

func reservePorts(n int) (p *ports, err error) {
	p = &ports{}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.close())
		}
	}()
	for range n {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return p, fmt.Errorf("open a socket: %w", err)
		}
		p.sockets = append(p.sockets, fd)
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil {
			return p, fmt.Errorf("let a socket share its port: %w", err)
		}
		if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: loopback.As4()}); err != nil {
			return p, fmt.Errorf("reserve a port on %s: %w", loopback, err)
		}
		name, err := unix.Getsockname(fd)
		if err != nil {
			return p, fmt.Errorf("ask for the reserved port: %w", err)
		}
		at, ok := name.(*unix.SockaddrInet4)
		if !ok {
			return p, fmt.Errorf("ask for the reserved port: got %T", name)
		}
		p.numbers = append(p.numbers, at.Port)
	}
	return p, nil
}

func (p *ports) text(which int) string { return strconv.Itoa(p.numbers[which]) }

func (p *ports) close() error {
	var errs []error
	for _, fd := range p.sockets {
		errs = append(errs, unix.Close(fd))
	}
	p.sockets = nil
	return errors.Join(errs...)
}

// url of one of the cluster's ports.
func (c *Cluster) url(scheme string, port int) string {
	return fmt.Sprintf("%s://%s:%d", scheme, loopback, c.ports.numbers[port])
}
