package sysctl

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/ravencni/raven/pkg/datapath"
	"github.com/ravencni/raven/pkg/datapath/rtnl"
	"github.com/ravencni/raven/pkg/topology"
)

const (
	forward4 = "net/ipv4/ip_forward"
	forward6 = "net/ipv6/conf/all/forwarding"
	// The kernel sends an ICMP redirect where this or the device's own value is set; every device keeps its own value.
	sendRedirects = "net/ipv4/conf/all/send_redirects"
	// A stream whose middle the stack does not see has segments and resets outside conntrack's window.
	beLiberal        = "net/netfilter/nf_conntrack_tcp_be_liberal"
	ignoreInvalidRST = "net/netfilter/nf_conntrack_tcp_ignore_invalid_rst"
)

// ownDeviceSettings are for raven0 and the tunnel devices. rp_filter 2 is loose: a packet of another region comes in
// where a route leads back by any device, also under a strict conf/all, since the kernel takes the larger value.
func ownDeviceSettings(plan *topology.Plan, host datapath.Host) (settings []setting) {
	var names []string
	if plan.Overlay != nil {
		names = append(names, datapath.OverlayDevice)
	}
	if plan.Tunnel != nil {
		for _, d := range host.Incoming() {
			names = append(names, d.Name)
		}
	}
	for _, name := range names {
		v4, v6 := "net/ipv4/conf/"+name+"/", "net/ipv6/conf/"+name+"/"
		for _, s := range []setting{
			{key: v4 + "rp_filter", value: "2"},
			{key: v4 + "accept_redirects", value: "0"},
			{key: v4 + "send_redirects", value: "0"},
			{key: v4 + "forwarding", value: "1"},
			{key: v6 + "accept_ra", value: "0"},
			{key: v6 + "accept_redirects", value: "0"},
			{key: v6 + "forwarding", value: "1"},
		} {
			s.optional = true
			settings = append(settings, s)
		}
	}
	if plan.Overlay != nil {
		settings = append(settings, overlayMTU6(plan)...)
	}
	return settings
}

// overlayMTU6 makes IPv6 on raven0 end where its farthest next hop does. When the kernel forwards it judges an IPv6
// packet by this and not, as with IPv4, by the route's MTU; a pod would learn the device's MTU first and the path's
// only with its next packet. Narrower next hops go on to answer with their own.
func overlayMTU6(plan *topology.Plan) []setting {
	const minimum = 1280 // of IPv6 (RFC 8200, section 5)
	mtu := 0
	for _, h := range plan.NextHops {
		if h.Kind == topology.KindOverlay {
			mtu = max(mtu, h.MTU)
		}
	}
	if mtu < minimum || mtu > plan.Overlay.MTU {
		return nil
	}
	return []setting{{key: "net/ipv6/conf/" + datapath.OverlayDevice + "/mtu", value: strconv.Itoa(mtu), optional: true}}
}

// hostSettings lists what is wanted outside Raven's own devices. A member forwards between its pods and raven0, a
// gateway between all of them; with acceleration conntrack must accept streams that it saw only in part.
func (a *Applier) hostSettings(ctx context.Context, plan *topology.Plan, host datapath.Host,
	rec *record) (wanted []setting, err error) {
	if plan.Role != topology.RoleMember && plan.Role != topology.RoleGateway {
		return nil, nil
	}
	var errs []error
	if carries(plan, netip.Addr.Is4) {
		wanted = append(wanted, setting{key: forward4, value: "1", sides: forwardingSides("net/ipv4")})
	}
	if carries(plan, netip.Addr.Is6) {
		routers, err := acceptRouters(host, rec)
		errs = append(errs, err)
		wanted = append(wanted, routers...)
		wanted = append(wanted, setting{key: forward6, value: "1", optional: true, sides: forwardingSides("net/ipv6")})
	}
	if plan.Tunnel != nil {
		// A relay sends out of the device that a packet came in by.
		wanted = append(wanted, setting{key: sendRedirects, value: "0"})
	}
	if a.acceleration {
		if err := haveConntrack(ctx); err != nil {
			errs = append(errs, err)
		} else {
			wanted = append(wanted, setting{key: beLiberal, value: "1"}, setting{key: ignoreInvalidRST, value: "1"})
		}
	}
	return wanted, errors.Join(errs...)
}

