package topology

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// reporter is what testing.T and rapid.T have in common.
type reporter interface {
	Helper()
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
}

// consistent checks what must hold in the Plans of all nodes of a cluster, healthy or not, each for itself and all
// together. It returns how many walks between two nodes ended at an unreachable route or a gateway that is no peer.
func consistent(t reporter, s State) (stopped int) {
	t.Helper()
	plans := make(map[string]*Plan)
	for _, n := range s.Nodes {
		if n != nil && n.Name != "" {
			plans[n.Name] = Compile(s, n.Name, Local{UnderlayMTU: 1500})
		}
	}
	for _, p := range plans {
		soundAlone(t, p)
	}
	for _, p := range plans {
		if p.Role != RoleNone {
			stopped += walkFrom(t, plans, p)
		}
	}
	return stopped
}

// soundAlone checks one Plan.
func soundAlone(t reporter, p *Plan) {
	t.Helper()
	if p.Role == RoleNone {
		if p.Region != "" || p.Overlay != nil || p.Tunnel != nil || len(p.Prefixes)+len(p.NextHops)+len(p.Throws)+len(p.LocalPrefixes) > 0 {
			t.Errorf("%s: a node outside every region has a Plan", p.Node)
		}
		return
	}
	used := make(map[string]bool)
	seen := make(map[netip.Prefix]bool)
	for i, x := range p.Prefixes {
		if seen[x.Prefix] {
			t.Errorf("%s: prefix %s is planned twice", p.Node, x.Prefix)
		}
		seen[x.Prefix] = true
		used[x.NextHop] = true
		if i > 0 && p.Prefixes[i-1].Prefix.Compare(x.Prefix) >= 0 {
			t.Errorf("%s: prefixes are not sorted", p.Node)
		}
		if hopOf(p, x.NextHop) == nil {
			t.Errorf("%s: prefix %s has no next hop %s", p.Node, x.Prefix, x.NextHop)
		}
		if x.Prefix.IsSingleIP() && slices.Contains(p.Throws, x.Prefix.Addr()) && x.Scope == ScopeRemote {
			t.Errorf("%s: %s is both a prefix and a throw", p.Node, x.Prefix)
		}
		for _, own := range p.LocalPrefixes {
			if x.Prefix == own {
				t.Errorf("%s: own prefix %s is planned", p.Node, own)
			}
		}
		if x.Prefix.IsSingleIP() && (x.Prefix.Addr() == p.NodeIP4 || x.Prefix.Addr() == p.NodeIP6) {
			t.Errorf("%s: own address %s is planned", p.Node, x.Prefix)
		}
	}
	if !slices.IsSortedFunc(p.NextHops, func(a, b NextHop) int { return strings.Compare(a.ID, b.ID) }) {
		t.Errorf("%s: next hops are not sorted", p.Node)
	}
	for _, h := range p.NextHops {
		if !used[h.ID] {
			t.Errorf("%s: next hop %s is used by no prefix", p.Node, h.ID)
		}
		soundHop(t, p, h)
	}
	if p.Tunnel != nil {
		soundPeers(t, p)
	}
	if !slices.IsSortedFunc(p.Throws, netip.Addr.Compare) || len(slices.Compact(slices.Clone(p.Throws))) != len(p.Throws) {
		t.Errorf("%s: throws %v", p.Node, p.Throws)
	}
}

func soundHop(t reporter, p *Plan, h NextHop) {
	t.Helper()
	switch h.Kind {
	case KindOverlay:
		ok := p.Overlay != nil && slices.ContainsFunc(p.Overlay.Neighbours, func(n Neighbour) bool {
			return n.Node == h.Node && n.Underlay == h.Underlay && bytes.Equal(n.MAC, h.MAC)
		})
		if !ok {
			t.Errorf("%s: next hop %v has no neighbour", p.Node, h)
		}
		if p.Overlay != nil && h.MTU > p.Overlay.MTU {
			t.Errorf("%s: next hop %s has MTU %d, its device %d", p.Node, h.ID, h.MTU, p.Overlay.MTU)
		}
	case KindDirect:
		if !h.Underlay.IsValid() {
			t.Errorf("%s: next hop %v has no address", p.Node, h)
		}
	case KindTunnel:
		if p.Tunnel == nil || !slices.ContainsFunc(p.Tunnel.Peers, func(x Peer) bool { return x.Node == h.Node }) {
			t.Errorf("%s: next hop %v has no peer", p.Node, h)
		} else if h.MTU > p.Tunnel.MTU {
			t.Errorf("%s: next hop %s has MTU %d, its device %d", p.Node, h.ID, h.MTU, p.Tunnel.MTU)
		}
	case KindUnreachable:
		return
	default:
		t.Errorf("%s: next hop %v has no kind", p.Node, h)
	}
	if h.MTU < minMTU4 || h.MTU > maxMTU {
		t.Errorf("%s: next hop %s has MTU %d", p.Node, h.ID, h.MTU)
	}
}

