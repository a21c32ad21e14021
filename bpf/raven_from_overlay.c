//go:build ignore

// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
/*
 * tc ingress of raven0: packets from other nodes of this region. On a gateway, a member's packet to another region goes
 * into the tunnel, statelessly: the hosts of the flow's two ends decide on policy. On a member, what the gateway brings
 * from another region goes to the local pod, if the flow is established.
 */
#include "include/count.h"
#include "include/forward.h"

char _license[] SEC("license") = "Dual BSD/GPL";

static __always_inline struct raven_verdict decide(struct __sk_buff *skb)
{
	const struct raven_node_config *config = raven_get_config();
	struct raven_packet p;
	struct raven_fib_entry *to;
	int reason;

	reason = raven_begin(skb, &p, ETH_HLEN, config);
	if (reason)
		return raven_pass(reason);
	if (raven_flow_is_known(skb, &p, config))
		return raven_deliver_known(skb, &p);
	if (raven_link_scope(&p))
		return raven_pass(RAVEN_PASS_NO_ROUTE);
	/* The scope alone: answers may go without VXLAN where this node was told so before the others. */
	if (!raven_source_in(&p, config->flags & RAVEN_FLAG_GATEWAY ? RAVEN_SCOPE_IN_REGION : RAVEN_SCOPE_REMOTE)) {
		/* What another region asks of a NodePort of the gateway comes to a pod here in the gateway's own name. */
		if (!(config->flags & RAVEN_FLAG_GATEWAY) && raven_is_member(&p.flow.saddr, RAVEN_MEMBER_OF_REGION))
			return raven_pass(RAVEN_PASS_NO_ROUTE);
		return raven_drop(skb, &p, RAVEN_DROP_WRONG_REGION_SOURCE);
	}

	to = raven_fib_lookup(p.family, &p.flow.daddr);
	if (!to)
		return raven_pass(RAVEN_PASS_NO_ROUTE);
	switch (to->scope) {
	case RAVEN_SCOPE_REMOTE:
		if (!(config->flags & RAVEN_FLAG_GATEWAY))
			return raven_pass(RAVEN_PASS_NO_ROUTE);
		return raven_forward(skb, &p, ETH_HLEN, raven_nexthop_of(to));
	case RAVEN_SCOPE_LOCAL:
		return raven_deliver(skb, &p, ETH_HLEN, config, true);
	case RAVEN_SCOPE_HOST:
		return raven_pass(RAVEN_PASS_LOCAL_HOST);
	default:
		return raven_pass(RAVEN_PASS_NO_ROUTE);
	}
}

SEC("tc")
int raven_from_overlay(struct __sk_buff *skb)
{
	__u32 len = skb->len;
	struct raven_verdict verdict = decide(skb);

	RAVEN_COUNT(from_overlay, verdict.reason, len);
	return verdict.action;
}
