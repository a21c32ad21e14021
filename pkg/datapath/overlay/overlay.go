// Package overlay keeps raven0, the VXLAN device between the nodes of one region, with its addresses, permanent
// neighbours and static forwarding entries as the Plan wants them.
package overlay

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ravencni/raven/pkg/datapath"
	"github.com/ravencni/raven/pkg/datapath/host"
	"github.com/ravencni/raven/pkg/datapath/sysctl"
	"github.com/ravencni/raven/pkg/topology"
)

// Applier implements datapath.Applier. raven0 is Raven's own device: whatever the Plan does not want on it goes away.
type Applier struct{}

var _ datapath.Applier = (*Applier)(nil)

// New makes the applier; it holds no state, the kernel does.
func New() *Applier { return &Applier{} }

// Name is overlay.
func (*Applier) Name() string { return "overlay" }

// Apply makes raven0 what the plan says, or removes it where the plan has no overlay. The device is made anew only
// where an attribute differs that the kernel cannot change; addresses, neighbours and forwarding entries then follow
// in the same call.
func (*Applier) Apply(ctx context.Context, plan *topology.Plan, _ datapath.Host) (int, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	if plan.Overlay == nil {
		return remove()
	}
	link, changes, err := ensureDevice(plan.Overlay)
	if err != nil {
		return changes, err
	}
	ipv6 := wantsIPv6(plan)
	var errs []error
	if ipv6 {
		if err := sysctl.IPv6On(datapath.OverlayDevice); err != nil {
			errs = append(errs, fmt.Errorf("leave IPv6 out of the overlay: %w", err))
			ipv6 = false
		}
	}
	if err := ctx.Err(); err != nil {
		return changes, err
	}
	for _, step := range []func() (int, error){
		func() (int, error) { return applyAddresses(link, addresses(plan, ipv6)) },
		func() (int, error) { return applyNeighbours(link.Attrs().Index, plan.Overlay, ipv6) },
	} {
		n, err := step()
		changes += n
		errs = append(errs, err)
	}
	return changes, errors.Join(errs...)
}

// Cleanup removes raven0.
func (*Applier) Cleanup(context.Context) error {
	_, err := remove()
	return err
}

// wantsIPv6 is true where anything of IPv6 goes over the overlay; elsewhere a host without IPv6 is no error.
func wantsIPv6(plan *topology.Plan) bool {
	if plan.NodeIP6.IsValid() || plan.Overlay.Underlay.Unmap().Is6() {
		return true
	}
	for _, p := range plan.Prefixes {
		if p.Prefix.Addr().Is6() {
			return true
		}
	}
	return false
}

// addresses lists what raven0 carries: the node's own, so that source selection and a loose rp_filter find one on the
// device, and the link-local made from its MAC.
func addresses(plan *topology.Plan, ipv6 bool) []netip.Prefix {
	var want []netip.Prefix
	if a := plan.NodeIP4; a.IsValid() {
		want = append(want, netip.PrefixFrom(a.Unmap(), 32))
	}
	if !ipv6 {
		return want
	}
	if a := plan.NodeIP6; a.IsValid() {
		want = append(want, netip.PrefixFrom(a, 128))
	}
	return append(want, netip.PrefixFrom(topology.LinkLocalFromMAC(plan.Overlay.MAC), 64))
}

func applyAddresses(link netlink.Link, want []netip.Prefix) (changes int, err error) {
	have, err := host.Addresses(unix.AF_UNSPEC)
	if err != nil {
		return 0, err
	}
	var errs []error
	present := map[netip.Prefix]bool{}
	for _, a := range have {
		if a.LinkIndex != link.Attrs().Index {
			continue
		}
		addr, _ := netip.AddrFromSlice(a.IP)
		ones, _ := a.Mask.Size()
		p := netip.PrefixFrom(addr.Unmap(), ones)
		if wanted(want, p) && a.Scope == scope(p) && a.Flags&unix.IFA_F_NOPREFIXROUTE != 0 {
			present[p] = true
			continue
		}
		if err := netlink.AddrDel(link, &a); err != nil {
			errs = append(errs, fmt.Errorf("remove address %s from %s: %w", p, datapath.OverlayDevice, err))
			continue
		}
		changes++
	}
	for _, p := range want {
		if present[p] {
			continue
		}
		if err := netlink.AddrAdd(link, address(p)); err != nil {
			errs = append(errs, fmt.Errorf("add address %s to %s: %w", p, datapath.OverlayDevice, err))
			continue
		}
		changes++
	}
	return changes, errors.Join(errs...)
}

func wanted(want []netip.Prefix, p netip.Prefix) bool {
	for _, w := range want {
		if w == p {
			return true
		}
	}
	return false
}

func scope(p netip.Prefix) int {
	if p.Addr().IsLinkLocalUnicast() {
		return unix.RT_SCOPE_LINK
	}
	return unix.RT_SCOPE_UNIVERSE
}

// address has no prefix route, so that the main table gets nothing from it, and no duplicate detection: the node's
// address stands on the underlay too, and nobody answers on the overlay.
func address(p netip.Prefix) *netlink.Addr {
	a := &netlink.Addr{IPNet: ipNet(p), Scope: scope(p), Flags: unix.IFA_F_NOPREFIXROUTE}
	if p.Addr().Is6() {
		a.Flags |= unix.IFA_F_NODAD
	}
	return a
}
