// Package trace follows a packet through one node: which map entry and which kernel route it meets, what a program says
// when it is run on such a packet, and which node comes next.
package trace

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"

	"github.com/ravencni/raven/pkg/ctl/doctor"
	"github.com/ravencni/raven/pkg/ctl/table"
	"github.com/ravencni/raven/pkg/datapath"
	"github.com/ravencni/raven/pkg/topology"
)

// Step is one thing that happens to the packet.
type Step struct {
	// What decides: source, program, test run, kernel, neighbour, end.
	What string `json:"what"`
	Says string `json:"says"`
	// Bad: the packet does not get on from here, or not as planned.
	Bad bool `json:"bad,omitempty"`
}

// Hop is what happens on one node.
type Hop struct {
	Node  string        `json:"node"`
	Role  topology.Role `json:"role"`
	Steps []Step        `json:"steps"`
	// Next is the node that the packet goes to; empty: it ends here, or nobody knows.
	Next string `json:"next,omitempty"`
}

// Bad says whether the packet gets stuck here.
func (h *Hop) Bad() bool { return slices.ContainsFunc(h.Steps, func(s Step) bool { return s.Bad }) }

func (h *Hop) say(what, format string, args ...any) {
	h.Steps = append(h.Steps, Step{What: what, Says: fmt.Sprintf(format, args...)})
}

func (h *Hop) stop(what, format string, args ...any) {
	h.Steps = append(h.Steps, Step{What: what, Says: fmt.Sprintf(format, args...), Bad: true})
}

// Walk follows a packet from src to dst through the node that is looked at.
func Walk(ctx context.Context, s *doctor.Subject, src, dst netip.Addr) (*Hop, error) {
	if src.Is4() != dst.Is4() {
		return nil, fmt.Errorf("%s and %s are of different families", src, dst)
	}
	if s.Plan == nil || s.Plan.Role == topology.RoleNone {
		return nil, errors.New("no plan is known for this node: it is in no region, or no agent ever ran; see ravenctl doctor")
	}
	h := &Hop{Node: s.Node, Role: s.Plan.Role}
	in, arrives := h.arrival(s.Plan, src, s.Host)
	planned := h.planned(s.Plan, dst, arrives)
	if s.Accelerated {
		if err := h.acceleration(ctx, in, src, dst); err != nil {
			return h, err
		}
	} else {
		h.say("program", "none: this node forwards by the kernel's tables")
	}
	h.kernel(src, dst, in, planned)
	return h, nil
}

// arrival finds the device that the packet comes in by; empty: it is made here.
func (h *Hop) arrival(p *topology.Plan, src netip.Addr, host datapath.Host) (device string, outOfTunnel bool) {
	holds := func(x netip.Prefix) bool { return x.Contains(src) }
	switch {
	case src == p.NodeIP4 || src == p.NodeIP6:
		h.say("source", "%s is this node", src)
		return "", false
	case slices.ContainsFunc(p.LocalPrefixes, holds):
		device = deviceTo(src)
		if device == "" {
			h.stop("source", "%s is in this node's pod prefixes, and no route leads to it: no such pod", src)
			return "", false
		}
		h.say("source", "%s is a local pod behind %s", src, device)
		return device, false
	}
	if best := longest(p, src); best != nil && best.Scope == topology.ScopeRemote && p.Role == topology.RoleGateway {
		tunnel := host.Tunnel.Name
		for _, n := range p.NextHops {
			if n.ID == best.NextHop {
				tunnel = host.TunnelTo(n.Node).Name
			}
		}
		h.say("source", "%s is in %s of another region: it comes out of %s", src, best.Prefix, tunnel)
		return tunnel, true
	}
	h.say("source", "%s is on another node: it comes in by %s", src, datapath.OverlayDevice)
	return datapath.OverlayDevice, false
}

func deviceTo(addr netip.Addr) string {
	routes, err := netlink.RouteGet(addr.AsSlice())
	if err != nil || len(routes) == 0 {
		return ""
	}
	l, err := netlink.LinkByIndex(routes[0].LinkIndex)
	if err != nil {
		return ""
	}
	return l.Attrs().Name
}

