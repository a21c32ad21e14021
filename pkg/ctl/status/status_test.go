package status

import (
	"bytes"
	"net/netip"
	"testing"
	"time"

	"github.com/ravencni/raven/pkg/agent/local"
	"github.com/ravencni/raven/pkg/ctl/recorded"
	"github.com/ravencni/raven/pkg/topology"
)

func gateway() *local.Report {
	at := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	return &local.Report{
		Settings: local.Settings{Version: "v0.1.0", Node: "hangzhou-1", Started: at.Add(-26 * time.Hour)},
		At:       at, Region: "gw-hangzhou", Role: topology.RoleGateway, Synced: true, Gateways: 3, Nodes: 6, Endpoints: 6,
		Driver: "wireguard", PublicKey: "g2p1Yq8cY5p0hS1TQnA3xqk0l4mB0m2E1vV3dJ9sXG8=", ListenPort: 4500,
		Datapath: "Accelerated", UnderlayMTU: 1500, PodsAccelerated: 4, PodsNotAccelerated: 1,
		Peers: []local.Peer{
			{
				Node: "cloud-1", Region: "gw-cloud", Relays: []string{"gw-qingdao"}, State: "up", Endpoint: "203.0.113.10:4500",
				HandshakeAge: new(95.0), RTT: new(0.0123), Loss: new(0.02), MTU: 1405, RxBytes: 5 << 30, TxBytes: 1536,
			},
			{Node: "shenzhen-1", Region: "gw-shenzhen", State: "connecting", Message: "no handshake yet: this node waits on UDP port 4500 for the peer to dial it", MTU: 1405},
		},
		Appliers: []local.Applier{{Name: "filter", Runs: 12, Changes: 1}, {Name: "route", Runs: 12, Errors: 2, Changes: 9}},
		Failed:   map[string]string{"route": "set route 10.244.17.0/24 table 9027: network is down"},
		Counters: []local.Counter{
			{Where: "raven_from_pod", Verdict: "redirect", Reason: "tunnel", Packets: 900},
			{Where: "raven_from_pod", Verdict: "pass", Reason: "protocol", Packets: 90},
			{Where: "nft", Verdict: "drop", Reason: "vxlan_stranger", Packets: 10},
		},
		Problems:  []local.Problem{{Object: "Node/edge-9", Reason: "MalformedCIDR", Message: "spec.podCIDRs holds \"10.2.2.0/33\", which is no prefix: correct it; the node's other prefixes work"}},
		Elsewhere: 2,
		Plan: &topology.Plan{
			Region: "gw-hangzhou", Role: topology.RoleGateway, Overlay: &topology.Overlay{MTU: 1450}, Tunnel: &topology.Tunnel{MTU: 1405},
			NextHops: []topology.NextHop{
				{ID: "region/gw-cloud", Kind: topology.KindTunnel, Node: "cloud-1", MTU: 1405},
				{ID: "region/gw-qingdao", Kind: topology.KindTunnel, Node: "cloud-1", MTU: 1405},
			},
			Prefixes: []topology.Prefix{
				{Prefix: netip.MustParsePrefix("10.244.17.0/24"), Scope: topology.ScopeRemote, NextHop: "region/gw-qingdao"},
			},
		},
	}
}

func TestAGatewaysStatusIsAsRecorded(t *testing.T) {
	var b bytes.Buffer
	if err := Write(&b, gateway()); err != nil {
		t.Fatal(err)
	}
	recorded.Compare(t, "testdata/gateway.txt", b.Bytes())
	recorded.JSON(t, "testdata/gateway.json", gateway())
}

func TestANodeOfNoRegionIsAsRecorded(t *testing.T) {
	at := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	var b bytes.Buffer
	err := Write(&b, &local.Report{
		Settings: local.Settings{Version: "v0.1.0", Node: "edge-1", Started: at.Add(-time.Minute)}, At: at,
		Datapath: "Off", Why: "the node is in no region, or L3 is switched off", FromSnapshot: true, Waiting: "Gateways",
	})
	if err != nil {
		t.Fatal(err)
	}
	recorded.Compare(t, "testdata/none.txt", b.Bytes())
}
