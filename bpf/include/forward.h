/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
#ifndef RAVEN_FORWARD_H
#define RAVEN_FORWARD_H

#include "dropped.h"
#include "fib.h"
#include "flow.h"

/*
 * What a program decided: the reason to count and the action to return. Every check comes before the first write, so
 * that a packet which is passed on is as it came.
 */
struct raven_verdict {
	int reason; /* enum raven_reason */
	int action; /* TC_ACT_* */
};

static __always_inline struct raven_verdict raven_pass(int reason)
{
	return (struct raven_verdict){.reason = reason, .action = TC_ACT_UNSPEC};
}

static __always_inline struct raven_verdict raven_drop(struct __sk_buff *skb, const struct raven_packet *p, int reason)
{
	raven_remember(reason, &p->flow, skb->ifindex);
	return (struct raven_verdict){.reason = reason, .action = TC_ACT_SHOT};
}

/*
 * What every program on one of Raven's or the underlay's devices begins with: 0 and the packet's headers in *p, or the
 * reason to pass it on.
 */
static __always_inline int raven_begin(struct __sk_buff *skb, struct raven_packet *p, const __u32 l3,
				       const struct raven_node_config *config)
{
	if (!config || !(config->flags & RAVEN_FLAG_ACCELERATE))
		return RAVEN_PASS_DISABLED;
	if (skb->pkt_type != PACKET_HOST)
		return RAVEN_PASS_NOT_IP;
	return raven_parse(skb, p, l3);
}

/* Takes one from TTL or hop limit; the IPv4 checksum follows incrementally (RFC 1624). False: data moved away. */
static __always_inline bool raven_decrement_ttl(struct __sk_buff *skb, __u8 family, __u32 l3)
{
	void *end = (void *)(long)skb->data_end;

	if (family == AF_INET) {
		struct raven_ipv4 *ip = (void *)(long)skb->data + l3;
		__u32 sum;

		if ((void *)(ip + 1) > end)
			return false;
		sum = ip->check + bpf_htons(0x0100);
		ip->check = (__u16)(sum + (sum >= 0xffff));
		ip->ttl--;
		return true;
	}
	struct raven_ipv6 *ip = (void *)(long)skb->data + l3;

	if ((void *)(ip + 1) > end)
		return false;
	ip->hop_limit--;
	/*
	 * IPv6 has no header checksum to balance the change in the sum that some NICs put over the whole packet
	 * (CHECKSUM_COMPLETE). Without such a sum the helper refuses, which is as good.
	 */
	bpf_csum_update(skb, ~(__u32)bpf_htons(1));
	return true;
}

/*
 * Makes room for an Ethernet header where the packet has none, and writes it. Nothing has been changed when it returns
 * false. Afterwards the IP header begins at ETH_HLEN.
 */
static __always_inline bool raven_write_ethernet(struct __sk_buff *skb, const struct raven_packet *p, const __u32 l3,
						 const __u8 dst[6], const __u8 src[6])
{
	struct raven_eth *eth;

	if (l3 == 0 && bpf_skb_change_head(skb, ETH_HLEN, 0))
		return false;
	eth = (void *)(long)skb->data;
	if ((void *)(eth + 1) > (void *)(long)skb->data_end)
		return false;
	__builtin_memcpy(eth->dst, dst, 6);
	__builtin_memcpy(eth->src, src, 6);
	eth->proto = p->family == AF_INET ? bpf_htons(ETH_P_IP) : bpf_htons(ETH_P_IPV6);
	return true;
}

/* TTL and size, as the stack would judge them when it forwards: 0, or the reason to leave the packet to it. */
static __always_inline int raven_may_forward(const struct raven_packet *p, __u32 mtu)
{
	if (p->ttl <= 1)
		return RAVEN_PASS_TTL;
	if (p->wire_len > mtu)
		return RAVEN_PASS_OVERSIZE;
	return 0;
}

/*
 * True where the device is not there any more. A redirect to it would lose the packet without a word, and while the
 * agent is away nobody tells the maps that a pod or a tunnel has gone.
 */
static __always_inline bool raven_device_gone(struct __sk_buff *skb, __u32 ifindex)
{
	__u32 unused = 0;

	return bpf_check_mtu(skb, ifindex, &unused, 0, 0) < 0;
}

