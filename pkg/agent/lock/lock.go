// Package lock lets one agent at a time act in a network namespace.
package lock

import (
	"errors"
	"fmt"
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// name of the abstract socket; abstract names belong to a network namespace, which is just what the agent acts in.
const name = "@raven-agent"

// Lock is held until Release, or until the process ends, however it ends: the kernel closes the socket.
type Lock struct {
	socket *net.UnixListener
	done   chan struct{}
}

// Acquire takes the lock of the calling thread's network namespace. The error names the process that holds it.
func Acquire() (*Lock, error) {
	socket, err := net.ListenUnix("unix", &net.UnixAddr{Name: name, Net: "unix"})
	if errors.Is(err, unix.EADDRINUSE) {
		return nil, held()
	}
	if err != nil {
		return nil, fmt.Errorf("take the agent's lock: %w", err)
	}
	l := &Lock{socket: socket, done: make(chan struct{})}
	go l.answer()
	return l, nil
}

// answer takes the connections of those who ask the kernel who holds the lock, so that they do not pile up. Nothing is
// read or written.
func (l *Lock) answer() {
	defer close(l.done)
	for {
		conn, err := l.socket.Accept()
		if err != nil {
			return // released
		}
		_ = conn.Close() // nothing is left to be lost
	}
}

// Release gives the lock back.
func (l *Lock) Release() error {
	err := l.socket.Close()
	<-l.done
	return err
}

// held tells who holds the lock, as the kernel knows it.
func held() error {
	who := "another process"
	if cred, err := holder(); err == nil {
		who = fmt.Sprintf("process %d of user %d", cred.Pid, cred.Uid)
	}
	return fmt.Errorf("%s already acts as Raven's agent in this network namespace (it holds the abstract socket %s): "+
		"stop it first", who, name)
}

func holder() (cred *unix.Ucred, err error) {
	conn, err := net.DialTimeout("unix", name, time.Second)
	if err != nil {
		return nil, fmt.Errorf("connect to the lock: %w", err)
	}
	defer func() { _ = conn.Close() }()
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("reach the lock's socket: %w", err)
	}
	controlErr := raw.Control(func(fd uintptr) {
		cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	return cred, errors.Join(err, controlErr)
}
