package checks

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path"
	"strings"

	"github.com/cilium/ebpf"

	"github.com/ravencni/raven/bpf"
	"github.com/ravencni/raven/test/lab"
)

// elsewhere is a third region, of which there are only the objects: packets with its pods' sources may come out of
// either gateway's tunnel.
const elsewhere = `apiVersion: raven.openyurt.io/v1beta1
kind: Gateway
metadata:
  name: gw-elsewhere
spec:
  exposeType: PublicIP
  endpoints:
    - nodeName: elsewhere-1
      type: tunnel
      publicIP: 203.0.113.99
---
apiVersion: raven.openyurt.io/v1beta1
kind: TunnelEndpoint
metadata:
  name: elsewhere-1
status:
  gateway: gw-elsewhere
  tunnels:
    - driver: plain
      port: 4500
---
apiVersion: v1
kind: Node
metadata:
  name: elsewhere-1
  labels:
    raven.openyurt.io/gateway: gw-elsewhere
spec:
  podCIDR: 10.250.0.0/24
  podCIDRs: [10.250.0.0/24, "fd00:10:250::/64"]
status:
  addresses:
    - type: InternalIP
      address: 172.31.0.1
    - type: InternalIP
      address: fd00:172:31::1
  conditions:
    - type: Ready
      status: "True"
`

// looped are prefixes of nobody, their sources of elsewhere, and a prefix of the far region whose way they take, by
// family and side.
var looped = map[int]struct {
	prefix, source, target string
}{
	4: {"10.251.0.0/24", "10.250.0.2", "10.251.0.9"},
	6: {"fd00:10:251::/64", "fd00:10:250::2", "fd00:10:251::9"},
}

// Loop needs a Pair with the plain driver, whose device, unlike WireGuard's, takes what it is given: two gateways that
// were made to send a prefix to one another, by hand in tables and maps, pass a packet on until its TTL is used up.
var Loop = Check{
	Name: "loop",
	Says: "a forwarding loop made by hand between two gateways dies by TTL",
	Run: func(ctx context.Context, l *lab.Lab) (string, error) {
		if err := l.WriteManifest("elsewhere.yaml", elsewhere); err != nil {
			return "", err
		}
		east, west := l.Spec.Regions[0].Gateway(), l.Spec.Regions[1].Gateway()
		err := lab.Await(ctx, "both gateways to know the third region", func(ctx context.Context) error {
			for _, n := range []*lab.Node{east, west} {
				out, err := l.Host(n.Name).Run(ctx, "ip", "route", "show", "table", "9027", "10.250.0.0/24")
				if err != nil || !strings.Contains(out, " dev ") { // beside its unreachable twin
					return errors.Join(err, fmt.Errorf("%s has no route to it", n.Name))
				}
			}
			return nil
		})
		if err != nil {
			return "", err
		}
		// The FIB is filled after the routes, so one more pass has both. Then the agents go: what is made by hand below
		// would be repaired.
		if err := applyTimes(ctx, l, 1); err != nil {
			return "", err
		}
		for _, n := range []*lab.Node{east, west} {
			if err := l.Agent(n.Name).Stop(); err != nil {
				return "", err
			}
		}
		var evidence []string
		for _, family := range []int{4, 6} {
			err := errors.Join(divert(ctx, l, family, east, west), divert(ctx, l, family, west, east))
			if err != nil {
				return "", err
			}
			e, err := runAround(ctx, l, family, east, west)
			if err != nil {
				return "", fmt.Errorf("IPv%d: %w", family, err)
			}
			evidence = append(evidence, e)
		}
		return strings.Join(evidence, "; "), nil
	},
}

