package topology

import (
	"fmt"
	"net/netip"
	"strings"
)

// PrefixError says why a text is no prefix that Raven can route, or was read as another one.
type PrefixError struct {
	// Reason is one of ReasonMissingPodCIDR, ReasonMalformedCIDR, ReasonUnusableCIDR and ReasonHostBitsSet.
	Reason  string
	message string
	used    bool
}

func (e *PrefixError) Error() string { return e.message }

// reserved ranges never leave a host or a link, so no pod or source prefix may cover a part of them.
var reserved = []netip.Prefix{
	netip.MustParsePrefix("127.0.0.0/8"),
	netip.MustParsePrefix("169.254.0.0/16"),
	netip.MustParsePrefix("224.0.0.0/4"),
	netip.MustParsePrefix("::/127"),
	netip.MustParsePrefix("fe80::/10"),
	netip.MustParsePrefix("ff00::/8"),
}

// ParsePrefix reads a prefix in CIDR notation, blanks around it allowed. With ReasonHostBitsSet the prefix is valid all
// the same, with the bits beyond its length cleared; with any other error it is not.
func ParsePrefix(text string) (netip.Prefix, *PrefixError) {
	fail := func(reason, format string, args ...any) (netip.Prefix, *PrefixError) {
		return netip.Prefix{}, &PrefixError{Reason: reason, message: fmt.Sprintf(format, args...)}
	}
	text = strings.TrimSpace(text)
	if text == "" {
		return fail(ReasonMissingPodCIDR, "an empty item stands where a prefix such as 10.244.1.0/24 should")
	}
	p, err := netip.ParsePrefix(text)
	if err != nil || p.Addr().Is4In6() {
		return fail(ReasonMalformedCIDR, "%q is not a prefix such as 10.244.1.0/24 or fd00:1::/64", text)
	}
	if p.Bits() == 0 {
		return fail(ReasonUnusableCIDR, "%q is a default route, which Raven never installs: name the prefix that is meant", text)
	}
	for _, r := range reserved {
		if p.Overlaps(r) {
			return fail(ReasonUnusableCIDR, "%q covers addresses of %s, which never leave a host or link: name another prefix", text, r)
		}
	}
	if masked := p.Masked(); masked != p {
		return masked, &PrefixError{Reason: ReasonHostBitsSet, used: true,
			message: fmt.Sprintf("%q has bits set beyond its length and is read as %s", text, masked)}
	}
	return p, nil
}
