package filter

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/ravencni/raven/pkg/topology"
)

func spans(t *testing.T, ss []span) []string {
	t.Helper()
	var out []string
	for _, s := range ss {
		out = append(out, s.first.String()+"-"+s.last.String())
	}
	return out
}

func TestNestedPrefixesBecomeDisjointSpansOfTheInnermostOwner(t *testing.T) {
	pfx := netip.MustParsePrefix
	plan := &topology.Plan{
		LocalPrefixes: []netip.Prefix{pfx("10.1.2.0/24"), pfx("255.255.255.0/24"), pfx("fd00:1::/64")},
		Prefixes: []topology.Prefix{
			{Prefix: pfx("10.0.0.0/8"), Scope: topology.ScopeRemote},
			{Prefix: pfx("10.9.0.0/16"), Scope: topology.ScopeRemote}, // covered by the /8
			{Prefix: pfx("10.1.2.8/32"), Scope: topology.ScopeInRegion},
			{Prefix: pfx("11.0.0.0/8"), Scope: topology.ScopeRemote}, // a neighbour stays a span of its own
			{Prefix: pfx("255.0.0.0/8"), Scope: topology.ScopeRemote},
			{Prefix: pfx("fd00::/16"), Scope: topology.ScopeRemote},
			{Prefix: pfx("10.1.2.0/24"), Scope: topology.ScopeRemote}, // claimed by two: the nearer owner stands
		},
	}
	got := flatten(claims(plan))
	want := map[owner][]string{
		ownerRemote: {
			"10.0.0.0-10.1.1.255", "10.1.3.0-10.255.255.255", "11.0.0.0-11.255.255.255", "255.0.0.0-255.255.254.255",
			"fd00::-fd00:0:ffff:ffff:ffff:ffff:ffff:ffff", "fd00:1:0:1::-fd00:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
		},
		ownerInRegion: {"10.1.2.8-10.1.2.8"},
		ownerLocal:    {"10.1.2.0-10.1.2.7", "10.1.2.9-10.1.2.255", "255.255.255.0-255.255.255.255", "fd00:1::-fd00:1::ffff:ffff:ffff:ffff"},
	}
	for o, w := range want {
		if d := cmp.Diff(w, spans(t, got[o])); d != "" {
			t.Errorf("spans of owner %d (-want +got):\n%s", o, d)
		}
	}
}

func TestASpanLookUpEqualsALongestPrefixMatch(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		// A tiny address space, so that prefixes nest often.
		cs := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) claim {
			a := netip.AddrFrom4([4]byte{255, 255, 255, rapid.Byte().Draw(t, "byte")})
			return claim{netip.PrefixFrom(a, rapid.IntRange(24, 32).Draw(t, "bits")).Masked(), owner(rapid.IntRange(0, 2).Draw(t, "owner"))}
		}), 0, 12).Draw(t, "claims")
		byPrefix := map[netip.Prefix]owner{}
		for _, c := range cs {
			byPrefix[c.prefix] = c.owner
		}
		cs = cs[:0]
		for p, o := range byPrefix {
			cs = append(cs, claim{p, o})
		}
		got := flatten(slices.Clone(cs))
		for i := range 256 {
			a := netip.AddrFrom4([4]byte{255, 255, 255, byte(i)})
			want, bits := owner(-1), -1
			for _, c := range cs {
				if c.prefix.Contains(a) && c.prefix.Bits() > bits {
					want, bits = c.owner, c.prefix.Bits()
				}
			}
			for o := ownerRemote; o <= ownerLocal; o++ {
				n := 0
				for _, s := range got[o] {
					if !a.Less(s.first) && !s.last.Less(a) {
						n++
					}
				}
				if (o == want) != (n == 1) || n > 1 {
					t.Fatalf("%s: in %d spans of owner %d, the longest match is owner %d", a, n, o, want)
				}
			}
		}
	})
}
