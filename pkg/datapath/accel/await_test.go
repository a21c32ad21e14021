package accel

import (
	"context"
	"errors"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ravencni/raven/pkg/datapath/pods/podtest"
)

// awaitNoXDP waits for the kernel to end an XDP link, which it does some time after its last user.
func awaitNoXDP(t *testing.T, device string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		if x := podtest.Link(t, device).Attrs().Xdp; x == nil || !x.Attached {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("the XDP program on %s did not go", device)
		case <-tick.C:
		}
	}
}

// tcMonitor listens for changes of filters and qdiscs; the function returned lists those so far, which the kernel queues
// before the request that caused them returns.
func tcMonitor(t *testing.T) func() []string {
	t.Helper()
	s, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	must(t, err)
	t.Cleanup(func() { must(t, unix.Close(s)) })
	must(t, unix.Bind(s, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1 << (unix.RTNLGRP_TC - 1)}))
	names := map[uint16]string{
		unix.RTM_NEWQDISC: "new qdisc", unix.RTM_DELQDISC: "deleted qdisc",
		unix.RTM_NEWTFILTER: "new filter", unix.RTM_DELTFILTER: "deleted filter",
	}
	return func() (events []string) {
		buf := make([]byte, 64<<10)
		for {
			n, _, err := unix.Recvfrom(s, buf, unix.MSG_DONTWAIT)
			if errors.Is(err, unix.EAGAIN) {
				return events
			}
			must(t, err)
			messages, err := syscall.ParseNetlinkMessage(buf[:n])
			must(t, err)
			for _, m := range messages {
				events = append(events, names[m.Header.Type])
			}
		}
	}
}