func longest(p *topology.Plan, a netip.Addr) (best *topology.Prefix) {
	for i := range p.Prefixes {
		x := &p.Prefixes[i]
		if x.Prefix.Contains(a) && (best == nil || x.Prefix.Bits() > best.Prefix.Bits()) {
			best = x
		}
	}
	return best
}

// planned says where the plan sends the packet, and fills in Next. It is nil where the packet ends here, or is not Raven's.
func (h *Hop) planned(p *topology.Plan, dst netip.Addr, outOfTunnel bool) *topology.NextHop {
	if dst == p.NodeIP4 || dst == p.NodeIP6 {
		h.say("plan", "%s is this node: the packet ends here", dst)
		return nil
	}
	if slices.ContainsFunc(p.LocalPrefixes, func(x netip.Prefix) bool { return x.Contains(dst) }) {
		h.say("plan", "%s is a pod of this node: the packet ends here", dst)
		return nil
	}
	best := longest(p, dst)
	if best == nil || best.Scope == topology.ScopeInRegion && !outOfTunnel {
		h.say("plan", "%s is none of Raven's here: the main table and the CNI decide", dst)
		return nil
	}
	i := slices.IndexFunc(p.NextHops, func(n topology.NextHop) bool { return n.ID == best.NextHop })
	if i < 0 {
		h.stop("plan", "%s in %s leads to %s, which is no next hop of the plan", dst, best.Prefix, best.NextHop)
		return nil
	}
	n := p.NextHops[i]
	if n.Kind == topology.KindUnreachable {
		h.stop("plan", "%s in %s leads to %s, which is unreachable: no gateway is known", dst, best.Prefix, n.ID)
		return &n
	}
	h.say("plan", "%s in %s leads to %s: by %s to node %s, MTU %d", dst, best.Prefix, n.ID, n.Kind, n.Node, n.MTU)
	h.Next = n.Node
	return &n
}

// kernel asks the kernel's tables as they would be asked for this packet.
func (h *Hop) kernel(src, dst netip.Addr, in string, planned *topology.NextHop) {
	o := &netlink.RouteGetOptions{Iif: in, SrcAddr: src.AsSlice()}
	routes, err := netlink.RouteGetWithOptions(dst.AsSlice(), o)
	if err != nil || len(routes) == 0 {
		h.stop("kernel", "no route from %s to %s%s: %v", src, dst, by(in), err)
		return
	}
	r := routes[0]
	name := fmt.Sprintf("device %d", r.LinkIndex)
	if l, err := netlink.LinkByIndex(r.LinkIndex); err == nil {
		name = l.Attrs().Name
	}
	text := fmt.Sprintf("table %d sends it by %s", r.Table, name)
	if r.Gw != nil {
		text += " via " + r.Gw.String()
	}
	if r.MTU > 0 {
		text += fmt.Sprintf(", MTU %d", r.MTU)
	}
	own := name == datapath.OverlayDevice || len(name) > 6 && name[:6] == "raven-"
	if planned != nil && (planned.Kind == topology.KindOverlay || planned.Kind == topology.KindTunnel) && !own {
		h.stop("kernel", "%s, and not by a device of Raven's as planned: see ravenctl doctor", text)
		return
	}
	h.say("kernel", "%s", text)
}

func by(device string) string {
	if device == "" {
		return ""
	}
	return " out of " + device
}

// Write prints hops.
func Write(w io.Writer, hops []*Hop) error {
	for i, h := range hops {
		if _, err := fmt.Fprintf(w, "hop %d: %s (%s)\n", i+1, h.Node, h.Role); err != nil {
			return err
		}
		t := table.Table{}
		for _, s := range h.Steps {
			mark := "  "
			if s.Bad {
				mark = "!!"
			}
			t.Add(mark, s.What, s.Says)
		}
		if err := t.Write(w); err != nil {
			return err
		}
	}
	return nil
}
