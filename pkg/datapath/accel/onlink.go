package accel

import (
	"net/netip"

	"github.com/vishvananda/netlink"
)

// onLink returns the index of the device by which the kernel reaches addr without a gateway, or 0.
func onLink(addr netip.Addr) int {
	routes, err := netlink.RouteGet(addr.AsSlice())
	if err != nil || len(routes) != 1 || routes[0].Gw != nil {
		return 0
	}
	return routes[0].LinkIndex
}