// divert sends the looped prefix the way that the far gateway's own pods have: in table 9027, in the packet filter's set
// of other regions' prefixes, and in the FIB.
func divert(ctx context.Context, l *lab.Lab, family int, at, far *lab.Node) error {
	h, like := l.Host(at.Name), far.Pods4
	if family == 6 {
		like = far.Pods6
	}
	ip := []string{"ip", fmt.Sprintf("-%d", family), "route"}
	out, err := h.Run(ctx, ip[0], append(ip[1:], "show", "table", "9027", like.String())...)
	if err != nil {
		return err
	}
	var way string
	for line := range strings.Lines(out) { // the other one is its unreachable twin
		if w, ok := strings.CutPrefix(line, like.String()+" "); ok {
			way = w
		}
	}
	if way == "" {
		return fmt.Errorf("%s has no route to %s: %q", at.Name, like, out)
	}
	way, _, _ = strings.Cut(strings.ReplaceAll(way, "pref medium", ""), "metric")
	words := append([]string{"add", "table", "9027", looped[family].prefix}, strings.Fields(way)...)
	if _, err := h.Run(ctx, ip[0], append(ip[1:], words...)...); err != nil {
		return err
	}
	err = h.NFT(ctx, fmt.Sprintf("add element inet raven remote%d { %s }", family, looped[family].prefix))
	if err != nil {
		return err
	}
	if !l.Options().Accelerated() {
		return nil
	}
	return divertInFIB(h, family, like)
}

func divertInFIB(h *lab.Host, family int, like netip.Prefix) error {
	m, err := ebpf.LoadPinnedMap(h.Path(path.Join(pinned, fmt.Sprintf("raven_fib%d", family))), nil)
	if err != nil {
		return fmt.Errorf("open the FIB of %s: %w", h.Name, err)
	}
	var entry bpf.FibEntry
	to := netip.MustParsePrefix(looped[family].prefix)
	key := func(p netip.Prefix) any {
		if family == 4 {
			return bpf.Fib4Key{Prefixlen: uint32(p.Bits()), Addr: p.Addr().As4()}
		}
		return bpf.Fib6Key{Prefixlen: uint32(p.Bits()), Addr: p.Addr().As16()}
	}
	if err = m.Lookup(key(like), &entry); err == nil {
		err = m.Put(key(to), entry)
	}
	if err := errors.Join(err, m.Close()); err != nil {
		return fmt.Errorf("copy the FIB entry of %s on %s: %w", like, h.Name, err)
	}
	return nil
}

// runAround sends one packet into the loop and counts how often it leaves the gateways' tunnel devices.
func runAround(ctx context.Context, l *lab.Lab, family int, east, west *lab.Node) (string, error) {
	const tunnelDevice, ttl = "raven-plain0", 64
	var captures []*lab.Capture
	for _, n := range []*lab.Node{east, west} {
		c, err := l.Host(n.Name).Capture(tunnelDevice)
		if err != nil {
			return "", err
		}
		captures = append(captures, c)
	}
	source, target := netip.MustParseAddr(looped[family].source), netip.MustParseAddr(looped[family].target)
	packet := lab.UDPPacket(netip.AddrPortFrom(source, tracer), netip.AddrPortFrom(target, tracer), ttl, []byte("round"))
	device, err := l.Host(west.Name).Link(tunnelDevice)
	if err != nil {
		return "", err
	}
	if err := l.Host(east.Name).SendBy(tunnelDevice, device.Attrs().HardwareAddr, packet); err != nil {
		return "", err
	}
	inLoop := func(p lab.Packet) bool { return p.Protocol == lab.UDP && p.Dst == target }
	// West meets it with TTL 64, east with 63, and so on; east lets it die.
	_, err = captures[0].Await(ctx, "the packet with TTL 1", func(p lab.Packet) bool { return inLoop(p) && p.TTL == 1 })
	crossings := 0
	for _, c := range captures {
		packets, stopErr := c.Stop()
		err = errors.Join(err, stopErr)
		for _, p := range packets {
			if inLoop(p) && p.Outgoing {
				crossings++
			}
		}
	}
	if err == nil && crossings != ttl {
		err = fmt.Errorf("the packet crossed the tunnel %d times, want %d", crossings, ttl)
	}
	return fmt.Sprintf("IPv%d: %d crossings and no more", family, crossings), err
}
