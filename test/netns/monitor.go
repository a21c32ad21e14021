package netns

import (
	"encoding/binary"
	"fmt"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// shownBytes of each event are enough to tell which object it is about.
const shownBytes = unix.NLMSG_HDRLEN + 48

// Monitor is a subscription to every kind of rtnetlink event of one namespace, as `ip monitor` has it.
type Monitor struct{ fd int }

// names of the events that a test may see; from linux/rtnetlink.h.
var names = map[uint16]string{
	unix.RTM_NEWLINK: "link set", unix.RTM_DELLINK: "link gone",
	unix.RTM_NEWADDR: "address set", unix.RTM_DELADDR: "address gone",
	unix.RTM_NEWROUTE: "route set", unix.RTM_DELROUTE: "route gone",
	unix.RTM_NEWNEIGH: "neighbour set", unix.RTM_DELNEIGH: "neighbour gone",
	unix.RTM_NEWRULE: "rule set", unix.RTM_DELRULE: "rule gone",
	unix.RTM_NEWNETCONF: "netconf set", unix.RTM_DELNETCONF: "netconf gone",
}

// NewMonitor subscribes in the namespace of the calling thread; the subscription ends with the test.
func NewMonitor(t *testing.T) *Monitor {
	t.Helper()
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		t.Fatalf("open a netlink socket: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Close(fd); err != nil {
			t.Errorf("close a netlink socket: %v", err)
		}
	})
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		t.Fatalf("bind a netlink socket: %v", err)
	}
	// Room for a burst of some thousand events; without the privilege the default has to do.
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 32<<20)
	for _, group := range []int{
		unix.RTNLGRP_LINK, unix.RTNLGRP_NEIGH, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR,
		unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE, unix.RTNLGRP_IPV4_RULE, unix.RTNLGRP_IPV6_RULE,
		unix.RTNLGRP_IPV4_NETCONF, unix.RTNLGRP_IPV6_NETCONF,
	} {
		if err := unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, group); err != nil {
			t.Fatalf("join netlink group %d: %v", group, err)
		}
	}
	return &Monitor{fd: fd}
}

// quiet is how long no event may come for a namespace to count as settled.
const quiet = 100 * time.Millisecond

// Settle returns what happened since the last call, one line an event, once no event has come for 100 ms: the kernel
// finishes work on IPv6 addresses and on links some time after the write that began it.
func (m *Monitor) Settle(t *testing.T) (events []string) {
	t.Helper()
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(m.fd), Events: unix.POLLIN}}, int(quiet.Milliseconds()))
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			t.Fatalf("wait for netlink events: %v", err)
		}
		if n == 0 {
			return events
		}
		events = append(events, m.Drain(t)...)
	}
}

// Drain returns what happened since the last call, one line an event, without waiting: the kernel queues the event of a
// route, rule or neighbour before the write that causes it returns.
func (m *Monitor) Drain(t *testing.T) (events []string) {
	t.Helper()
	buf := make([]byte, 64<<10)
	for {
		n, _, err := unix.Recvfrom(m.fd, buf, 0)
		if err == unix.EAGAIN {
			return events
		}
		if err != nil {
			t.Fatalf("receive netlink events: %v", err)
		}
		for b := buf[:n]; len(b) >= unix.NLMSG_HDRLEN; {
			size := int(binary.NativeEndian.Uint32(b))
			typ := binary.NativeEndian.Uint16(b[4:])
			if size < unix.NLMSG_HDRLEN || size > len(b) {
				t.Fatalf("netlink event claims %d of %d bytes", size, len(b))
			}
			name, ok := names[typ]
			if !ok {
				name = fmt.Sprintf("event %d", typ)
			}
			events = append(events, fmt.Sprintf("%s: %x", name, b[unix.NLMSG_HDRLEN:min(size, shownBytes)]))
			b = b[min((size+3)&^3, len(b)):]
		}
	}
}
