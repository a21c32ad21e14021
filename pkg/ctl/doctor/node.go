package doctor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// skew is how far a time may lie in the future before a clock is called wrong.
const skew = 5 * time.Second

func kernelFits(_ context.Context, s *Subject) (out []Finding) {
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return unknown(err)
	}
	release := unix.ByteSliceToString(uts.Release[:])
	var major, minor int
	if _, err := fmt.Sscanf(release, "%d.%d", &major, &minor); err == nil && (major < 6 || major == 6 && minor < 1) {
		out = append(out, warn("Linux "+release+" is older than 6.1: nothing is accelerated", "update the kernel to be faster"))
	}
	if _, err := os.Stat("/sys/kernel/btf/vmlinux"); err != nil {
		out = append(out, warn("the kernel has no BTF, which acceleration needs", "use a kernel with CONFIG_DEBUG_INFO_BTF"))
	}
	var f unix.Statfs_t
	if err := unix.Statfs("/sys/fs/bpf", &f); err != nil || f.Type != unix.BPF_FS_MAGIC {
		out = append(out, warn("no BPF file system is mounted at /sys/fs/bpf", "mount -t bpf bpf /sys/fs/bpf"))
	}
	if _, err := os.Stat("/proc/sys/net/netfilter/nf_conntrack_count"); err != nil && s.planned() {
		out = append(out, fail("the module nf_conntrack is not loaded", "modprobe nf_conntrack"))
	}
	count, most := number("/proc/sys/net/netfilter/nf_conntrack_count"), number("/proc/sys/net/netfilter/nf_conntrack_max")
	if most > 0 && count*10 >= most*9 {
		out = append(out, fail(fmt.Sprintf("the connection tracking table is full: %d of %d", count, most),
			"raise net.netfilter.nf_conntrack_max, and see who opens so many connections"))
	}
	return out
}

// number is 0 where the file holds none.
func number(path string) int {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	n, _ := strconv.Atoi(strings.TrimSpace(string(b)))
	return n
}

func underlayStands(_ context.Context, s *Subject) (out []Finding) {
	if s.HostErr != nil {
		return []Finding{fail(s.HostErr.Error(), "bring the node's address and device back (ip address; ip link), or correct the Node object")}
	}
	if !s.planned() {
		return nil
	}
	for _, u := range s.Host.Underlays {
		l, err := netlink.LinkByIndex(u.Index)
		if err != nil {
			return unknown(err)
		}
		a := l.Attrs()
		if a.Flags&net.FlagUp == 0 || a.OperState == netlink.OperDown || a.OperState == netlink.OperLowerLayerDown {
			out = append(out, fail(fmt.Sprintf("the underlay device %s is down", u.Name), "ip link set "+u.Name+" up; see the cable or the virtual network"))
		}
	}
	if s.Plan.Tunnel == nil {
		return out
	}
	for _, p := range s.Plan.Tunnel.Peers {
		if !p.Endpoint.IsValid() {
			continue
		}
		if _, err := netlink.RouteGet(p.Endpoint.Addr().AsSlice()); err != nil {
			out = append(out, fail(fmt.Sprintf("no route leads to %s, where %s is dialled: %v", p.Endpoint, p.Node, err),
				"bring the default route back (ip route)"))
		}
	}
	return out
}

func clockGoesOn(_ context.Context, s *Subject) (out []Finding) {
	now := time.Now()
	const remedy = "set the clock by NTP (timedatectl); WireGuard refuses handshakes that seem older than the last"
	if ahead := s.Saved.Sub(now); ahead > skew {
		out = append(out, fail(fmt.Sprintf("the clock is wrong: the snapshot was saved %s in the future", ahead.Round(time.Second)), remedy))
	}
	if s.Report != nil {
		for _, p := range s.Report.Peers {
			if p.HandshakeAge != nil && *p.HandshakeAge < -skew.Seconds() {
				out = append(out, fail(fmt.Sprintf("the clock is wrong: the last handshake with %s lies in the future", p.Node), remedy))
			}
		}
	}
	return out
}

