package filter

import (
	"strconv"
	"strings"

	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"

	"github.com/ravencni/raven/pkg/datapath"
	"github.com/ravencni/raven/pkg/topology"
)

// Comments by which Raven knows its own rules in the host's chains. They count as a whole: a user's rule may have a
// comment that begins with "raven-", too.
const (
	hostCommentTransit = "raven-transit"
	hostCommentVXLAN   = "raven-vxlan"
)

var hostComments = []string{hostCommentTransit, hostCommentVXLAN}

// hostRule is an accepting rule of ours in a chain of iptables. An accept in a table of our own does not overrule a drop
// that comes later, so these must stand where the host's policy is made.
type hostRule struct {
	iif, oif  string
	udpPort   uint16 // 0: any protocol
	untracked bool   // only what our own table exempted from conntrack
	comment   string
}

// args are the rule as iptables prints it with -S, and takes it.
func (r hostRule) args() []string {
	var out []string
	if r.iif != "" {
		out = append(out, "-i", iptablesName(r.iif))
	}
	if r.oif != "" {
		out = append(out, "-o", iptablesName(r.oif))
	}
	if r.udpPort != 0 {
		out = append(out, "-p", "udp", "-m", "udp", "--dport", strconv.Itoa(int(r.udpPort)))
	}
	if r.untracked {
		out = append(out, "-m", "conntrack", "--ctstate", "UNTRACKED")
	}
	return append(out, "-m", "comment", "--comment", r.comment, "-j", "ACCEPT")
}

// iptablesName is a device's name or pattern in iptables' notation.
func iptablesName(device string) string {
	if begin, pattern := strings.CutSuffix(device, "*"); pattern {
		return begin + "+"
	}
	return device
}

func (r hostRule) String() string { return strings.Join(r.args(), " ") }

// exprs are the rule in nft's terms, in the form that every iptables-nft reads back: names without their padding, and
// xtables matches where older ones know no native expression.
func (r hostRule) exprs() match {
	name := func(key expr.MetaKey, dev string) match {
		value := append([]byte(dev), 0)
		if begin, pattern := strings.CutSuffix(dev, "*"); pattern {
			value = []byte(begin)
		}
		return match{&expr.Meta{Key: key, Register: reg}, cmpReg(expr.CmpOpEq, value)}
	}
	var out match
	if r.iif != "" {
		out = append(out, name(expr.MetaKeyIIFNAME, r.iif)...)
	}
	if r.oif != "" {
		out = append(out, name(expr.MetaKeyOIFNAME, r.oif)...)
	}
	if r.udpPort != 0 {
		out = append(out, l4proto(17)...)
		out = append(out, &expr.Match{Name: "udp", Info: &xt.Udp{SrcPorts: [2]uint16{0, 65535}, DstPorts: [2]uint16{r.udpPort, r.udpPort}}})
	}
	if r.untracked {
		// XT_CONNTRACK_STATE_UNTRACKED is bit IP_CT_NUMBER+3, 8 (linux/netfilter/xt_conntrack.h).
		info := &xt.ConntrackMtinfo3{}
		info.MatchFlags, info.StateMask = uint16(xt.ConntrackState), 1<<8
		out = append(out, &expr.Match{Name: "conntrack", Rev: 3, Info: info})
	}
	return append(out, &expr.Counter{}, &expr.Verdict{Kind: expr.VerdictAccept})
}

// hostRules is what should stand at the heads of a family's chains, by chain.
type hostRules map[string][]hostRule

// hostChains are the chains of iptables that we may put rules into.
var hostChains = []string{"FORWARD", "INPUT"}

// wantedHostRules makes the rules for one family of IP.
//
// FORWARD: transit between Raven's devices on a gateway. INPUT: VXLAN by the underlay, which is untracked, so that a
// host which lets only established traffic in would refuse it; who sent it was checked in prerouting. The tunnel's port
// is not opened: an edge dials out, and what an exposed gateway admits is its host firewall's to say.
func (r roles) wantedHostRules(v6 bool, plan *topology.Plan, host datapath.Host) hostRules {
	out := hostRules{}
	if r.gateway {
		for _, t := range r.tunnels {
			if r.overlay != "" {
				out.add("FORWARD", hostRule{iif: r.overlay, oif: t, comment: hostCommentTransit})
				out.add("FORWARD", hostRule{iif: t, oif: r.overlay, comment: hostCommentTransit})
			}
			for _, other := range r.tunnels {
				out.add("FORWARD", hostRule{iif: t, oif: other, comment: hostCommentTransit})
			}
			if r.direct {
				for _, u := range underlays(host) {
					out.add("FORWARD", hostRule{iif: u, oif: t, untracked: true, comment: hostCommentTransit})
					out.add("FORWARD", hostRule{iif: t, oif: u, untracked: true, comment: hostCommentTransit})
				}
			}
		}
	}
	if plan.Overlay != nil && plan.Overlay.Underlay.Unmap().Is6() == v6 {
		for _, u := range underlays(host) {
			out.add("INPUT", hostRule{iif: u, udpPort: datapath.OverlayPort, comment: hostCommentVXLAN})
		}
	}
	return out
}

func (h hostRules) add(chain string, r hostRule) { h[chain] = append(h[chain], r) }