/* Sends the packet to a next hop. */
static __always_inline struct raven_verdict raven_forward(struct __sk_buff *skb, const struct raven_packet *p,
							  __u32 l3, const struct raven_nexthop *nexthop)
{
	__u32 ifindex;
	int reason;

	if (!nexthop || !(nexthop->flags & RAVEN_NEXTHOP_HEALTHY))
		return raven_pass(RAVEN_PASS_NEXTHOP_DOWN);
	reason = raven_may_forward(p, nexthop->mtu);
	if (reason)
		return raven_pass(reason);
	ifindex = nexthop->ifindex;
	if (raven_device_gone(skb, ifindex))
		return raven_pass(RAVEN_PASS_NEXTHOP_DOWN);

	if (nexthop->kind == RAVEN_NEXTHOP_DIRECT) {
		struct bpf_redir_neigh neigh = {.nh_family = p->family};

		if (p->family == AF_INET)
			__builtin_memcpy(&neigh.ipv4_nh, &nexthop->via.bytes[12], 4);
		else
			__builtin_memcpy(neigh.ipv6_nh, nexthop->via.bytes, 16);
		/* The header's addresses are filled in from the neighbour table; it only has to be there. */
		if (l3 == 0) {
			if (!raven_write_ethernet(skb, p, l3, nexthop->smac, nexthop->smac))
				return raven_pass(RAVEN_PASS_WRITE_FAILED);
			l3 = ETH_HLEN;
		}
		if (!raven_decrement_ttl(skb, p->family, l3))
			return raven_drop(skb, p, RAVEN_DROP_WRITE_FAILED);
		return (struct raven_verdict){
			.reason = RAVEN_REDIRECT_DIRECT,
			.action = bpf_redirect_neigh(ifindex, &neigh, sizeof(neigh), 0),
		};
	}

	if (nexthop->flags & RAVEN_NEXTHOP_ETHERNET) {
		if (!raven_write_ethernet(skb, p, l3, nexthop->dmac, nexthop->smac))
			return raven_pass(RAVEN_PASS_WRITE_FAILED);
		l3 = ETH_HLEN;
	}
	if (!raven_decrement_ttl(skb, p->family, l3))
		return raven_drop(skb, p, RAVEN_DROP_WRITE_FAILED);
	return (struct raven_verdict){
		.reason = nexthop->kind == RAVEN_NEXTHOP_TUNNEL ? RAVEN_REDIRECT_TUNNEL : RAVEN_REDIRECT_OVERLAY,
		/* A device without Ethernet takes the packet from its IP header on. */
		.action = bpf_redirect(ifindex, 0),
	};
}

/*
 * Hands a packet whose flow may be accelerated to the local pod that owns its destination address: into the pod's end of
 * the veth at once, or, without peer, by the host's end of it.
 */
static __always_inline struct raven_verdict raven_hand_to(struct __sk_buff *skb, const struct raven_packet *p,
							  const __u32 l3, const struct raven_pod *pod, const bool peer)
{
	__u32 ifindex = pod->ifindex;
	int reason = raven_may_forward(p, pod->mtu);

	if (reason)
		return raven_pass(reason);
	if (raven_device_gone(skb, ifindex))
		return raven_pass(RAVEN_PASS_UNKNOWN_POD);
	/* The pod drops frames that are not addressed to it. */
	if (!raven_write_ethernet(skb, p, l3, pod->mac, pod->gw_mac))
		return raven_pass(RAVEN_PASS_WRITE_FAILED);
	if (!raven_decrement_ttl(skb, p->family, ETH_HLEN))
		return raven_drop(skb, p, RAVEN_DROP_WRITE_FAILED);
	return (struct raven_verdict){
		.reason = RAVEN_REDIRECT_POD,
		.action = peer ? bpf_redirect_peer(ifindex, 0) : bpf_redirect(ifindex, 0),
	};
}

/* Hands the packet to its local pod when the flow is established on this host. */
static __always_inline struct raven_verdict raven_deliver(struct __sk_buff *skb, const struct raven_packet *p,
							  const __u32 l3, const struct raven_node_config *config,
							  const bool peer)
{
	struct raven_pod *pod = bpf_map_lookup_elem(&raven_pods, &p->flow.daddr);
	int reason;

	if (!pod)
		return raven_pass(RAVEN_PASS_UNKNOWN_POD);
	reason = raven_flow_verdict(skb, p, config);
	if (reason)
		return raven_pass(reason);
	return raven_hand_to(skb, p, l3, pod, peer);
}

/* The same for a flow that raven_flow_is_known. */
static __always_inline struct raven_verdict raven_deliver_known(struct __sk_buff *skb, const struct raven_packet *p)
{
	struct raven_pod *pod = bpf_map_lookup_elem(&raven_pods, &p->flow.daddr);

	return pod ? raven_hand_to(skb, p, ETH_HLEN, pod, true) : raven_pass(RAVEN_PASS_UNKNOWN_POD);
}

#endif