// mtuFits finds the way to a peer narrower than the tunnel was made for.
func mtuFits(_ context.Context, s *Subject) (out []Finding) {
	if !s.planned() || s.Plan.Tunnel == nil {
		return nil
	}
	for _, d := range s.Host.Tunnels() {
		if d.Index == 0 || d.MTU == s.Plan.Tunnel.MTU {
			continue
		}
		out = append(out, fail(fmt.Sprintf("device %s has MTU %d, planned is %d", d.Name, d.MTU, s.Plan.Tunnel.MTU), restart))
	}
	for _, p := range s.Plan.Tunnel.Peers {
		if !p.Endpoint.IsValid() {
			continue
		}
		routes, err := netlink.RouteGet(p.Endpoint.Addr().AsSlice())
		if err != nil || len(routes) == 0 {
			continue // told by the check of the underlay
		}
		device := 0
		if l, err := netlink.LinkByIndex(routes[0].LinkIndex); err == nil {
			device = l.Attrs().MTU
		}
		if mtu := routes[0].MTU; mtu > 0 && mtu < device {
			out = append(out, warn(fmt.Sprintf("the way to %s (%s) carries only %d bytes, and the underlay's device %d", p.Node, p.Endpoint, mtu, device),
				fmt.Sprintf("raise the MTU on the way, or lower that of the underlay's device to %d, which Raven follows", mtu)))
		}
	}
	return out
}

// portsBound looks whether something listens at the tunnel's port.
func portsBound(_ context.Context, s *Subject) []Finding {
	if !s.planned() || s.Plan.Tunnel == nil || s.Plan.Tunnel.ListenPort == 0 {
		return nil
	}
	want := fmt.Sprintf(":%04X", s.Plan.Tunnel.ListenPort)
	for _, file := range []string{"/proc/net/udp", "/proc/net/udp6"} {
		b, err := os.ReadFile(file)
		if err != nil {
			continue // a kernel without the family
		}
		for line := range strings.Lines(string(b)) {
			if f := strings.Fields(line); len(f) > 1 && strings.HasSuffix(f[1], want) {
				return nil
			}
		}
	}
	return []Finding{fail(fmt.Sprintf("nothing listens at UDP port %d, where the tunnels come in", s.Plan.Tunnel.ListenPort),
		"see the tunnel's device and its process; "+restart)}
}

// pluginChained looks whether the runtime's first configuration chains the plugin, where it is installed.
func pluginChained(_ context.Context, s *Subject) []Finding {
	if _, err := os.Stat(filepath.Join(s.CNIBinaries, "raven-cni")); err != nil {
		return nil // not installed: the agent attaches pods
	}
	files, err := filepath.Glob(filepath.Join(s.CNIConfig, "*.conflist"))
	if err != nil || len(files) == 0 {
		return []Finding{warn("there is no CNI configuration in "+s.CNIConfig, "install the cluster's network plugin")}
	}
	b, err := os.ReadFile(files[0])
	if err != nil {
		return unknown(err)
	}
	var list struct {
		Plugins []struct{ Type string }
	}
	if err := json.Unmarshal(b, &list); err != nil {
		return []Finding{fail(fmt.Sprintf("%s is no CNI configuration: %v", files[0], err), "restore the file; the runtime starts no pods")}
	}
	for _, p := range list.Plugins {
		if strings.HasPrefix(p.Type, "raven") {
			return nil
		}
	}
	if parts, err := filepath.Glob(filepath.Join(s.CNIConfig, "*", "*raven*")); err == nil && len(parts) > 0 {
		return nil // a drop-in
	}
	return []Finding{warn(files[0]+" does not chain raven-cni: new pods are accelerated only once the agent has seen them",
		"let raven-agent insert it (see docs/contract.md), and see who rewrites the file")}
}

func stateKept(_ context.Context, s *Subject) (out []Finding) {
	var f unix.Statfs_t
	if err := unix.Statfs(s.StateDir, &f); err != nil {
		return []Finding{fail(fmt.Sprintf("the state folder %s cannot be looked at: %v", s.StateDir, err), "mount the host's folder there")}
	}
	if f.Blocks > 0 && f.Bavail*100 < f.Blocks {
		out = append(out, fail("the disk of "+s.StateDir+" is full: the last good input cannot be kept", "make room"))
	}
	if f.Flags&unix.ST_RDONLY != 0 {
		out = append(out, fail("the state folder "+s.StateDir+" is read-only", "mount it writable"))
	}
	keys, err := filepath.Glob(filepath.Join(s.StateDir, "*.key"))
	if err != nil {
		return unknown(err)
	}
	for _, k := range keys {
		info, err := os.Stat(k)
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			out = append(out, fail(fmt.Sprintf("the key %s may be read by others: %v", k, info.Mode().Perm()), "chmod 600 "+k+", and make a new one"))
		}
	}
	if _, err := os.Stat(filepath.Join(s.StateDir, "snapshot.json.bad")); !errors.Is(err, fs.ErrNotExist) {
		out = append(out, warn("a damaged snapshot was put aside in "+s.StateDir, "see the disk; remove snapshot.json.bad afterwards"))
	}
	if s.State == nil && s.Report != nil && s.Report.Synced {
		out = append(out, fail("no usable snapshot is in "+s.StateDir+": without its API server this node would not come back",
			"see whether the disk is full or read-only; the agent writes it anew with the next change"))
	}
	return out
}
