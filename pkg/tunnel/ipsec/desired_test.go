package ipsec

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
)

func prefixes(texts ...string) (out []netip.Prefix) {
	for _, text := range texts {
		out = append(out, netip.MustParsePrefix(text))
	}
	return out
}

func TestPrefixesAreMergedWithoutAddingOneAddressWhileTheyFit(t *testing.T) {
	for _, c := range []struct{ in, want []netip.Prefix }{
		{nil, nil},
		{prefixes("10.0.1.0/24", "10.0.0.0/24"), prefixes("10.0.0.0/23")},
		{prefixes("10.0.1.0/24", "10.0.2.0/24"), prefixes("10.0.1.0/24", "10.0.2.0/24")},
		{prefixes("10.0.0.0/24", "10.0.1.0/24", "10.0.2.0/24", "10.0.3.0/24"), prefixes("10.0.0.0/22")},
		{prefixes("10.0.0.0/8", "10.1.0.0/16", "10.0.0.0/8"), prefixes("10.0.0.0/8")},
		{prefixes("fd00::/65", "fd00:0:0:0:8000::/65", "0.0.0.0/1", "128.0.0.0/1"), prefixes("0.0.0.0/0", "fd00::/64")},
		{prefixes("10.0.0.7/8"), prefixes("10.0.0.0/8")},
	} {
		if got := mergePrefixes(c.in, maxSelectors); !slices.Equal(got, c.want) {
			t.Errorf("mergePrefixes(%v) = %v, want %v", c.in, got, c.want)
		}
	}
}

func TestMorePrefixesThanOnePayloadCarriesAreCoveredByFewer(t *testing.T) {
	var in []netip.Prefix
	for i := range 300 {
		in = append(in, netip.MustParsePrefix(fmt.Sprintf("10.%d.%d.0/24", i/200, i%200)))
		in = append(in, netip.MustParsePrefix(fmt.Sprintf("fd00:%x:1::/64", i)))
		in = append(in, netip.MustParsePrefix(fmt.Sprintf("172.16.%d.%d/32", i/100, 2*(i%100))))
	}
	got := mergePrefixes(in, maxSelectors)
	if len(got) > maxSelectors || len(got) < maxSelectors-20 {
		t.Errorf("%d prefixes became %d, want at most %d and not many fewer", len(in), len(got), maxSelectors)
	}
	for _, p := range in {
		if !slices.ContainsFunc(got, func(q netip.Prefix) bool { return q.Bits() <= p.Bits() && q.Contains(p.Addr()) }) {
			t.Errorf("%v is not covered any more", p)
		}
	}
	for _, q := range got {
		if q.Addr().Is4() && q.Bits() < 16 {
			t.Errorf("%v is far wider than anything that was asked for", q)
		}
	}
}

func TestTheChildsNameChangesWithThePeersPrefixesOnly(t *testing.T) {
	p := DesiredPeer{Node: "edge-1", Prefixes: prefixes("10.0.0.0/24", "10.1.0.0/24")}
	turned := DesiredPeer{Node: "edge-1", Dial: true, Prefixes: prefixes("10.1.0.0/24", "10.0.0.0/24")}
	more := DesiredPeer{Node: "edge-1", Prefixes: prefixes("10.0.0.0/24", "10.1.0.0/24", "10.2.0.0/24")}
	var narrow terms
	if narrow.childName(p) != narrow.childName(turned) {
		t.Error("order or direction changes the child's name")
	}
	if narrow.childName(p) == narrow.childName(more) {
		t.Error("another prefix does not change the child's name")
	}
}
