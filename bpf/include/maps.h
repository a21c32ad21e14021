/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
#ifndef RAVEN_MAPS_H
#define RAVEN_MAPS_H

/*
 * Every map and every struct that is shared with the daemon, the CNI plugin and bpftool. The layouts are tested against
 * their Go counterparts. Addresses and ports are in network byte order, everything else in host order.
 */

#include "kernel.h"
#include "abi.h"
#include "reasons.h"

#define RAVEN_MAX_PREFIXES 65536
#define RAVEN_MAX_NEXTHOPS 16384
#define RAVEN_MAX_PODS 4096
#define RAVEN_MAX_FLOWS 131072
#define RAVEN_MAX_MEMBERS 16384
#define RAVEN_MAX_HANDSHAKE_SOURCES 65536

/* An IPv6 address, or an IPv4 one mapped into ::ffff:0:0/96. */
struct raven_addr {
	__u8 bytes[16];
};

/* ---- switches and limits, one entry, written by the daemon ---- */

enum raven_flag {
	RAVEN_FLAG_ACCELERATE = 1, /* unset: every tc program passes everything to the stack */
	RAVEN_FLAG_GATEWAY = 2,    /* this node holds its region's tunnels */
	RAVEN_FLAG_DIRECT = 4,     /* next hops of kind direct are in use: packets come without VXLAN */
};

struct raven_node_config {
	enum raven_flag flags;
	__u32 tcp_established_s;     /* nf_conntrack_tcp_timeout_established */
	__u32 udp_s;                 /* nf_conntrack_udp_timeout */
	__u32 udp_stream_s;          /* nf_conntrack_udp_timeout_stream */
	__u32 tick_ns;               /* length of a jiffy: the resolution of CLOCK_MONOTONIC_COARSE */
	__u32 handshakes_per_second; /* per source, XDP; 0: no limit */
	__u16 tunnel_port;           /* UDP, 0: no tunnel ends here */
	__u16 overlay_port;          /* UDP */
	__u32 overlay_vni;
	__u32 overlay_ifindex;       /* of raven0 */
	__u8 underlay[4];            /* this node's address that VXLAN comes to; zero where it is not IPv4 */
	__u32 tunnel_vni;            /* of a tunnel whose device is VXLAN over IPv4, else 0 */
	__u32 tunnel_ifindex;        /* of that device */
	__u8 tunnel_address[4];      /* this node's address that its packets come to */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct raven_node_config);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} raven_config SEC(".maps");

/* ---- FIB: prefix -> next hop, by number ---- */

enum raven_scope {
	RAVEN_SCOPE_REMOTE = 1,    /* another region: serves any traffic */
	RAVEN_SCOPE_IN_REGION = 2, /* on a gateway, another node of the region: serves what comes out of the tunnel */
	RAVEN_SCOPE_LOCAL = 3,     /* this node's pod prefixes: sources of pods, and looked up in raven_pods */
	RAVEN_SCOPE_HOST = 4,      /* this node's own addresses */
};

struct raven_fib4_key {
	__u32 prefixlen;
	__u8 addr[4];
};

struct raven_fib6_key {
	__u32 prefixlen;
	__u8 addr[16];
};

struct raven_fib_entry {
	__u32 nexthop; /* index into raven_nexthops; unused with scope LOCAL and HOST */
	enum raven_scope scope;
};

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, RAVEN_MAX_PREFIXES);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct raven_fib4_key);
	__type(value, struct raven_fib_entry);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} raven_fib4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, RAVEN_MAX_PREFIXES);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct raven_fib6_key);
	__type(value, struct raven_fib_entry);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} raven_fib6 SEC(".maps");

/* ---- next hops ---- */

enum raven_nexthop_kind {
	RAVEN_NEXTHOP_NONE = 0, /* an empty slot */
	RAVEN_NEXTHOP_OVERLAY = 1,
	RAVEN_NEXTHOP_DIRECT = 2,
	RAVEN_NEXTHOP_TUNNEL = 3,
};

enum raven_nexthop_flag {
	RAVEN_NEXTHOP_HEALTHY = 1,
	RAVEN_NEXTHOP_ETHERNET = 2, /* the device carries Ethernet frames: dmac and smac are set */
};

