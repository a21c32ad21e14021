package checks

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/ravencni/raven/test/lab"
)

// WatchTheWire captures between the NAT boxes and the router while f runs and fails where anything but the tunnel's
// UDP was seen there. It returns what it saw.
func WatchTheWire(ctx context.Context, l *lab.Lab, f func(context.Context) error) (evidence string, err error) {
	internet := l.Host(lab.Internet)
	links, err := internet.Netlink().LinkList()
	if err != nil {
		return "", fmt.Errorf("list the router's devices: %w", err)
	}
	var captures []*lab.Capture
	defer func() {
		for _, c := range captures {
			_, stopErr := c.Stop()
			err = errors.Join(err, stopErr)
		}
	}()
	for _, link := range links {
		if name := link.Attrs().Name; strings.HasPrefix(name, "to-") {
			c, err := internet.Capture(name)
			if err != nil {
				return "", err
			}
			captures = append(captures, c)
		}
	}
	if err := f(ctx); err != nil {
		return "", err
	}
	tunnel := 0
	for len(captures) > 0 {
		packets, err := captures[0].Stop()
		captures = captures[1:]
		if err != nil {
			return "", err
		}
		for _, p := range packets {
			switch {
			case isTunnel(l, p):
				tunnel++
			case !isOfTheWireItself(p):
				return "", fmt.Errorf("between the NAT boxes: %s", p)
			}
		}
	}
	if tunnel == 0 {
		return "", errors.New("no packet of the tunnel crossed the router")
	}
	return fmt.Sprintf("%d packets crossed the router, all of them UDP of the tunnel between public addresses", tunnel), nil
}

// isTunnel: UDP between two public addresses, with the port of an exposed gateway at one end.
func isTunnel(l *lab.Lab, p lab.Packet) bool {
	if p.Protocol != lab.UDP || !isPublic(l, p.Src) || !isPublic(l, p.Dst) {
		return false
	}
	return p.SrcPort == 4500 && isExposed(l, p.Src) || p.DstPort == 4500 && isExposed(l, p.Dst) ||
		// A later fragment of a tunnel packet has no ports; only the tunnel makes packets so large here.
		p.SrcPort == 0 && p.DstPort == 0
}

func isPublic(l *lab.Lab, a netip.Addr) bool {
	return isExposed(l, a) || slices.ContainsFunc(l.Spec.Regions, func(r lab.Region) bool { return r.Box.Addr() == a })
}

func isExposed(l *lab.Lab, a netip.Addr) bool {
	return slices.ContainsFunc(l.Spec.Regions, func(r lab.Region) bool {
		return slices.ContainsFunc(r.Nodes, func(n lab.Node) bool { return n.Public.Addr() == a })
	})
}

// isOfTheWireItself: what two neighbours say to one another about their wire (neighbour discovery, multicast
// listeners).
func isOfTheWireItself(p lab.Packet) bool {
	return p.Protocol == lab.ICMPv6 && (p.Src.IsLinkLocalUnicast() || p.Src.IsUnspecified()) ||
		p.Src.Is6() && p.Dst.IsMulticast()
}

// InnerOnOverlay shows that raven0 of both edge gateways carries the inner packets: the tutorial's captures.
var InnerOnOverlay = Check{
	Name: "capture-overlay",
	Says: "raven0 of both gateways shows the inner packets of node hangzhou-2 -> node qingdao-2",
	Run: func(ctx context.Context, l *lab.Lab) (evidence string, err error) {
		a, err := findEnd(l, "hangzhou-2")
		if err != nil {
			return "", err
		}
		b, err := findEnd(l, "qingdao-2")
		if err != nil {
			return "", err
		}
		var captures []*lab.Capture
		defer func() {
			for _, c := range captures {
				_, stopErr := c.Stop()
				err = errors.Join(err, stopErr)
			}
		}()
		var seen []string
		for _, family := range []int{4, 6} {
			for _, gateway := range []string{a.region.Gateway().Name, b.region.Gateway().Name} {
				c, err := l.Host(gateway).Capture("raven0")
				if err != nil {
					return "", err
				}
				captures = append(captures, c)
			}
			if _, err := a.host.Ping(ctx, b.addr(family), 1); err != nil {
				return "", err
			}
			for i, c := range captures[len(captures)-2:] {
				for _, way := range [][2]netip.Addr{{a.addr(family), b.addr(family)}, {b.addr(family), a.addr(family)}} {
					p, err := c.Await(ctx, fmt.Sprintf("%s > %s", way[0], way[1]), func(p lab.Packet) bool {
						return p.Src == way[0] && p.Dst == way[1]
					})
					if err != nil {
						return "", err
					}
					if i == 0 && family == 4 {
						seen = append(seen, p.String())
					}
				}
			}
		}
		return strings.Join(seen, "; "), nil
	},
}
