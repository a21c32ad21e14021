package accel

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ravencni/raven/pkg/datapath"
	"github.com/ravencni/raven/pkg/topology"
)

// conntrackDir holds conntrack's sysctls of the calling thread's network namespace.
const conntrackDir = "/proc/sys/net/netfilter"

// configOf reads what the programs need to know about this node: its role, conntrack's timeouts in seconds, ports, and
// the overlay's device. It does not know that device's index, which changes when others delete it.
func configOf(plan *topology.Plan, host datapath.Host, handshakesPerSecond int) (nodeConfig, error) {
	c := nodeConfig{
		Flags:               flagAccelerate,
		HandshakesPerSecond: uint32(max(0, handshakesPerSecond)),
		OverlayPort:         datapath.OverlayPort,
	}
	if plan.Role == topology.RoleGateway {
		c.Flags |= flagGateway
	}
	if usesDirect(plan) {
		c.Flags |= flagDirect
	}
	if plan.Overlay != nil && plan.Overlay.Underlay.Unmap().Is4() {
		c.OverlayVni, c.Underlay = datapath.OverlayVNI, plan.Overlay.Underlay.Unmap().As4()
	}
	if plan.Tunnel != nil {
		c.TunnelPort = uint16(plan.Tunnel.ListenPort)
		if v := host.Tunnel.VXLAN; v.VNI != 0 {
			c.TunnelVni, c.TunnelIfindex, c.TunnelAddress = v.VNI, uint32(host.Tunnel.Index), v.Address.As4()
		}
	}
	for _, timeout := range []struct {
		name string
		to   *uint32
	}{
		{"nf_conntrack_tcp_timeout_established", &c.TcpEstablishedS},
		{"nf_conntrack_udp_timeout", &c.UdpS},
		{"nf_conntrack_udp_timeout_stream", &c.UdpStreamS},
	} {
		seconds, err := readNumber(filepath.Join(conntrackDir, timeout.name))
		if err != nil {
			return c, err
		}
		*timeout.to = seconds
	}
	// The coarse clock advances once a jiffy, the unit of conntrack's timers.
	var tick unix.Timespec
	if err := unix.ClockGetres(unix.CLOCK_MONOTONIC_COARSE, &tick); err != nil {
		return c, fmt.Errorf("read the length of the kernel's tick: %w", err)
	}
	c.TickNs = uint32(tick.Nano())
	return c, nil
}

func readNumber(path string) (uint32, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, fmt.Errorf("read %s: %w", path, err)
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 32)
	if err != nil {
		return 0, fmt.Errorf("read %s: %w", path, err)
	}
	return uint32(n), nil
}
