/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
#ifndef RAVEN_VXLAN_H
#define RAVEN_VXLAN_H

#include "forward.h"

/* RFC 7348, section 5. */
struct raven_vxlan {
	__be32 flags;
	__be32 vni; /* in the upper 24 bits */
} __attribute__((packed, aligned(2)));

#define RAVEN_VXLAN_VNI_VALID 0x08000000
#define RAVEN_ECN_CE 3 /* RFC 3168, section 5: both bits set say that there was congestion */

/* What comes before the inner packet: IPv4, UDP, VXLAN, and the inner frame's Ethernet header. */
struct raven_outer {
	struct raven_eth eth;
	struct raven_ipv4 ip;
	struct raven_udp udp;
	struct raven_vxlan vxlan;
	struct raven_eth inner;
} __attribute__((packed, aligned(2)));

#define RAVEN_OUTER_LEN (sizeof(struct raven_outer) - ETH_HLEN)

/* An end of VXLAN on this node: who sends what to which address, and the device that it comes in by. */
struct raven_vtep {
	__u32 vni;
	__u32 ifindex;
	const __u8 *address;
	enum raven_member sender;
};

/* True for what is sent to a VXLAN port, by anybody, over IPv4; *to is then the end that has it. */
static __always_inline bool raven_is_vxlan(struct __sk_buff *skb, const struct raven_node_config *config,
					   struct raven_vtep *to)
{
	struct raven_outer *outer;

	if (skb->protocol != bpf_htons(ETH_P_IP) || !raven_pull(skb, sizeof(*outer)))
		return false;
	outer = (void *)(long)skb->data;
	if ((void *)(outer + 1) > (void *)(long)skb->data_end)
		return false;
	if (outer->ip.version_ihl != 0x45 || outer->ip.protocol != IPPROTO_UDP)
		return false;
	if (outer->udp.dport == bpf_htons(config->overlay_port)) {
		to->vni = config->overlay_vni;
		to->ifindex = config->overlay_ifindex;
		to->address = config->underlay;
		to->sender = RAVEN_MEMBER_OF_REGION;
		return true;
	}
	if (config->tunnel_vni && outer->udp.dport == bpf_htons(config->tunnel_port)) {
		to->vni = config->tunnel_vni;
		to->ifindex = config->tunnel_ifindex;
		to->address = config->tunnel_address;
		to->sender = RAVEN_MEMBER_PEER;
		return true;
	}
	return false;
}

/* True where the device is there, and the inner packet no larger than what a redirect to it may bring in. */
static __always_inline bool raven_takes(struct __sk_buff *skb, __u32 ifindex)
{
	__u32 unused = 0;

	return bpf_check_mtu(skb, ifindex, &unused, -(int)RAVEN_OUTER_LEN, 0) == 0;
}

/*
 * Takes the encapsulation off a packet that raven_is_vxlan, and has it come in by the device that has it, as the stack would do
 * after its routing and its packet filter. It does so only for what comes from a member to this node, which the nft table
 * raven admits too; all else it leaves to the stack, and so it does where the stack would do more than that: a segmented or
 * fragmented packet, a congestion mark, more than the device's MTU.
 *
 * The outer checksum is not looked at, as RFC 7348 (section 5) allows: the headers that it covers beside the inner
 * packet are compared here, and whoever the inner packet is for verifies that packet's own.
 *
 * The device has no GRO, so what the stack decapsulates comes in by the same queue and nothing is overtaken.
 */
static __always_inline struct raven_verdict raven_decapsulate(struct __sk_buff *skb, const struct raven_vtep *to)
{
	struct raven_outer *outer = (void *)(long)skb->data;
	struct raven_addr source;
	struct raven_eth inner;

	if ((void *)(outer + 1) > (void *)(long)skb->data_end)
		return raven_pass(RAVEN_PASS_MALFORMED);
	if (skb->gso_size || outer->ip.frag_off & bpf_htons(0x3fff) ||
	    (outer->ip.tos & RAVEN_ECN_CE) == RAVEN_ECN_CE)
		return raven_pass(RAVEN_PASS_UNDERLAY);
	if (!raven_ipv4_checksum_ok(&outer->ip) || outer->vxlan.flags != bpf_htonl(RAVEN_VXLAN_VNI_VALID) ||
	    outer->vxlan.vni != bpf_htonl(to->vni << 8))
		return raven_pass(RAVEN_PASS_MALFORMED);
	if (__builtin_memcmp(outer->ip.daddr, to->address, 4) != 0)
		return raven_pass(RAVEN_PASS_UNDERLAY);
	raven_map4(&source, outer->ip.saddr);
	if (!raven_is_member(&source, to->sender))
		return raven_pass(RAVEN_PASS_UNDERLAY); /* a stranger: the table drops and counts it */
	if (!raven_takes(skb, to->ifindex))
		return raven_pass(RAVEN_PASS_NEXTHOP_DOWN);

	__builtin_memcpy(&inner, &outer->inner, sizeof(inner));
	if (bpf_skb_adjust_room(skb, -(int)RAVEN_OUTER_LEN, BPF_ADJ_ROOM_MAC, 0))
		return raven_pass(RAVEN_PASS_WRITE_FAILED);
	if ((void *)(long)skb->data + sizeof(inner) > (void *)(long)skb->data_end)
		return (struct raven_verdict){.reason = RAVEN_DROP_WRITE_FAILED, .action = TC_ACT_SHOT};
	__builtin_memcpy((void *)(long)skb->data, &inner, sizeof(inner));
	return (struct raven_verdict){
		.reason = RAVEN_REDIRECT_DECAPSULATED,
		.action = bpf_redirect(to->ifindex, BPF_F_INGRESS),
	};
}

#endif
