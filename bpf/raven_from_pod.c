//go:build ignore

// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
/*
 * tc ingress of the host's end of a pod's veth: packets that a pod sends. Those of established flows to another region
 * go straight to the next hop. Packets to anywhere else are none of Raven's business.
 */
#include "include/count.h"
#include "include/forward.h"

char _license[] SEC("license") = "Dual BSD/GPL";

/* True where the frame is meant for the pod's gateway and not for a neighbour on the same bridge. */
static __always_inline bool addressed_to_gateway(struct __sk_buff *skb, const struct raven_pod *pod)
{
	struct raven_eth *eth = (void *)(long)skb->data;

	if ((void *)(eth + 1) > (void *)(long)skb->data_end)
		return false;
	return __builtin_memcmp(eth->dst, pod->gw_mac, 6) == 0;
}

static __always_inline struct raven_verdict decide(struct __sk_buff *skb)
{
	const struct raven_node_config *config = raven_get_config();
	struct raven_packet p;
	struct raven_fib_entry *to, *from;
	struct raven_pod *pod;
	int reason;

	if (!config || !(config->flags & RAVEN_FLAG_ACCELERATE))
		return raven_pass(RAVEN_PASS_DISABLED);
	reason = raven_parse(skb, &p, ETH_HLEN);
	if (reason)
		return raven_pass(reason);
	to = raven_fib_lookup(p.family, &p.flow.daddr);
	if (!to || to->scope != RAVEN_SCOPE_REMOTE)
		return raven_pass(RAVEN_PASS_NO_ROUTE);

	pod = bpf_map_lookup_elem(&raven_pods, &p.flow.saddr);
	if (!pod || pod->ifindex != skb->ifindex) {
		from = raven_fib_lookup(p.family, &p.flow.saddr);
		if (!from || from->scope != RAVEN_SCOPE_LOCAL)
			return raven_drop(skb, &p, RAVEN_DROP_SPOOFED_SOURCE);
		/* One of this node's addresses, but nobody said that it is this pod's: the stack judges. */
		return raven_pass(RAVEN_PASS_UNKNOWN_POD);
	}
	if (!addressed_to_gateway(skb, pod))
		return raven_pass(RAVEN_PASS_NOT_IP);
	reason = raven_flow_verdict(skb, &p, config);
	if (reason)
		return raven_pass(reason);
	return raven_forward(skb, &p, ETH_HLEN, raven_nexthop_of(to));
}

SEC("tc")
int raven_from_pod(struct __sk_buff *skb)
{
	__u32 len = skb->len;
	struct raven_verdict verdict = decide(skb);

	RAVEN_COUNT(from_pod, verdict.reason, len);
	return verdict.action;
}
