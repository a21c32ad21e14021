package doctor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.zx2c4.com/wireguard/wgctrl"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/ravencni/raven/pkg/ping"
	"github.com/ravencni/raven/pkg/topology"
)

// answerWithin is how long a neighbour or peer may take to answer an echo request.
const answerWithin = 1500 * time.Millisecond

func tunnelStands(_ context.Context, s *Subject) (out []Finding) {
	if !s.planned() || s.Plan.Tunnel == nil {
		return nil
	}
	name := s.tunnelName()
	if s.Report != nil && len(s.Report.Host.TunnelPerPeer) > 0 {
		return perPeerStand(s)
	}
	if s.Host.Tunnel.Index == 0 {
		return []Finding{fail(fmt.Sprintf("the tunnel device %s is missing", name), restart)}
	}
	l, err := netlink.LinkByName(name)
	if err != nil {
		return unknown(err)
	}
	if l.Attrs().Flags&net.FlagUp == 0 {
		out = append(out, fail(fmt.Sprintf("the tunnel device %s is down", name), restart))
	}
	if s.Plan.Tunnel.Driver == topology.DriverWireGuard {
		out = append(out, wireguardStands(s, name)...)
	}
	return out
}

// perPeerStand looks at the devices that lead to one peer each.
func perPeerStand(s *Subject) (out []Finding) {
	for _, p := range s.Plan.Tunnel.Peers {
		d := s.Host.TunnelTo(p.Node)
		if d.Index == 0 {
			out = append(out, fail("the tunnel device to "+p.Node+" is missing", restart))
			continue
		}
		l, err := netlink.LinkByIndex(d.Index)
		if err != nil {
			out = append(out, unknown(err)...)
		} else if l.Attrs().Flags&net.FlagUp == 0 {
			out = append(out, fail(fmt.Sprintf("the tunnel device %s to %s is down", d.Name, p.Node), restart))
		}
	}
	return out
}

// wireguardStands compares the device's keys and peers with the plan.
func wireguardStands(s *Subject, name string) (out []Finding) {
	client, err := wgctrl.New()
	if err != nil {
		return unknown(err)
	}
	defer client.Close() // nothing was written
	d, err := client.Device(name)
	if err != nil {
		return []Finding{fail(fmt.Sprintf("%s does not answer: %v", name, err),
			"the process that holds it has ended, or another device has its name; "+restart)}
	}
	if own := keyOf(filepath.Join(s.StateDir, "wireguard.key")); own != "" && own != d.PublicKey.String() {
		out = append(out, fail(fmt.Sprintf("wrong key: %s has another private key than %s", name, filepath.Join(s.StateDir, "wireguard.key")), restart))
	}
	if s.Report != nil && s.Report.PublicKey != "" && s.Report.PublicKey != d.PublicKey.String() {
		out = append(out, fail(fmt.Sprintf("wrong key: %s has another public key than this node publishes", name), restart))
	}
	if port := s.Plan.Tunnel.ListenPort; port != 0 && d.ListenPort != port {
		out = append(out, fail(fmt.Sprintf("%s listens at UDP port %d, planned is %d", name, d.ListenPort, port), restart))
	}
	planned := map[string]bool{}
	for _, p := range s.Plan.Tunnel.Peers {
		planned[p.PublicKey] = true
		i := slices.IndexFunc(d.Peers, func(h wgtypes.Peer) bool { return h.PublicKey.String() == p.PublicKey })
		if i < 0 {
			out = append(out, fail(fmt.Sprintf("wrong key: %s has no peer with the key that %s publishes", name, p.Node), restart))
			continue
		}
		have := d.Peers[i]
		for _, want := range p.Prefixes {
			if !slices.ContainsFunc(have.AllowedIPs, func(n net.IPNet) bool { return n.String() == want.Masked().String() }) {
				out = append(out, fail(fmt.Sprintf("%s does not admit %s from %s (AllowedIPs)", name, want, p.Node), restart))
				break
			}
		}
		if p.Endpoint.IsValid() && have.Endpoint == nil {
			out = append(out, fail(fmt.Sprintf("%s does not know where to dial %s", name, p.Node), restart))
		}
	}
	for _, h := range d.Peers {
		if !planned[h.PublicKey.String()] {
			out = append(out, fail(fmt.Sprintf("%s has a peer that is not planned: %s", name, h.PublicKey), restart))
		}
	}
	return out
}

// keyOf is the public key that belongs to a file's private key; empty where that cannot be read.
func keyOf(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	key, err := wgtypes.ParseKey(string(bytes.TrimSpace(b)))
	if err != nil {
		return ""
	}
	return key.PublicKey().String()
}

// neighboursAnswer knocks at the nodes of the region that this one sends to: a member at its gateway.
func neighboursAnswer(ctx context.Context, s *Subject) []Finding {
	if !s.planned() || s.Plan.Overlay == nil || s.Plan.Role != topology.RoleMember {
		return nil
	}
	var out []Finding
	for _, n := range s.Plan.Overlay.Neighbours {
		within, cancel := context.WithTimeout(ctx, answerWithin)
		_, err := ping.Once(within, n.Underlay)
		cancel()
		if err != nil {
			f := fail(fmt.Sprintf("the gateway %s does not answer at %s over the underlay: %v", n.Node, n.Underlay, err),
				"see that the node runs, that both are on the region's network, and that ICMP passes")
			f.Node = n.Node
			out = append(out, f)
		}
	}
	return out
}

// peersAnswer knocks at the other regions' gateways through the tunnel.
func peersAnswer(ctx context.Context, s *Subject) []Finding {
	if !s.planned() || s.Plan.Tunnel == nil || len(s.Host.Tunnels()) == 0 {
		return nil
	}
	var mu sync.Mutex
	var out []Finding
	var all sync.WaitGroup
	for _, p := range s.Plan.Tunnel.Peers {
		all.Go(func() {
			f, found := peerAnswers(ctx, s, p)
			if found {
				mu.Lock()
				defer mu.Unlock()
				out = append(out, f)
			}
		})
	}
	all.Wait()
	slices.SortFunc(out, func(a, b Finding) int { return strings.Compare(a.Says, b.Says) })
	return out
}

func peerAnswers(ctx context.Context, s *Subject, p topology.Peer) (Finding, bool) {
	message := ""
	if s.Report != nil {
		for _, r := range s.Report.Peers {
			if r.Node == p.Node && r.State != "up" {
				message = r.Message
			}
		}
	}
	err := errors.New("its address is not routed")
	addr, addrErr := s.addressOf(p.Node)
	routed := addrErr == nil && slices.ContainsFunc(p.Prefixes, func(x netip.Prefix) bool { return x.Contains(addr) })
	if routed {
		within, cancel := context.WithTimeout(ctx, answerWithin)
		defer cancel()
		_, err = ping.Once(within, addr)
	}
	switch {
	case err == nil, !routed && message == "":
		return Finding{}, false
	case message != "":
		return fail(fmt.Sprintf("the tunnel to %s (region %s) is not up: %s", p.Node, p.Region, message),
			"run ravenctl doctor on "+p.Node+" too; see that UDP passes between the two and that each knows the other's key"), true
	}
	way := "which dials this node"
	if p.Endpoint.IsValid() {
		way = "dialled at UDP " + p.Endpoint.String()
	}
	return fail(fmt.Sprintf("no answer through the tunnel from %s (region %s, %s): %v", p.Node, p.Region, way, err),
		"UDP is blocked on the way, or the node is down: run ravenctl doctor on "+p.Node+", and see the firewalls between"), true
}