func soundPeers(t reporter, p *Plan) {
	t.Helper()
	peerOf := make(map[netip.Prefix]string)
	keys := make(map[string]string)
	for _, peer := range p.Tunnel.Peers {
		if other := keys[peer.PublicKey]; other != "" || peer.PublicKey == "" && p.Tunnel.Driver == DriverWireGuard {
			t.Errorf("%s: peer %s has key %q, as has %q", p.Node, peer.Region, peer.PublicKey, other)
		}
		keys[peer.PublicKey] = peer.Region
		if peer.Endpoint.IsValid() && !slices.Contains(p.Throws, peer.Endpoint.Addr()) {
			t.Errorf("%s: peer %s at %s is not thrown", p.Node, peer.Region, peer.Endpoint)
		}
		for _, prefix := range peer.Prefixes {
			if other := peerOf[prefix]; other != "" {
				t.Errorf("%s: prefix %s is at peers %s and %s", p.Node, prefix, other, peer.Region)
			}
			peerOf[prefix] = peer.Region
		}
	}
	for _, x := range p.Prefixes {
		h := hopOf(p, x.NextHop)
		if h == nil || h.Kind != KindTunnel {
			continue
		}
		i := slices.IndexFunc(p.Tunnel.Peers, func(peer Peer) bool { return peer.Node == h.Node })
		if i < 0 || p.Tunnel.Peers[i].Region != peerOf[x.Prefix] {
			t.Errorf("%s: prefix %s leads to node %s, but is at peer %q", p.Node, x.Prefix, h.Node, peerOf[x.Prefix])
		}
		delete(peerOf, x.Prefix)
	}
	for prefix, region := range peerOf {
		t.Errorf("%s: prefix %s is at peer %s, but no route leads there", p.Node, prefix, region)
	}
}

// walkFrom sends a packet from an address of a node to each remote prefix that it plans, and sees it arrive in the
// region that its next hop names, at a node with that prefix, by the same nodes both ways; or end at an unreachable
// route.
func walkFrom(t reporter, plans map[string]*Plan, from *Plan) (stopped int) {
	t.Helper()
	source4, source6 := sourceOf(plans, from, true), sourceOf(plans, from, false)
	for _, x := range from.Prefixes {
		source := source6
		if x.Prefix.Addr().Is4() {
			source = source4
		}
		if x.Scope != ScopeRemote || !source.IsValid() {
			continue
		}
		there, to := walk(t, plans, from, source, x.Prefix.Addr())
		if to == nil {
			stopped++
			continue
		}
		region, _, _ := strings.Cut(strings.TrimPrefix(x.NextHop, "region/"), "/")
		if to.Region != region || !slices.Contains(to.LocalPrefixes, x.Prefix) && !isOwnAddress(to, x.Prefix.Addr()) {
			t.Errorf("a packet from %s to %s of %s arrived at %s, by %v", from.Node, x.Prefix, region, to.Node, there)
			continue
		}
		back, returned := walk(t, plans, to, x.Prefix.Addr(), source)
		slices.Reverse(back)
		if returned != nil && !slices.Equal(there, back) {
			t.Errorf("%s to %s goes through %v and comes back through %v", from.Node, x.Prefix, there, back)
		}
	}
	return stopped
}

func isOwnAddress(p *Plan, a netip.Addr) bool {
	return a.IsValid() && (a == p.NodeIP4 || a == p.NodeIP6)
}

// sourceOf is an address of a node that other regions have a prefix for.
func sourceOf(plans map[string]*Plan, p *Plan, ip4 bool) netip.Addr {
	for _, other := range plans {
		if other.Region == p.Region || other.Role == RoleNone {
			continue
		}
		for _, x := range other.Prefixes {
			if x.Prefix.Addr().Is4() == ip4 && slices.Contains(p.LocalPrefixes, x.Prefix) {
				return x.Prefix.Addr()
			}
		}
	}
	return netip.Addr{}
}

