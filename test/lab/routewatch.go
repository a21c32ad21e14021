package lab

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// RouteEvent is a rule or route of one of the watched tables that came or went.
type RouteEvent struct {
	At time.Time
	// Gone is false where it came.
	Gone bool
	// Key names the object; it is the same when it comes back.
	Key string
}

// RouteWatch collects what happens to the rules and routes of a few tables, with the time when it was told.
type RouteWatch struct {
	file   *os.File
	done   chan struct{}
	tables []uint32
	mu     sync.Mutex
	events []RouteEvent
	err    error
}

// WatchRoutes begins to collect. Stop ends it.
func (h *Host) WatchRoutes(tables ...uint32) (*RouteWatch, error) {
	fd := -1
	err := h.Do(func() (err error) {
		fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
		if err != nil {
			return fmt.Errorf("open a netlink socket: %w", err)
		}
		if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
			return fmt.Errorf("bind a netlink socket: %w", err)
		}
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20); err != nil {
			return fmt.Errorf("give the netlink socket a large buffer: %w", err)
		}
		for _, group := range []int{
			unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV4_RULE, unix.RTNLGRP_IPV6_ROUTE, unix.RTNLGRP_IPV6_RULE,
		} {
			if err := unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, group); err != nil {
				return fmt.Errorf("subscribe to routes and rules: %w", err)
			}
		}
		return nil
	})
	if err != nil {
		if fd >= 0 {
			err = errors.Join(err, unix.Close(fd))
		}
		return nil, fmt.Errorf("watch the routes of %s: %w", h.Name, err)
	}
	w := &RouteWatch{file: os.NewFile(uintptr(fd), "netlink"), done: make(chan struct{}), tables: tables}
	go w.read()
	return w, nil
}

func (w *RouteWatch) read() {
	defer close(w.done)
	buf := make([]byte, 64<<10)
	for {
		n, err := w.file.Read(buf)
		now := time.Now()
		w.mu.Lock()
		if err != nil && !errors.Is(err, os.ErrClosed) {
			w.err = fmt.Errorf("read route events: %w", err)
		}
		for b := buf[:max(n, 0)]; err == nil && len(b) >= unix.SizeofNlMsghdr; {
			size := int(binary.NativeEndian.Uint32(b))
			if size < unix.SizeofNlMsghdr || size > len(b) {
				break
			}
			if e, ok := w.event(binary.NativeEndian.Uint16(b[4:]), b[unix.SizeofNlMsghdr:size]); ok {
				e.At = now
				w.events = append(w.events, e)
			}
			b = b[min((size+3)&^3, len(b)):]
		}
		w.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// event reads a message. Rules and routes have headers of the same form: family, length of the destination, ..., table
// at byte 4; and the table in full as an attribute.
func (w *RouteWatch) event(kind uint16, b []byte) (e RouteEvent, ok bool) {
	var what string
	switch kind {
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
		what = "route"
	case unix.RTM_NEWRULE, unix.RTM_DELRULE:
		what = "rule"
	}
	if what == "" || len(b) < unix.SizeofRtMsg {
		return e, false
	}
	table, dst := uint32(b[4]), ""
	for rest := b[unix.SizeofRtMsg:]; len(rest) >= 4; {
		size, attr := int(binary.NativeEndian.Uint16(rest)), binary.NativeEndian.Uint16(rest[2:])
		if size < 4 || size > len(rest) {
			break
		}
		switch {
		case attr == unix.RTA_TABLE && size == 8: // FRA_TABLE is the same number
			table = binary.NativeEndian.Uint32(rest[4:])
		case attr == unix.RTA_DST:
			dst = string(rest[4:size])
		}
		rest = rest[min((size+3)&^3, len(rest)):]
	}
	e.Gone = kind == unix.RTM_DELROUTE || kind == unix.RTM_DELRULE
	e.Key = fmt.Sprintf("%s family %d table %d %x/%d", what, b[0], table, dst, b[1])
	return e, slices.Contains(w.tables, table)
}

// Events returns those since the last call.
func (w *RouteWatch) Events() ([]RouteEvent, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	events := w.events
	w.events = nil
	return events, w.err
}

// Stop ends the collection.
func (w *RouteWatch) Stop() error {
	err := w.file.Close()
	<-w.done
	return err
}