struct raven_nexthop {
	__u32 group;      /* FNV-1a (32 bits) of the planner's next-hop ID; lets a restarted daemon find its slots again */
	__u32 ifindex;    /* the device to send from */
	enum raven_nexthop_kind kind;
	enum raven_nexthop_flag flags;
	__u8 dmac[6];     /* the neighbour's VTEP address */
	__u8 smac[6];     /* the device's own address */
	__u16 mtu;        /* bytes of an IP packet that fits all the way */
	__u8 pad[2];
	struct raven_addr via; /* kind DIRECT: the neighbour's address on the link */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, RAVEN_MAX_NEXTHOPS);
	__type(key, __u32);
	__type(value, struct raven_nexthop);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} raven_nexthops SEC(".maps");

/* ---- local pods, written by the daemon and the CNI plugin ---- */

struct raven_pod {
	__u32 ifindex; /* the host's end of the pod's veth */
	__u8 mac[6];   /* the pod's own address */
	__u8 gw_mac[6]; /* what the pod sees as its gateway's address */
	__u16 mtu;     /* of the host's end, bytes of an IP packet */
	__u8 pad[2];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, RAVEN_MAX_PODS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct raven_addr);
	__type(value, struct raven_pod);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} raven_pods SEC(".maps");

/* ---- flow verdicts, taken from conntrack ---- */

struct raven_flow_key {
	struct raven_addr saddr;
	struct raven_addr daddr;
	__be16 sport;
	__be16 dport;
	__u8 protocol; /* IPPROTO_TCP or IPPROTO_UDP */
	__u8 pad[3];
};

struct raven_flow {
	__u64 checked_ns; /* CLOCK_MONOTONIC_COARSE of the last look at conntrack */
	enum raven_reason verdict; /* RAVEN_REDIRECT_POD stands for "accelerate", all others say why not */
	__u32 ifindex; /* the device that the packet came in by for which conntrack was asked */
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, RAVEN_MAX_FLOWS);
	__type(key, struct raven_flow_key);
	__type(value, struct raven_flow);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} raven_flows SEC(".maps");

/* ---- admission: who may send VXLAN ---- */

enum raven_member {
	RAVEN_MEMBER_OF_REGION = 1, /* by raven0 */
	RAVEN_MEMBER_PEER = 2,      /* by a tunnel whose device is VXLAN */
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, RAVEN_MAX_MEMBERS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct raven_addr);
	__type(value, enum raven_member); /* one of them, or both */
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} raven_members SEC(".maps");

static __always_inline bool raven_is_member(const struct raven_addr *addr, enum raven_member which)
{
	enum raven_member *member = bpf_map_lookup_elem(&raven_members, addr);

	return member && *member & which;
}

struct raven_handshake_window {
	__u64 window_ns; /* CLOCK_MONOTONIC when the current second began */
	__u32 count;     /* handshakes in it */
	__u32 pad;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, RAVEN_MAX_HANDSHAKE_SOURCES);
	__type(key, struct raven_addr);
	__type(value, struct raven_handshake_window);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} raven_handshakes SEC(".maps");

/* ---- counters: reason -> program -> packets and bytes, per CPU ---- */

struct raven_counter {
	__u64 packets;
	__u64 bytes; /* of the frame or packet as the program met it */
};

struct raven_program_counters {
	struct raven_counter from_pod;
	struct raven_counter from_overlay;
	struct raven_counter from_tunnel;
	struct raven_counter from_underlay;
	struct raven_counter xdp_underlay;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, RAVEN_REASON_MAX);
	__type(key, __u32); /* enum raven_reason: the kernel takes an array's types only with an integer key */
	__type(value, struct raven_program_counters);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} raven_counters SEC(".maps");

/* ---- the last packets dropped: reason -> ring, per CPU ---- */

#define RAVEN_DROPPED_KEPT 8 /* a power of two */

struct raven_dropped {
	__u64 at_ns;                /* CLOCK_MONOTONIC */
	struct raven_flow_key flow; /* of VXLAN and handshakes that of the outer packet */
	__u32 ifindex;              /* the device that the packet came in by */
	__u32 pad;
};

/* A ring for each reason, so that a flood of one leaves the others' packets to be seen. */
struct raven_dropped_ring {
	__u64 count; /* of packets ever; the next one goes to last[count % RAVEN_DROPPED_KEPT] */
	struct raven_dropped last[RAVEN_DROPPED_KEPT];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, RAVEN_REASON_MAX);
	__type(key, __u32); /* enum raven_reason, as in raven_counters; only those of drops are filled */
	__type(value, struct raven_dropped_ring);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} raven_dropped SEC(".maps");

#endif