// walk forwards one packet by the Plans alone and returns the nodes it passed and the one where it arrived: nil where a
// route says unreachable, or where the sender's own region is refused as a peer. Anything else is an error.
func walk(t reporter, plans map[string]*Plan, from *Plan, source, destination netip.Addr) (path []string, arrived *Plan) {
	t.Helper()
	at, outOfTunnel := from, false
	for range 10 {
		path = append(path, at.Node)
		if isLocal(at, destination) {
			if at != from && onlyLocally(plans, at, destination) {
				return path, nil
			}
			return path, at
		}
		h := lookUp(at, destination, outOfTunnel)
		if h == nil {
			t.Errorf("a packet from %s to %s has no route at %s, by %v", from.Node, destination, at.Node, path)
			return path, nil
		}
		if h.Kind == KindUnreachable {
			return path, nil
		}
		next := plans[h.Node]
		if next == nil {
			t.Errorf("a packet from %s to %s leads to unknown node %s", from.Node, destination, h.Node)
			return path, nil
		}
		if !admitted(at, next, h, source) {
			// Others may find the sender's gateway unusable as a peer. Nobody further on may refuse.
			if at.Region != from.Region {
				t.Errorf("a packet from %s (%s) to %s is refused by %s, by %v", from.Node, source, destination, next.Node, path)
			}
			return path, nil
		}
		at, outOfTunnel = next, h.Kind == KindTunnel
	}
	t.Errorf("a packet from %s to %s loops: %v", from.Node, destination, path)
	return path, nil
}

// onlyLocally tells whether a node has a destination by a prefix that is left out of L3: its own misfortune.
func onlyLocally(plans map[string]*Plan, at *Plan, destination netip.Addr) bool {
	if isOwnAddress(at, destination) {
		return false
	}
	for _, local := range at.LocalPrefixes {
		if !local.Contains(destination) {
			continue
		}
		for _, p := range plans {
			if p.Region != at.Region && slices.ContainsFunc(p.Prefixes, func(x Prefix) bool { return x.Prefix == local }) {
				return false
			}
		}
	}
	return true
}

func isLocal(p *Plan, a netip.Addr) bool {
	if isOwnAddress(p, a) {
		return true
	}
	// A planned prefix inside an own extra prefix is another node's.
	if lookUp(p, a, true) != nil {
		return false
	}
	return slices.ContainsFunc(p.LocalPrefixes, func(x netip.Prefix) bool { return x.Contains(a) })
}

// lookUp is the kernel's longest-prefix match in tables 9028 and 9027.
func lookUp(p *Plan, a netip.Addr, outOfTunnel bool) *NextHop {
	best := -1
	var hop *NextHop
	for _, x := range p.Prefixes {
		if x.Prefix.Contains(a) && x.Prefix.Bits() > best && (x.Scope == ScopeRemote || outOfTunnel) {
			best, hop = x.Prefix.Bits(), hopOf(p, x.NextHop)
		}
	}
	return hop
}

// admitted tells whether the next node takes a packet from this one: VXLAN from members only, tunnels from peers with a
// source that the peer may send, and a tunnel that one side can dial.
func admitted(at, next *Plan, h *NextHop, source netip.Addr) bool {
	switch h.Kind {
	case KindOverlay:
		return next.Overlay != nil && slices.Contains(next.Overlay.Members, at.Overlay.Underlay)
	case KindTunnel:
		if next.Tunnel == nil {
			return false
		}
		for _, peer := range next.Tunnel.Peers {
			if peer.Node == at.Node {
				back := at.Tunnel.peer(next.Region)
				return (peer.Endpoint.IsValid() || back != nil && back.Endpoint.IsValid()) &&
					slices.ContainsFunc(peer.Prefixes, func(x netip.Prefix) bool { return x.Contains(source) })
			}
		}
		return false
	default:
		return true
	}
}

// allReasons reads the constants of reasons.go.
func allReasons(t reporter) []string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "reasons.go", nil, 0)
	if err != nil {
		t.Fatalf("read reasons.go: %v", err)
	}
	var out []string
	ast.Inspect(file, func(n ast.Node) bool {
		if l, ok := n.(*ast.BasicLit); ok && l.Kind == token.STRING {
			text, err := strconv.Unquote(l.Value)
			if err != nil {
				t.Fatalf("read %s: %v", l.Value, err)
			}
			out = append(out, text)
		}
		return true
	})
	return out
}
