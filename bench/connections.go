package bench

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

const (
	// connectPort is where the far end accepts.
	connectPort = 7002
	// connecting is how many connections are made at a time: enough to keep the machine's processors busy.
	connecting = 4
	// silence is how long an end may wait for the other in seconds: a lost SYN is sent again after one.
	silence = 5
)

// connections counts TCP connections per second: each carries a byte either way, and the far end closes it first, so that
// the near one's ports are free again at once. System calls block their threads: what wakes a Go runtime would be a good
// part of what is measured.
func (b *bed) connections(ctx context.Context, each time.Duration) (values map[string]float64, err error) {
	listener, err := b.listen()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, closeSocket(listener)) }()
	var ends errgroup.Group
	for range connecting {
		ends.Go(func() error { return b.server.Do(func() error { return accept(listener) }) })
	}
	var made atomic.Int64
	begin := time.Now()
	until := begin.Add(each)
	var clients errgroup.Group
	for range connecting {
		clients.Go(func() error {
			return b.client.Do(func() error {
				for time.Now().Before(until) && ctx.Err() == nil {
					if err := b.connect(); err != nil {
						return err
					}
					made.Add(1)
				}
				return ctx.Err()
			})
		})
	}
	err = clients.Wait()
	seconds := time.Since(begin).Seconds()
	// Whoever waits in accept learns of it.
	err = errors.Join(err, unix.Shutdown(listener, unix.SHUT_RDWR), ends.Wait())
	if err != nil {
		return nil, fmt.Errorf("make connections from %s to %s: %w", b.client.Name, b.server.Name, err)
	}
	return map[string]float64{Connections: float64(made.Load()) / seconds}, nil
}

func (b *bed) listen() (fd int, err error) {
	err = b.server.Do(func() error {
		if fd, err = socket(); err != nil {
			return err
		}
		err := errors.Join(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1),
			unix.Bind(fd, &unix.SockaddrInet4{Port: connectPort}), unix.Listen(fd, 1024))
		if err != nil {
			return errors.Join(fmt.Errorf("listen on port %d of %s: %w", connectPort, b.server.Name, err), closeSocket(fd))
		}
		return nil
	})
	return fd, err
}

func socket() (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("open a socket: %w", err)
	}
	return fd, nil
}

func closeSocket(fd int) error {
	if err := unix.Close(fd); err != nil {
		return fmt.Errorf("close a socket: %w", err)
	}
	return nil
}

// accept answers until the listener is shut down.
func accept(listener int) error {
	for {
		fd, _, err := unix.Accept4(listener, unix.SOCK_CLOEXEC)
		switch {
		case errors.Is(err, unix.EINVAL): // shut down
			return nil
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.ECONNABORTED):
			continue
		case err != nil:
			return fmt.Errorf("accept: %w", err)
		}
		var one [1]byte
		_, err = read(fd, one[:])
		if err == nil {
			_, err = unix.Write(fd, one[:])
		}
		if err := errors.Join(err, closeSocket(fd)); err != nil {
			return err
		}
	}
}

func (b *bed) connect() error {
	fd, err := socket()
	if err != nil {
		return err
	}
	limit := &unix.Timeval{Sec: silence}
	err = errors.Join(unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, limit),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, limit))
	for again := err == nil; again; again = errors.Is(err, unix.EINTR) {
		err = unix.Connect(fd, &unix.SockaddrInet4{Port: connectPort, Addr: b.to.As4()})
	}
	one := [1]byte{1}
	if err == nil {
		_, err = unix.Write(fd, one[:])
	}
	for n := 1; err == nil && n > 0; { // the byte, then the end
		n, err = read(fd, one[:])
	}
	return errors.Join(err, closeSocket(fd))
}

// read goes on after a signal: the Go runtime sends some.
func read(fd int, p []byte) (int, error) {
	for {
		n, err := unix.Read(fd, p)
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}
