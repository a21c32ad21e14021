package ipsec

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math/bits"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Desired is what the driver wants of the daemon.
type Desired struct {
	// Node is this node's name; @<node> is its IKE identity.
	Node string `json:"node"`
	// Port is the UDP port of the host that carries IKE and ESP.
	Port int `json:"port"`
	// Addresses stand for this end's prefixes: charon refuses a tunnel for a range in which it has no address.
	Addresses []netip.Addr `json:"addresses"`
	// PSK is the secret that all gateways share; not asked for where there are Certificates.
	PSK string `json:"psk,omitempty"`
	// Certificates prove this end and the peers; nil: the PSK does.
	Certificates *Certificates `json:"certificates,omitempty"`
	// Peers by node, each once.
	Peers []DesiredPeer `json:"peers"`
	// Lifetimes where they are not the defaults.
	Lifetimes Lifetimes `json:"lifetimes,omitzero"`
}

// Lifetimes of keys; zero values mean the defaults.
type Lifetimes struct {
	// Child is when the keys of the traffic are made anew, IKE when those of the negotiation are.
	Child time.Duration `json:"child"`
	IKE   time.Duration `json:"ike"`
}

// Defaults of strongSwan's swanctl.conf(5).
const (
	defaultChildLifetime = time.Hour
	defaultIKELifetime   = 4 * time.Hour
	// lifetimeReserve is what there is at least for renewing keys before they end.
	lifetimeReserve = 30 * time.Second
)

// DesiredPeer is the gateway of another region.
type DesiredPeer struct {
	// Node is its name; @<node> is the identity that it has to prove.
	Node string `json:"node"`
	// Endpoint is where it is reached; invalid where it dials us.
	Endpoint netip.AddrPort `json:"endpoint,omitzero"`
	// Dial: this end opens the connection. One end does, and both may renew what runs inside.
	Dial bool `json:"dial"`
	// Prefixes may come from it and go to it.
	Prefixes []netip.Prefix `json:"prefixes"`
}

// maxSelectors is what one IKEv2 payload can carry: the number of traffic selectors is one byte (RFC 7296, section
// 3.13).
const maxSelectors = 255

// selectors are the peer's prefixes in order, merged where two make one, and merged further where they are more than a
// payload can carry: a wider range than planned is bounded by routes and by the packet filter.
func (p DesiredPeer) selectors() []string {
	var out []string
	for _, prefix := range mergePrefixes(p.Prefixes, maxSelectors) {
		out = append(out, prefix.String())
	}
	return out
}

// childName changes with everything that the traffic's own negotiation depends on, so that what runs by older words is
// told from what is wanted.
func (t terms) childName(p DesiredPeer) string {
	sum := sha256.Sum256([]byte(strings.Join(t.selectors(p), " ")))
	return p.Node + "-" + hex.EncodeToString(sum[:4])
}

// check finds what charon would choke on.
func (d *Desired) check() error {
	switch {
	case d.Node == "":
		return errors.New("no node is named")
	case d.Port < 1 || d.Port > 65535:
		return fmt.Errorf("%d is no UDP port", d.Port)
	case d.PSK == "" && d.Certificates == nil:
		return errors.New("there is no pre-shared key")
	}
	seen := map[string]bool{d.Node: true}
	for _, p := range d.Peers {
		if p.Node == "" || seen[p.Node] {
			return fmt.Errorf("peer %q is named twice, is this node, or has no name", p.Node)
		}
		seen[p.Node] = true
		if p.Dial && !p.Endpoint.IsValid() {
			return fmt.Errorf("peer %s is to be dialled and has no endpoint", p.Node)
		}
	}
	return nil
}

// mergePrefixes returns at most the given number of prefixes that cover all of the given ones, sorted: pairs that fill
// their parent exactly are joined, and while there are too many, those whose parent is the narrowest.
func mergePrefixes(prefixes []netip.Prefix, most int) []netip.Prefix {
	var all []netip.Prefix
	for _, p := range prefixes {
		if p.IsValid() {
			all = append(all, p.Masked())
		}
	}
	all = joinPairs(all)
	for len(all) > most {
		// The neighbours whose parent is the narrowest: it adds least.
		best, narrowest := -1, 0
		for i := range len(all) - 1 {
			parent, ok := commonParent(all[i], all[i+1])
			if n := narrowness(parent); ok && (best < 0 || n > narrowest) {
				best, narrowest = i, n
			}
		}
		if best < 0 {
			return all // two at most are left, one of each family
		}
		all[best], _ = commonParent(all[best], all[best+1])
		all = joinPairs(slices.Delete(all, best+1, best+2))
	}
	return all
}

// narrowness makes prefixes of both families comparable: of IPv6's bits the first 64 name a network, as all 32 of IPv4's.
func narrowness(p netip.Prefix) int {
	if p.Addr().Is4() {
		return 2 * p.Bits()
	}
	return min(p.Bits(), 64)
}

// joinPairs sorts, drops what another prefix covers, and joins halves.
func joinPairs(all []netip.Prefix) []netip.Prefix {
	slices.SortFunc(all, comparePrefixes)
	var out []netip.Prefix
	for _, p := range all {
		for {
			if n := len(out); n > 0 && out[n-1].Bits() <= p.Bits() && out[n-1].Contains(p.Addr()) {
				break // covered
			}
			n := len(out)
			if n == 0 || out[n-1].Bits() != p.Bits() || p.Bits() == 0 {
				out = append(out, p)
				break
			}
			parent := netip.PrefixFrom(p.Addr(), p.Bits()-1).Masked()
			if parent != netip.PrefixFrom(out[n-1].Addr(), p.Bits()-1).Masked() {
				out = append(out, p)
				break
			}
			out, p = out[:n-1], parent
		}
	}
	return out
}

func comparePrefixes(a, b netip.Prefix) int {
	if c := a.Addr().Compare(b.Addr()); c != 0 {
		return c
	}
	return a.Bits() - b.Bits()
}

// commonParent is the longest prefix that covers both; there is none of two families.
func commonParent(a, b netip.Prefix) (netip.Prefix, bool) {
	if a.Addr().Is4() != b.Addr().Is4() {
		return netip.Prefix{}, false
	}
	n, x, y := 0, a.Addr().AsSlice(), b.Addr().AsSlice()
	for i := range x {
		same := bits.LeadingZeros8(x[i] ^ y[i])
		n += same
		if same < 8 {
			break
		}
	}
	return netip.PrefixFrom(a.Addr(), min(n, a.Bits(), b.Bits())).Masked(), true
}
