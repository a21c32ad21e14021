package topology

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestTheTutorialsMemberPointsEveryRemotePrefixAtItsGateway(t *testing.T) {
	p := tutorial().plan("hangzhou-2")
	if p.Role != RoleMember || p.Region != "gw-hangzhou" || p.Tunnel != nil || len(p.Problems)+len(p.Conflicts) != 0 {
		t.Fatalf("role %s, region %s, tunnel %v, problems %v, conflicts %v", p.Role, p.Region, p.Tunnel, p.Problems, p.Conflicts)
	}
	gateway := netip.MustParseAddr("172.16.2.103")
	wantHops := []NextHop{
		{ID: "region/gw-cloud", Kind: KindOverlay, Node: "hangzhou-1", Underlay: gateway, MAC: VTEPMAC(gateway), MTU: 1405},
		{ID: "region/gw-qingdao", Kind: KindOverlay, Node: "hangzhou-1", Underlay: gateway, MAC: VTEPMAC(gateway), MTU: 1405},
	}
	equal(t, "next hops", wantHops, p.NextHops)
	equal(t, "prefixes of the cloud", cloudPrefixes(), prefixesBy(p, "region/gw-cloud"))
	equal(t, "prefixes of qingdao", qingdaoPrefixes(), prefixesBy(p, "region/gw-qingdao"))
	equal(t, "number of prefixes", 16, len(p.Prefixes))
	equal(t, "throws", addrs("172.16.2.103", "fd00:a::103"), p.Throws)
	equal(t, "overlay", &Overlay{
		MTU:        1450,
		MAC:        VTEPMAC(netip.MustParseAddr("172.16.2.104")),
		Underlay:   netip.MustParseAddr("172.16.2.104"),
		Neighbours: []Neighbour{{Node: "hangzhou-1", Underlay: gateway, MAC: VTEPMAC(gateway)}},
		Members:    addrs("172.16.2.103"),
	}, p.Overlay)
}

func TestTheTutorialsGatewayReachesTheOtherEdgeThroughTheCloud(t *testing.T) {
	p := tutorial().plan("hangzhou-1")
	equal(t, "role", RoleGateway, p.Role)
	both := slices.Concat(cloudPrefixes(), qingdaoPrefixes())
	slices.SortFunc(both, netip.Prefix.Compare)
	equal(t, "tunnel", &Tunnel{Driver: "wireguard", ListenPort: 4500, MTU: 1405, Peers: []Peer{{
		Region: "gw-cloud", Node: "cloud-1", PublicKey: keyOf("cloud-1"), KeepaliveSeconds: 25,
		Endpoint: netip.MustParseAddrPort("120.79.0.10:4500"), Prefixes: both, Relays: []string{"gw-qingdao"},
	}}}, p.Tunnel)
	equal(t, "in-region prefixes", prefixes("10.244.19.0/24", "172.16.2.104/32", "fd00:244:19::/64", "fd00:a::104/128"),
		prefixesBy(p, "node/hangzhou-2"))
	equal(t, "throws", addrs("120.79.0.10", "172.16.2.104", "fd00:a::104"), p.Throws)
	for _, h := range p.NextHops {
		if want := map[string]Kind{"region/gw-cloud": KindTunnel, "region/gw-qingdao": KindTunnel, "node/hangzhou-2": KindOverlay}[h.ID]; h.Kind != want {
			t.Errorf("next hop %s is of kind %q, want %q", h.ID, h.Kind, want)
		}
	}
}

func TestTheTutorialsCloudWaitsForBothEdgesToDial(t *testing.T) {
	p := tutorial().plan("cloud-1")
	equal(t, "number of peers", 2, len(p.Tunnel.Peers))
	for _, peer := range p.Tunnel.Peers {
		if peer.Endpoint.IsValid() || peer.KeepaliveSeconds != 0 || len(peer.Relays) != 0 {
			t.Errorf("peer %s: endpoint %v, keepalive %d, relays %v; the edge dials", peer.Region, peer.Endpoint, peer.KeepaliveSeconds, peer.Relays)
		}
	}
	equal(t, "prefixes from qingdao", qingdaoPrefixes(), p.Tunnel.Peers[1].Prefixes)
}

func cloudPrefixes() []netip.Prefix {
	return prefixes("10.244.20.0/24", "10.244.21.0/24", "192.168.0.195/32", "192.168.0.196/32",
		"fd00:244:20::/64", "fd00:244:21::/64", "fd00:c::195/128", "fd00:c::196/128")
}

func qingdaoPrefixes() []netip.Prefix {
	return prefixes("10.244.16.0/24", "10.244.17.0/24", "172.16.1.89/32", "172.16.1.90/32",
		"fd00:244:16::/64", "fd00:244:17::/64", "fd00:b::89/128", "fd00:b::90/128")
}

// prefixesBy lists what a Plan sends to a next hop.
func prefixesBy(p *Plan, id string) []netip.Prefix {
	var out []netip.Prefix
	for _, x := range p.Prefixes {
		if x.NextHop == id {
			out = append(out, x.Prefix)
		}
	}
	return out
}

func equal(t *testing.T, what string, want, got any) {
	t.Helper()
	if diff := cmp.Diff(want, got, compareAddrs...); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

var compareAddrs = []cmp.Option{
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
	cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b }),
}
