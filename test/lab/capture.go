package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Capture collects the IP packets that pass a device in either direction, as tcpdump would show them.
type Capture struct {
	where   string
	file    *os.File
	done    chan struct{}
	mu      sync.Mutex
	packets []Packet
	changed chan struct{} // closed and replaced whenever a packet arrives
	err     error
}

// Capture begins to collect at a device of the host. Stop ends it.
func (h *Host) Capture(dev string) (*Capture, error) {
	link, err := h.Link(dev)
	if err != nil {
		return nil, err
	}
	// SOCK_DGRAM takes the link-layer header off and leaves the packet from the IP header on, on every kind of device.
	const everything = unix.SOCK_DGRAM | unix.SOCK_CLOEXEC | unix.SOCK_NONBLOCK
	fd := -1
	err = h.Do(func() error {
		fd, err = unix.Socket(unix.AF_PACKET, everything, 0)
		if err != nil {
			return fmt.Errorf("open a packet socket: %w", err)
		}
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20); err != nil {
			return fmt.Errorf("give the packet socket a large buffer: %w", err)
		}
		all := uint16(unix.ETH_P_ALL)
		return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all<<8 | all>>8, Ifindex: link.Attrs().Index})
	})
	if err != nil {
		if fd >= 0 {
			err = errors.Join(err, unix.Close(fd))
		}
		return nil, fmt.Errorf("capture at %s on %s: %w", dev, h.Name, err)
	}
	c := &Capture{
		where: dev + " on " + h.Name, file: os.NewFile(uintptr(fd), "packet socket"),
		done: make(chan struct{}), changed: make(chan struct{}),
	}
	go c.read()
	return c, nil
}

func (c *Capture) read() {
	defer close(c.done)
	raw, err := c.file.SyscallConn()
	if err != nil {
		c.fail(err)
		return
	}
	buf := make([]byte, 1<<17)
	var recvErr error
	one := func(fd uintptr) bool {
		var n int
		var from unix.Sockaddr
		if n, from, recvErr = unix.Recvfrom(int(fd), buf, 0); recvErr == nil {
			c.keep(buf[:n], from)
		}
		return !errors.Is(recvErr, unix.EAGAIN)
	}
	for recvErr == nil && err == nil {
		err = raw.Read(one)
	}
	if errors.Is(err, os.ErrDeadlineExceeded) { // Stop has set it; what had passed the device by then is in the queue
		recvErr, err = nil, nil
	}
	for recvErr == nil && err == nil {
		err = raw.Control(func(fd uintptr) { one(fd) })
	}
	if err = errors.Join(err, recvErr); !errors.Is(err, unix.EAGAIN) {
		c.fail(err)
	}
}

func (c *Capture) keep(raw []byte, from unix.Sockaddr) {
	p, ok := ParseIP(bytes.Clone(raw))
	if !ok {
		return
	}
	if ll, isLL := from.(*unix.SockaddrLinklayer); isLL {
		p.Outgoing = ll.Pkttype == unix.PACKET_OUTGOING
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.packets = append(c.packets, p)
	close(c.changed)
	c.changed = make(chan struct{})
}

func (c *Capture) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.err = fmt.Errorf("capture at %s: %w", c.where, err)
}

// Await waits until a packet for which match is true was captured, and returns it.
func (c *Capture) Await(ctx context.Context, what string, match func(Packet) bool) (Packet, error) {
	next := 0
	for {
		c.mu.Lock()
		packets, changed := c.packets, c.changed
		c.mu.Unlock()
		for ; next < len(packets); next++ {
			if match(packets[next]) {
				return packets[next], nil
			}
		}
		select {
		case <-changed:
		case <-c.done:
			return Packet{}, fmt.Errorf("wait for %s at %s: the capture has ended", what, c.where)
		case <-ctx.Done():
			return Packet{}, fmt.Errorf("wait for %s at %s: %w (%d other packets came)", what, c.where,
				context.Cause(ctx), len(packets))
		}
	}
}

// Stop ends the capture and returns all that had passed the device. An error says that packets are missing.
func (c *Capture) Stop() ([]Packet, error) {
	err := c.file.SetReadDeadline(time.Unix(0, 0)) // long past
	if err == nil {
		<-c.done
	}
	lost, lostErr := c.lost()
	err = errors.Join(err, lostErr, c.file.Close())
	<-c.done
	c.mu.Lock()
	defer c.mu.Unlock()
	if lost > 0 {
		err = errors.Join(err, fmt.Errorf("capture at %s: the buffer was too small for %d packets", c.where, lost))
	}
	return c.packets, errors.Join(c.err, err)
}

func (c *Capture) lost() (uint32, error) {
	raw, err := c.file.SyscallConn()
	if err != nil {
		return 0, err
	}
	var stats unix.TpacketStats
	var errno unix.Errno
	err = raw.Control(func(fd uintptr) {
		size := uint32(unsafe.Sizeof(stats))
		_, _, errno = unix.Syscall6(unix.SYS_GETSOCKOPT, fd, unix.SOL_PACKET, unix.PACKET_STATISTICS,
			uintptr(unsafe.Pointer(&stats)), uintptr(unsafe.Pointer(&size)), 0)
	})
	if err == nil && errno != 0 {
		err = errno
	}
	return stats.Drops, err
}
