/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
#ifndef RAVEN_REASONS_H
#define RAVEN_REASONS_H

/*
 * Why a program let go of a packet. Every exit has one, and each is counted per CPU in raven_counters, which this enum
 * indexes. The Go side derives its names from this enum's BTF: RAVEN_PASS_NO_ROUTE becomes verdict "pass", reason
 * "no_route". Drops have namesakes among the counters of the nft table raven, which decides the same without BPF.
 */
enum raven_reason {
	/* The packet went on by eBPF. */
	RAVEN_REDIRECT_OVERLAY,   /* into raven0, to a node of this region */
	RAVEN_REDIRECT_DIRECT,    /* to an on-link node of this region, without encapsulation */
	RAVEN_REDIRECT_TUNNEL,    /* into the tunnel, to another region */
	RAVEN_REDIRECT_POD,       /* into a local pod */
	RAVEN_REDIRECT_DECAPSULATED, /* out of its VXLAN, to come in by that device */

	/* The packet went to the stack, which decides by the kernel's tables. */
	RAVEN_PASS_DISABLED,      /* acceleration is switched off in raven_config */
	RAVEN_PASS_NOT_IP,        /* neither IPv4 nor IPv6, or not addressed to this host */
	RAVEN_PASS_MALFORMED,     /* shorter than its own headers say, or a bad IPv4 header checksum */
	RAVEN_PASS_IP_OPTIONS,    /* IPv4 options or IPv6 extension headers */
	RAVEN_PASS_FRAGMENT,      /* a fragment: it has no ports to judge by */
	RAVEN_PASS_NO_ROUTE,      /* the destination is none of Raven's prefixes */
	RAVEN_PASS_LOCAL_HOST,    /* for this node itself */
	RAVEN_PASS_UNKNOWN_POD,   /* a local pod prefix, but no pod known at that address and device */
	RAVEN_PASS_NEXTHOP_DOWN,  /* the next hop is empty, unhealthy, or its device has gone */
	RAVEN_PASS_TTL,           /* TTL or hop limit used up: the stack answers with time exceeded */
	RAVEN_PASS_OVERSIZE,      /* larger than the path: the stack fragments or answers with the MTU */
	RAVEN_PASS_PROTOCOL,      /* neither TCP nor UDP on a host of the flow's ends, such as ICMP */
	RAVEN_PASS_TCP_CONTROL,   /* SYN, FIN or RST: the stack keeps track of connections */
	RAVEN_PASS_UNTRACKED,     /* conntrack has no such flow */
	RAVEN_PASS_UNESTABLISHED, /* conntrack has not seen both directions pass, or TCP is not ESTABLISHED and ASSURED */
	RAVEN_PASS_NAT,           /* the flow's addresses or ports are translated on this host */
	RAVEN_PASS_CT_SPECIAL,    /* sequence adjustment, clash or helper: the stack must see each packet */
	RAVEN_PASS_WRITE_FAILED,  /* a helper refused to make room for an Ethernet header */
	RAVEN_PASS_UNDERLAY,      /* on the underlay NIC: none of Raven's business there, or the stack's */

	/* The packet was dropped. */
	RAVEN_DROP_SPOOFED_SOURCE,      /* from a pod, with a source that is not of this node's prefixes */
	RAVEN_DROP_WRONG_REGION_SOURCE, /* the inner source may not come from that device */
	RAVEN_DROP_VXLAN_STRANGER,      /* VXLAN from a host that is no member of the region */
	RAVEN_DROP_HANDSHAKE_FLOOD,     /* more tunnel handshakes from one source than the limit */
	RAVEN_DROP_WRITE_FAILED,        /* a write that was checked before failed half-way: a bug, so counted */

	RAVEN_REASON_MAX,
};

#endif
