//go:build ignore

// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
/*
 * tc ingress of the underlay NIC, and of the one that a VXLAN tunnel's packets come by. It takes VXLAN off the packets of
 * members and peers, which spares them the stack's way up to the VXLAN socket; and where next hops of kind direct are in use, it does what raven_from_overlay does, for packets that
 * came without VXLAN. The NIC carries much that is not Raven's, so this program drops nothing of others: what it does
 * not recognise goes to the stack, where the nft table raven keeps strangers out of the tunnel.
 */
#include "include/count.h"
#include "include/vxlan.h"

char _license[] SEC("license") = "Dual BSD/GPL";

/* True for IPv4 packets to the node's own address, which most of the tunnel's are: they need no look-up. */
static __always_inline bool to_this_node(struct __sk_buff *skb, const struct raven_node_config *config)
{
	struct raven_ipv4 *ip = (void *)(long)skb->data + ETH_HLEN;

	return skb->protocol == bpf_htons(ETH_P_IP) && (void *)(ip + 1) <= (void *)(long)skb->data_end &&
	       __builtin_memcmp(&ip->daddr, config->underlay, 4) == 0;
}

/* What came without VXLAN. */
static __always_inline struct raven_verdict decide_direct(struct __sk_buff *skb,
							  const struct raven_node_config *config)
{
	struct raven_packet p;
	struct raven_fib_entry *to;
	int reason;

	if (to_this_node(skb, config))
		return raven_pass(RAVEN_PASS_LOCAL_HOST);
	reason = raven_begin(skb, &p, ETH_HLEN, config);
	if (reason)
		return raven_pass(reason);
	if (raven_flow_is_known(skb, &p, config))
		return raven_deliver_known(skb, &p);

	to = raven_fib_lookup(p.family, &p.flow.daddr);
	if (!to)
		return raven_pass(RAVEN_PASS_NO_ROUTE);
	switch (to->scope) {
	case RAVEN_SCOPE_REMOTE:
		if (!(config->flags & RAVEN_FLAG_GATEWAY) || !raven_source_ok(skb, &p, RAVEN_SCOPE_IN_REGION))
			return raven_pass(RAVEN_PASS_NO_ROUTE);
		return raven_forward(skb, &p, ETH_HLEN, raven_nexthop_of(to));
	case RAVEN_SCOPE_LOCAL:
		if (!raven_source_ok(skb, &p, RAVEN_SCOPE_REMOTE))
			return raven_pass(RAVEN_PASS_NO_ROUTE);
		return raven_deliver(skb, &p, ETH_HLEN, config, true);
	case RAVEN_SCOPE_HOST:
		return raven_pass(RAVEN_PASS_LOCAL_HOST);
	default:
		return raven_pass(RAVEN_PASS_NO_ROUTE);
	}
}

static __always_inline struct raven_verdict decide(struct __sk_buff *skb)
{
	const struct raven_node_config *config = raven_get_config();
	struct raven_vtep vtep;

	if (!config || !(config->flags & RAVEN_FLAG_ACCELERATE))
		return raven_pass(RAVEN_PASS_DISABLED);
	if (skb->pkt_type == PACKET_HOST && raven_is_vxlan(skb, config, &vtep))
		return raven_decapsulate(skb, &vtep);
	if (config->flags & RAVEN_FLAG_DIRECT)
		return decide_direct(skb, config);
	return raven_pass(RAVEN_PASS_UNDERLAY);
}

SEC("tc")
int raven_from_underlay(struct __sk_buff *skb)
{
	__u32 len = skb->len;
	struct raven_verdict verdict = decide(skb);

	RAVEN_COUNT(from_underlay, verdict.reason, len);
	return verdict.action;
}
