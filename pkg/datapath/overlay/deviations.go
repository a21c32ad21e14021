package overlay

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ravencni/raven/pkg/datapath"
	"github.com/ravencni/raven/pkg/datapath/host"
	"github.com/ravencni/raven/pkg/datapath/rtnl"
	"github.com/ravencni/raven/pkg/topology"
)

// Deviations lists what an Apply would write now, and writes nothing; empty: raven0 is as planned.
func Deviations(ctx context.Context, plan *topology.Plan) ([]string, error) {
	have, err := find()
	if err != nil {
		return nil, err
	}
	switch {
	case plan.Overlay == nil && have == nil:
		return nil, nil
	case plan.Overlay == nil:
		return []string{"device raven0 is not planned"}, nil
	case have == nil:
		return []string{"device raven0 is missing"}, nil
	case !sameDevice(have, plan.Overlay.Underlay):
		return []string{"device raven0 has another VNI, port or local address than planned"}, nil
	}
	var out []string
	attrs := have.Attrs()
	if attrs.MTU != plan.Overlay.MTU {
		out = append(out, fmt.Sprintf("device raven0 has MTU %d, planned is %d", attrs.MTU, plan.Overlay.MTU))
	}
	if !bytes.Equal(attrs.HardwareAddr, plan.Overlay.MAC) {
		out = append(out, fmt.Sprintf("device raven0 has MAC %s, planned is %s", attrs.HardwareAddr, plan.Overlay.MAC))
	}
	if attrs.MasterIndex != 0 {
		out = append(out, "device raven0 is a port of another device")
	}
	if attrs.Flags&net.FlagUp == 0 {
		out = append(out, "device raven0 is down")
	}
	if err := ctx.Err(); err != nil {
		return out, err
	}
	missing, err := missingAddresses(attrs.Index, addresses(plan, wantsIPv6(plan)))
	more, neighErr := neighbourDeviations(attrs.Index, plan)
	return append(append(out, missing...), more...), errors.Join(err, neighErr)
}

func missingAddresses(device int, want []netip.Prefix) (out []string, err error) {
	have, err := host.Addresses(unix.AF_UNSPEC)
	if err != nil {
		return nil, err
	}
	present := map[netip.Prefix]bool{}
	for _, a := range have {
		if a.LinkIndex == device {
			addr, _ := netip.AddrFromSlice(a.IP)
			ones, _ := a.Mask.Size()
			present[netip.PrefixFrom(addr.Unmap(), ones)] = true
		}
	}
	for _, p := range want {
		if !present[p] {
			out = append(out, fmt.Sprintf("device raven0 lacks the address %s", p))
		}
	}
	return out, nil
}

func neighbourDeviations(device int, plan *topology.Plan) (out []string, err error) {
	c, err := rtnl.Open()
	if err != nil {
		return nil, err
	}
	defer c.Close() // nothing was written
	names := map[netip.Addr]string{}
	for _, n := range plan.Overlay.Neighbours {
		names[n.Underlay], names[n.LinkLocal6()] = n.Node, n.Node
	}
	families := []uint8{unix.AF_INET, unix.AF_BRIDGE}
	if wantsIPv6(plan) {
		families = append(families, unix.AF_INET6)
	}
	var errs []error
	for _, family := range families {
		want, err := entries(family, device, plan.Overlay)
		errs = append(errs, err)
		have, err := c.Neighbours(family, device)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		writes := diffNeighbours
		if family == unix.AF_BRIDGE {
			writes = diffForwarding
		}
		for _, w := range writes(want, have) {
			text := rtnl.Describe(w)
			for addr, node := range names {
				if strings.Contains(text+" ", " "+addr.String()+" ") {
					text += " (node " + node + ")"
					break
				}
			}
			out = append(out, text+" on "+datapath.OverlayDevice)
		}
	}
	return out, errors.Join(errs...)
}
