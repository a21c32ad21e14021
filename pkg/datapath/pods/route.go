package pods

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ravencni/raven/pkg/datapath/accel/device"
)

// routeElsewhere is empty where the kernel sends packets for addr to the device, and else says where. It keeps a pod
// that gave itself another one's address from being believed.
func routeElsewhere(routes *netlink.Handle, addr netip.Addr, to device.Device) (string, error) {
	list, err := routes.RouteGet(addr.AsSlice())
	// The last two are what blackhole and prohibit routes answer.
	if errors.Is(err, unix.ENETUNREACH) || errors.Is(err, unix.EHOSTUNREACH) || errors.Is(err, unix.EINVAL) ||
		errors.Is(err, unix.EACCES) {
		return fmt.Sprintf("the kernel has no route to its address %s", addr), nil
	}
	if err != nil {
		return "", fmt.Errorf("ask the kernel for the route to %s: %w", addr, err)
	}
	for _, r := range list {
		if r.LinkIndex != to.Index || r.Gw != nil {
			return fmt.Sprintf("the kernel's route to its address %s does not lead to %s", addr, to.Name), nil
		}
	}
	return "", nil
}
