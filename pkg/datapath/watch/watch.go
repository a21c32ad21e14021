// Package watch tells, by subscription to the kernel's own events, that something of Raven's may have changed, so that
// it is repaired at once instead of at the next resync.
package watch

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	// receiveBytes holds any one datagram of events.
	receiveBytes = 64 << 10
	// queueBytes is room for bursts, such as thousands of routes going at once. An overflow is no loss: it signals too.
	queueBytes = 4 << 20
)

// linksMaxInterval bounds the growth for devices: pods that come and go all the time are no fight, and each waits for
// its look.
const linksMaxInterval = 250 * time.Millisecond

// groups of rtnetlink events. TC tells of qdiscs and filters that others attach to pods' devices, NETCONF of forwarding
// and rp_filter.
var groups = []int{
	unix.RTNLGRP_LINK, unix.RTNLGRP_NEIGH, unix.RTNLGRP_TC,
	unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV4_RULE, unix.RTNLGRP_IPV4_NETCONF,
	unix.RTNLGRP_IPV6_IFADDR, unix.RTNLGRP_IPV6_ROUTE, unix.RTNLGRP_IPV6_RULE, unix.RTNLGRP_IPV6_NETCONF,
}

// Options of a Watcher; zero values mean the defaults.
type Options struct {
	// Interval is the least time between two signals of one kind, but for the first, which comes at once: 25 ms.
	Interval time.Duration
	// MaxInterval is what the interval grows to while events do not cease, as in a fight with another program: 2 s.
	MaxInterval time.Duration
}

// Watcher turns kernel events into three damped signals. A signal means "look again", never what happened: events that
// come while one is pending merge into it, and what a repair itself writes causes one more look that finds nothing.
type Watcher struct {
	file    *os.File
	kernel  *damper
	routes  *damper
	links   *damper
	devices map[int]device // by index
	tracked atomic.Pointer[map[int]bool]
}

// New subscribes in the network namespace of the calling thread. What happens after New is not missed; call Run to
// have it delivered.
func New(o Options) (*Watcher, error) {
	if o.Interval == 0 {
		o.Interval = 25 * time.Millisecond
	}
	if o.MaxInterval == 0 {
		o.MaxInterval = 2 * time.Second
	}
	fd, err := subscribe()
	if err != nil {
		return nil, err
	}
	w := &Watcher{
		file: os.NewFile(uintptr(fd), "rtnetlink events"), devices: map[int]device{},
		kernel: newDamper(o.Interval, o.MaxInterval), routes: newDamper(o.Interval, o.MaxInterval),
		links: newDamper(o.Interval, min(o.MaxInterval, linksMaxInterval)),
	}
	w.tracked.Store(&map[int]bool{})
	links, err := netlink.LinkList()
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) { // a change meanwhile comes as an event
		return nil, errors.Join(fmt.Errorf("list network devices: %w", err), w.file.Close())
	}
	for _, l := range links {
		w.devices[l.Attrs().Index] = device{name: l.Attrs().Name, kind: l.Type()}
	}
	return w, nil
}

func subscribe() (int, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return 0, fmt.Errorf("open a netlink socket for events: %w", err)
	}
	fail := func(what string, err error) (int, error) {
		return 0, errors.Join(fmt.Errorf("%s a netlink socket for events: %w", what, err), unix.Close(fd))
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fail("bind", err)
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, queueBytes); err != nil {
		// Without CAP_NET_ADMIN in the first user namespace the kernel's own limit has to do.
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, queueBytes); err != nil {
			return fail("size", err)
		}
	}
	for _, g := range groups {
		if err := unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, g); err != nil {
			return fail(fmt.Sprintf("join group %d by", g), err)
		}
	}
	return fd, nil
}

// Routes signals that rules or routes of Raven's own tables changed, which concerns no other applier: network managers
// remove them all at once, and every look at something else would be lost time.
func (w *Watcher) Routes() <-chan struct{} { return w.routes.out }

// Kernel signals that something else of Raven's may be damaged, or that the underlay changed under it: time to apply.
func (w *Watcher) Kernel() <-chan struct{} { return w.kernel.out }

// Links signals that some device came, went or changed, or what is attached to it: time to look at the pods' devices.
func (w *Watcher) Links() <-chan struct{} { return w.links.out }

// Track names by index the devices whose own changes matter besides Raven's: the underlays, and a tunnel device of
// another name than raven-*. It replaces what an earlier call named, and may be called from any goroutine.
func (w *Watcher) Track(indices ...int) {
	tracked := make(map[int]bool, len(indices))
	for _, i := range indices {
		tracked[i] = true
	}
	w.tracked.Store(&tracked)
}

// Run delivers signals until ctx ends, and then returns nil. It is called once, on any goroutine.
func (w *Watcher) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { w.file.Close() }) // wakes the read below
	defer func() {
		if stop() {
			w.file.Close()
		}
	}()
	buf := make([]byte, receiveBytes)
	for {
		now := time.Now()
		due := earliest(earliest(w.kernel.flush(now), w.routes.flush(now)), w.links.flush(now))
		n, err := w.receive(buf, due)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, os.ErrDeadlineExceeded):
		case errors.Is(err, unix.ENOBUFS): // events were lost: anything may have changed
			w.kernel.event()
			w.routes.event()
			w.links.event()
		case err != nil:
			return fmt.Errorf("receive kernel events: %w", err)
		default:
			w.read(buf[:n])
		}
	}
}

// receive waits for a datagram until due; the zero time means without end.
func (w *Watcher) receive(buf []byte, due time.Time) (n int, err error) {
	conn, err := w.file.SyscallConn()
	if err != nil {
		return 0, err
	}
	if err := w.file.SetReadDeadline(due); err != nil {
		return 0, err
	}
	var received error
	err = conn.Read(func(fd uintptr) bool {
		n, _, received = unix.Recvfrom(int(fd), buf, 0)
		return received != unix.EAGAIN && received != unix.EINTR
	})
	return n, errors.Join(err, received)
}

// read takes a datagram apart into messages.
func (w *Watcher) read(b []byte) {
	for len(b) >= unix.NLMSG_HDRLEN {
		size := int(binary.NativeEndian.Uint32(b))
		if size < unix.NLMSG_HDRLEN || size > len(b) {
			return
		}
		for _, signal := range w.classify(binary.NativeEndian.Uint16(b[4:]), b[unix.NLMSG_HDRLEN:size]) {
			signal.event()
		}
		b = b[min((size+3)&^3, len(b)):]
	}
}
