/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
#ifndef RAVEN_KERNEL_H
#define RAVEN_KERNEL_H

/*
 * What the programs need to know of the kernel: the BPF UAPI, the few protocol constants, and the fields of conntrack
 * entries that are read by CO-RE. The field names and numbers are the kernel's own (include/uapi/linux/in.h,
 * include/uapi/linux/netfilter/nf_conntrack_common.h, include/net/netfilter/nf_conntrack.h).
 */

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>

typedef _Bool bool;
#define true 1
#define false 0
#define NULL ((void *)0)

#define ETH_P_IP 0x0800
#define ETH_P_IPV6 0x86DD
#define ETH_HLEN 14

#define IPPROTO_ICMP 1
#define IPPROTO_TCP 6
#define IPPROTO_UDP 17
#define IPPROTO_ICMPV6 58

/* IPv6 extension headers (RFC 8200, 4302, 4303, 6275). */
#define IPPROTO_HOPOPTS 0
#define IPPROTO_ROUTING 43
#define IPPROTO_FRAGMENT 44
#define IPPROTO_ESP 50
#define IPPROTO_AH 51
#define IPPROTO_DSTOPTS 60
#define IPPROTO_MH 135

#define AF_INET 2
#define AF_INET6 10

/* tc verdicts (include/uapi/linux/pkt_cls.h); TC_ACT_UNSPEC equals TCX_NEXT, so other programs still run. */
#define TC_ACT_UNSPEC (-1)
#define TC_ACT_SHOT 2

#define PACKET_HOST 0

struct raven_eth {
	__u8 dst[6];
	__u8 src[6];
	__be16 proto;
} __attribute__((packed));

struct raven_ipv4 {
	__u8 version_ihl;
	__u8 tos;
	__be16 total_len;
	__be16 id;
	__be16 frag_off;
	__u8 ttl;
	__u8 protocol;
	__u16 check;
	__u8 saddr[4];
	__u8 daddr[4];
} __attribute__((packed, aligned(2)));

struct raven_ipv6 {
	__u8 version_class;
	__u8 class_flow[3];
	__be16 payload_len;
	__u8 next_header;
	__u8 hop_limit;
	__u8 saddr[16];
	__u8 daddr[16];
} __attribute__((packed, aligned(2)));

struct raven_tcp {
	__be16 sport;
	__be16 dport;
	__be32 seq;
	__be32 ack;
	__u8 offset; /* upper four bits: header length in 32-bit words */
	__u8 flags;
	__be16 window;
	__u16 check;
	__be16 urgent;
} __attribute__((packed, aligned(2)));

struct raven_udp {
	__be16 sport;
	__be16 dport;
	__be16 len;
	__u16 check;
} __attribute__((packed, aligned(2)));

#define RAVEN_TCP_FIN 0x01
#define RAVEN_TCP_SYN 0x02
#define RAVEN_TCP_RST 0x04

/* enum ip_conntrack_status */
#define IPS_SEEN_REPLY (1 << 1)
#define IPS_ASSURED (1 << 2)
#define IPS_SRC_NAT (1 << 4)
#define IPS_DST_NAT (1 << 5)
#define IPS_SEQ_ADJUST (1 << 6)
#define IPS_DYING (1 << 9)
#define IPS_FIXED_TIMEOUT (1 << 10)
#define IPS_NAT_CLASH (1 << 12)
#define IPS_HELPER (1 << 13)

/* enum tcp_conntrack */
#define TCP_CONNTRACK_ESTABLISHED 3

struct ip_ct_tcp {
	__u8 state;
} __attribute__((preserve_access_index));

union nf_conntrack_proto {
	struct ip_ct_tcp tcp;
} __attribute__((preserve_access_index));

struct nf_conn {
	__u32 timeout; /* jiffies, low 32 bits */
	unsigned long status;
	union nf_conntrack_proto proto;
} __attribute__((preserve_access_index));

/* 12 bytes, as Linux 6.1 has it; later kernels accept both this length and their own. */
struct bpf_ct_opts___v1 {
	__s32 netns_id; /* BPF_F_CURRENT_NETNS: the namespace of the packet's device */
	__s32 error;
	__u8 l4proto;
	__u8 dir;
	__u8 reserved[2];
};

extern struct nf_conn *bpf_skb_ct_lookup(struct __sk_buff *skb, struct bpf_sock_tuple *tuple, __u32 tuple_size,
					 struct bpf_ct_opts___v1 *opts, __u32 opts_size) __ksym;
extern int bpf_ct_change_timeout(struct nf_conn *ct, __u32 timeout_ms) __ksym;
extern void bpf_ct_release(struct nf_conn *ct) __ksym;

#endif
