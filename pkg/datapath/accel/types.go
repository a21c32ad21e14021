package accel

import (
	"net"
	"net/netip"

	"github.com/ravencni/raven/bpf"
	"github.com/ravencni/raven/pkg/datapath/accel/pintree"
)

// The shared structs of bpf/include/maps.h, as the generator rendered them from the first object; a test compares the
// layouts with those in every object.
type (
	address       = pintree.Address
	nodeConfig    = bpf.FromPodRavenNodeConfig
	fib4Key       = pintree.Fib4Key
	fib6Key       = pintree.Fib6Key
	fibEntry      = pintree.FibEntry
	scope         = bpf.FromPodRavenScope
	nexthop       = bpf.FromPodRavenNexthop
	podEntry      = pintree.PodEntry
	flowKey       = bpf.FromPodRavenFlowKey
	flow          = bpf.FromPodRavenFlow
	member        = bpf.FromPodRavenMember
	handshakes    = bpf.FromPodRavenHandshakeWindow
	programCounts = bpf.FromPodRavenProgramCounters
	droppedRing   = bpf.FromPodRavenDroppedRing
)

const (
	flagAccelerate = bpf.FromPodRavenFlagRAVEN_FLAG_ACCELERATE
	flagGateway    = bpf.FromPodRavenFlagRAVEN_FLAG_GATEWAY
	flagDirect     = bpf.FromPodRavenFlagRAVEN_FLAG_DIRECT

	memberOfRegion = bpf.FromPodRavenMemberRAVEN_MEMBER_OF_REGION
	memberPeer     = bpf.FromPodRavenMemberRAVEN_MEMBER_PEER

	scopeRemote   = bpf.FromPodRavenScopeRAVEN_SCOPE_REMOTE
	scopeInRegion = bpf.FromPodRavenScopeRAVEN_SCOPE_IN_REGION
	scopeLocal    = pintree.ScopeLocal
	scopeHost     = bpf.FromPodRavenScopeRAVEN_SCOPE_HOST

	kindOverlay = bpf.FromPodRavenNexthopKindRAVEN_NEXTHOP_OVERLAY
	kindDirect  = bpf.FromPodRavenNexthopKindRAVEN_NEXTHOP_DIRECT
	kindTunnel  = bpf.FromPodRavenNexthopKindRAVEN_NEXTHOP_TUNNEL

	nexthopHealthy  = bpf.FromPodRavenNexthopFlagRAVEN_NEXTHOP_HEALTHY
	nexthopEthernet = bpf.FromPodRavenNexthopFlagRAVEN_NEXTHOP_ETHERNET
)

// Names of the maps, which are also those of their pins.
const (
	mapConfig     = bpf.FromPodMapRavenConfig
	mapFib4       = pintree.Fib4
	mapFib6       = pintree.Fib6
	mapNexthops   = bpf.FromPodMapRavenNexthops
	mapPods       = pintree.Pods
	mapFlows      = bpf.FromPodMapRavenFlows
	mapMembers    = bpf.FromPodMapRavenMembers
	mapHandshakes = bpf.FromPodMapRavenHandshakes
	mapCounters   = bpf.FromPodMapRavenCounters
	mapDropped    = bpf.FromPodMapRavenDropped
)

// addressOf renders an address as the programs do: IPv4 mapped into ::ffff:0:0/96.
func addressOf(a netip.Addr) address { return pintree.AddressOf(a) }

// macOf is all zero where mac is not six bytes long.
func macOf(mac net.HardwareAddr) [6]byte { return pintree.MAC(mac) }
