package netns

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// readyWithin bounds the wait for work that the kernel does in the background, on a busy machine.
const readyWithin = 20 * time.Second

// Ready waits until the kernel has finished with a device of the current namespace that was set up or addressed: it
// runs, and where IPv6 is on it has an address, each with its route in the local table. The events of all this
// come before Ready returns.
func Ready(t *testing.T, name string) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(readyWithin); ; <-tick.C {
		why := notReady(name)
		if why == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("device %s is not ready after %v: %s", name, readyWithin, why)
		}
	}
}

func notReady(name string) (why string) {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return err.Error()
	}
	if state := link.Attrs().OperState; state != netlink.OperUp && state != netlink.OperUnknown {
		return fmt.Sprintf("its state is %s", state)
	}
	if off, err := os.ReadFile("/proc/sys/net/ipv6/conf/" + name + "/disable_ipv6"); err != nil || off[0] != '0' {
		return ""
	}
	addrs, err := netlink.AddrList(link, netlink.FAMILY_V6)
	if err != nil {
		return err.Error()
	}
	filter := &netlink.Route{Table: unix.RT_TABLE_LOCAL, LinkIndex: link.Attrs().Index}
	routes, err := netlink.RouteListFiltered(netlink.FAMILY_V6, filter, netlink.RT_FILTER_TABLE|netlink.RT_FILTER_OIF)
	if err != nil {
		return err.Error()
	}
	local := map[string]bool{}
	for _, r := range routes {
		if r.Type == unix.RTN_LOCAL && r.Dst != nil {
			local[r.Dst.IP.String()] = true
		}
	}
	for _, a := range addrs {
		if a.Flags&unix.IFA_F_TENTATIVE != 0 || !local[a.IP.String()] {
			return fmt.Sprintf("its address %s is not in use yet", a.IP)
		}
	}
	if len(addrs) == 0 {
		return "it has no IPv6 address yet"
	}
	return ""
}
