/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
#ifndef RAVEN_FLOW_H
#define RAVEN_FLOW_H

#include "packet.h"

/* How long a verdict stands before conntrack is asked again: a flush after a policy change acts within this time. */
#define RAVEN_RECHECK_NS 2000000000ULL

/*
 * Conntrack does not see accelerated packets, so its timer would run out under a busy flow. Push it up to the timeout
 * that the flow's own state has, never down, and never where somebody fixed it.
 */
static __always_inline void raven_refresh(struct nf_conn *ct, unsigned long status, __u8 protocol,
					  const struct raven_node_config *config)
{
	__u32 seconds, remaining, tick_ns = config->tick_ns;

	if (status & IPS_FIXED_TIMEOUT || !tick_ns)
		return;
	if (protocol == IPPROTO_TCP)
		seconds = config->tcp_established_s;
	else
		seconds = status & IPS_ASSURED ? config->udp_stream_s : config->udp_s;
	remaining = ct->timeout - (__u32)bpf_jiffies64();
	if ((__s32)remaining < 0 || remaining < seconds * 1000000000ULL / tick_ns)
		bpf_ct_change_timeout(ct, seconds * 1000);
}

/* Asks conntrack; RAVEN_REDIRECT_POD means that the flow may be accelerated, anything else says why not. */
static __always_inline __u32 raven_ask_conntrack(struct __sk_buff *skb, const struct raven_packet *p,
						 const struct raven_node_config *config)
{
	struct bpf_ct_opts___v1 opts = {.netns_id = -1, .l4proto = p->flow.protocol};
	struct bpf_sock_tuple tuple = {};
	struct nf_conn *ct;
	unsigned long status;
	__u32 verdict = RAVEN_REDIRECT_POD, size;

	if (p->family == AF_INET) {
		__builtin_memcpy(&tuple.ipv4.saddr, &p->flow.saddr.bytes[12], 4);
		__builtin_memcpy(&tuple.ipv4.daddr, &p->flow.daddr.bytes[12], 4);
		tuple.ipv4.sport = p->flow.sport;
		tuple.ipv4.dport = p->flow.dport;
		size = sizeof(tuple.ipv4);
	} else {
		__builtin_memcpy(tuple.ipv6.saddr, p->flow.saddr.bytes, 16);
		__builtin_memcpy(tuple.ipv6.daddr, p->flow.daddr.bytes, 16);
		tuple.ipv6.sport = p->flow.sport;
		tuple.ipv6.dport = p->flow.dport;
		size = sizeof(tuple.ipv6);
	}
	ct = bpf_skb_ct_lookup(skb, &tuple, size, &opts, sizeof(opts));
	if (!ct)
		return RAVEN_PASS_UNTRACKED;
	status = ct->status;
	if (status & (IPS_SRC_NAT | IPS_DST_NAT))
		verdict = RAVEN_PASS_NAT;
	else if (status & (IPS_SEQ_ADJUST | IPS_NAT_CLASH | IPS_HELPER))
		verdict = RAVEN_PASS_CT_SPECIAL;
	else if (status & IPS_DYING || !(status & IPS_SEEN_REPLY))
		verdict = RAVEN_PASS_UNESTABLISHED;
	/* Without ASSURED the handshake's last ACK would be accelerated and the entry freeze in SYN_RECV. */
	else if (p->flow.protocol == IPPROTO_TCP &&
		 (!(status & IPS_ASSURED) || ct->proto.tcp.state != TCP_CONNTRACK_ESTABLISHED))
		verdict = RAVEN_PASS_UNESTABLISHED;
	if (verdict == RAVEN_REDIRECT_POD)
		raven_refresh(ct, status, p->flow.protocol, config);
	bpf_ct_release(ct);
	return verdict;
}

static __always_inline void raven_forget(const struct raven_packet *p)
{
	struct raven_flow_key reverse = {
		.saddr = p->flow.daddr,
		.daddr = p->flow.saddr,
		.sport = p->flow.dport,
		.dport = p->flow.sport,
		.protocol = p->flow.protocol,
	};

	bpf_map_delete_elem(&raven_flows, &p->flow);
	bpf_map_delete_elem(&raven_flows, &reverse);
}

/*
 * Whether this host, being one of the flow's two ends, may accelerate the packet: 0, or the reason to pass. Verdicts
 * are kept in raven_flows and checked again every RAVEN_RECHECK_NS. Those that change with the next packet (no entry
 * yet, no reply yet) are not kept.
 */
static __always_inline int raven_flow_verdict(struct __sk_buff *skb, const struct raven_packet *p,
					      const struct raven_node_config *config)
{
	struct raven_flow *flow;
	__u64 now;
	__u32 verdict;

	if (p->flow.protocol != IPPROTO_TCP && p->flow.protocol != IPPROTO_UDP)
		return RAVEN_PASS_PROTOCOL;
	if (p->tcp_flags & (RAVEN_TCP_SYN | RAVEN_TCP_FIN | RAVEN_TCP_RST)) {
		/* SYN too: it opens a connection anew between the same ports, whose handshake conntrack has to see. */
		raven_forget(p);
		return RAVEN_PASS_TCP_CONTROL;
	}
	now = bpf_ktime_get_coarse_ns();
	flow = bpf_map_lookup_elem(&raven_flows, &p->flow);
	if (flow && now - flow->checked_ns < RAVEN_RECHECK_NS)
		return flow->verdict == RAVEN_REDIRECT_POD ? 0 : flow->verdict;

	verdict = raven_ask_conntrack(skb, p, config);
	if (verdict == RAVEN_PASS_UNTRACKED || verdict == RAVEN_PASS_UNESTABLISHED) {
		if (flow)
			bpf_map_delete_elem(&raven_flows, &p->flow);
		return verdict;
	}
	if (flow) {
		flow->verdict = verdict;
		flow->ifindex = skb->ifindex;
		flow->checked_ns = now;
	} else {
		struct raven_flow fresh = {.checked_ns = now, .verdict = verdict, .ifindex = skb->ifindex};

		/* A full map evicts its oldest entry; should that fail too, the next packet asks again. */
		bpf_map_update_elem(&raven_flows, &p->flow, &fresh, BPF_ANY);
	}
	return verdict == RAVEN_REDIRECT_POD ? 0 : verdict;
}

/*
 * True where packets of the same flow that came in by the same device were found to be right, and the flow may be
 * accelerated: for RAVEN_RECHECK_NS their source and destination need not be looked up again. Only a member asks. On a
 * gateway most packets are on their way through, and are no flows of its own.
 */
static __always_inline bool raven_flow_is_known(struct __sk_buff *skb, const struct raven_packet *p,
						const struct raven_node_config *config)
{
	struct raven_flow *flow;

	if (config->flags & RAVEN_FLAG_GATEWAY || p->tcp_flags & (RAVEN_TCP_SYN | RAVEN_TCP_FIN | RAVEN_TCP_RST))
		return false;
	flow = bpf_map_lookup_elem(&raven_flows, &p->flow);
	return flow && flow->ifindex == skb->ifindex && flow->verdict == RAVEN_REDIRECT_POD &&
	       bpf_ktime_get_coarse_ns() - flow->checked_ns < RAVEN_RECHECK_NS;
}

#endif