// carries reports whether traffic of a family crosses this node.
func carries(plan *topology.Plan, family func(netip.Addr) bool) bool {
	for _, a := range []netip.Addr{plan.NodeIP4, plan.NodeIP6} {
		if a.IsValid() && family(a) {
			return true
		}
	}
	in := func(p netip.Prefix) bool { return family(p.Addr()) }
	return slices.ContainsFunc(plan.LocalPrefixes, in) ||
		slices.ContainsFunc(plan.Prefixes, func(p topology.Prefix) bool { return in(p.Prefix) })
}

// forwardingSides are the keys that the kernel rewrites when forwarding of a whole family is switched.
func forwardingSides(family string) []string {
	keys, err := filepath.Glob(filepath.Join(root, family, "conf/*/forwarding"))
	if err != nil {
		return nil // only a malformed pattern fails
	}
	sides := make([]string, 0, len(keys)+1)
	for _, k := range keys {
		if filepath.Base(filepath.Dir(k)) != "all" {
			sides = append(sides, k[len(root)+1:])
		}
	}
	if family == "net/ipv4" {
		sides = append(sides, "net/ipv4/conf/all/accept_redirects")
	}
	return sides
}

// acceptRouters keeps router advertisements working where they are accepted by default: with forwarding on, accept_ra=1
// means no, the default route goes and only 2 means yes. So it stands before forwarding. Where forwarding was on
// already nothing changes for the host and nothing is set.
func acceptRouters(host datapath.Host, rec *record) ([]setting, error) {
	value, err := Read(forward6)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // no IPv6 in this kernel
	}
	if err != nil {
		return nil, err
	}
	if value == "1" && !rec.has(forward6) {
		return nil, nil
	}
	names, err := advertisedDevices()
	for _, l := range host.Underlays {
		names = append(names, l.Name)
	}
	slices.Sort(names)
	var wanted []setting
	for _, name := range slices.Compact(names) {
		key := "net/ipv6/conf/" + name + "/accept_ra"
		if value, err := Read(key); rec.has(key) || err == nil && value == "1" {
			wanted = append(wanted, setting{key: key, value: "2", optional: true})
		}
	}
	return wanted, err
}

// advertisedDevices names the devices that routes from router advertisements leave by.
func advertisedDevices() ([]string, error) {
	c, err := rtnl.Open()
	if err != nil {
		return nil, err
	}
	defer c.Close() // nothing was written
	routes, err := c.Routes(unix.AF_INET6, unix.RT_TABLE_MAIN)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, r := range routes {
		if r.Protocol != unix.RTPROT_RA {
			continue
		}
		for _, index := range r.NextHops {
			if dev, err := net.InterfaceByIndex(index); err == nil {
				names = append(names, dev.Name)
			}
		}
	}
	return names, nil
}

// haveConntrack loads the module where the kernel has none; the datapath's kfuncs live in it too.
func haveConntrack(ctx context.Context) error {
	path := filepath.Join(root, beLiberal)
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	out, err := exec.CommandContext(ctx, "modprobe", "nf_conntrack").CombinedOutput()
	if _, missing := os.Stat(path); missing == nil {
		return nil
	}
	if err == nil {
		err = errors.New("modprobe reported success")
	}
	return fmt.Errorf("sysctl %s is absent and loading the module nf_conntrack did not help: %w: %s; load it on the host "+
		"(modprobe nf_conntrack) or switch acceleration off", beLiberal, err, out)
}
