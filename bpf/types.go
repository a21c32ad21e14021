package bpf

// ABI is the number in bpf/include/abi.h: the version folder of everything pinned.
const ABI = 4

// The structs of bpf/include/maps.h under short names. Addresses and ports are in network byte order; an IPv4 address
// stands mapped into ::ffff:0:0/96 where the field is an Addr.
type (
	// Addr is struct raven_addr.
	Addr = FromPodRavenAddr
	// NodeConfig is the one value of raven_config.
	NodeConfig = FromPodRavenNodeConfig
	// Fib4Key is the key of raven_fib4.
	Fib4Key = FromPodRavenFib4Key
	// Fib6Key is the key of raven_fib6.
	Fib6Key = FromPodRavenFib6Key
	// FibEntry is the value of raven_fib4 and raven_fib6.
	FibEntry = FromPodRavenFibEntry
	// Nexthop is the value of raven_nexthops.
	Nexthop = FromPodRavenNexthop
	// Pod is the value of raven_pods, whose key is an Addr.
	Pod = FromPodRavenPod
	// FlowKey is the key of raven_flows.
	FlowKey = FromPodRavenFlowKey
	// Flow is the value of raven_flows.
	Flow = FromPodRavenFlow
	// HandshakeWindow is the value of raven_handshakes, whose key is an Addr.
	HandshakeWindow = FromPodRavenHandshakeWindow
	// ProgramCounters is one CPU's value of raven_counters, whose key is a Reason.
	ProgramCounters = FromPodRavenProgramCounters

	// DroppedRing is one CPU's value of raven_dropped, whose key is a Reason.
	DroppedRing = FromPodRavenDroppedRing

	// Flag is enum raven_flag.
	Flag = FromPodRavenFlag
	// Member is enum raven_member.
	Member = FromPodRavenMember
	// Scope is enum raven_scope.
	Scope = FromPodRavenScope
	// NexthopKind is enum raven_nexthop_kind.
	NexthopKind = FromPodRavenNexthopKind
	// NexthopFlag is enum raven_nexthop_flag.
	NexthopFlag = FromPodRavenNexthopFlag
	// Reason is enum raven_reason.
	Reason = FromPodRavenReason
)

// The enums' values, as in bpf/include/maps.h.
const (
	FlagAccelerate = FromPodRavenFlagRAVEN_FLAG_ACCELERATE
	FlagGateway    = FromPodRavenFlagRAVEN_FLAG_GATEWAY
	FlagDirect     = FromPodRavenFlagRAVEN_FLAG_DIRECT

	MemberOfRegion = FromPodRavenMemberRAVEN_MEMBER_OF_REGION
	MemberPeer     = FromPodRavenMemberRAVEN_MEMBER_PEER

	ScopeRemote   = FromPodRavenScopeRAVEN_SCOPE_REMOTE
	ScopeInRegion = FromPodRavenScopeRAVEN_SCOPE_IN_REGION
	ScopeLocal    = FromPodRavenScopeRAVEN_SCOPE_LOCAL
	ScopeHost     = FromPodRavenScopeRAVEN_SCOPE_HOST

	NexthopNone    = FromPodRavenNexthopKindRAVEN_NEXTHOP_NONE
	NexthopOverlay = FromPodRavenNexthopKindRAVEN_NEXTHOP_OVERLAY
	NexthopDirect  = FromPodRavenNexthopKindRAVEN_NEXTHOP_DIRECT
	NexthopTunnel  = FromPodRavenNexthopKindRAVEN_NEXTHOP_TUNNEL

	NexthopHealthy  = FromPodRavenNexthopFlagRAVEN_NEXTHOP_HEALTHY
	NexthopEthernet = FromPodRavenNexthopFlagRAVEN_NEXTHOP_ETHERNET

	ReasonMax = FromPodRavenReasonRAVEN_REASON_MAX
)
