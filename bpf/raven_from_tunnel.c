//go:build ignore

// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
/*
 * tc ingress of the tunnel device, on a gateway: packets from other regions, decrypted. They go to a node of this
 * region, to a local pod (if the flow is established), or, on a relay, into the tunnel again.
 */
#include "include/count.h"
#include "include/forward.h"

char _license[] SEC("license") = "Dual BSD/GPL";

/* Set before loading: 1 where the device carries Ethernet frames, 0 where it carries bare IP packets. */
const volatile __u8 raven_tunnel_ethernet = 0;
/*
 * Set before loading: 1 where the kernel's XFRM decrypted the packet. It then carries the state that it came by into the
 * pod, where before Linux 6.15 no policy admits that; only the way through the veth's host side takes it off.
 */
const volatile __u8 raven_tunnel_xfrm = 0;

static __always_inline struct raven_verdict decide(struct __sk_buff *skb, const __u32 l3)
{
	const struct raven_node_config *config = raven_get_config();
	struct raven_packet p;
	struct raven_fib_entry *to;
	int reason;

	reason = raven_begin(skb, &p, l3, config);
	if (reason)
		return raven_pass(reason);
	if (raven_link_scope(&p))
		return raven_pass(RAVEN_PASS_NO_ROUTE);
	if (!raven_source_ok(skb, &p, RAVEN_SCOPE_REMOTE))
		return raven_drop(skb, &p, RAVEN_DROP_WRONG_REGION_SOURCE);

	to = raven_fib_lookup(p.family, &p.flow.daddr);
	if (!to)
		return raven_pass(RAVEN_PASS_NO_ROUTE);
	switch (to->scope) {
	case RAVEN_SCOPE_REMOTE:
	case RAVEN_SCOPE_IN_REGION:
		return raven_forward(skb, &p, l3, raven_nexthop_of(to));
	case RAVEN_SCOPE_LOCAL:
		return raven_deliver(skb, &p, l3, config, !raven_tunnel_xfrm);
	case RAVEN_SCOPE_HOST:
		return raven_pass(RAVEN_PASS_LOCAL_HOST);
	default:
		return raven_pass(RAVEN_PASS_NO_ROUTE);
	}
}

/*
 * True where XFRM has rebuilt the Ethernet header of the outer packet before what it decrypted, as it does where that came
 * with one: the header's type is the inner packet's, whose length fits behind it.
 */
static __always_inline bool rebuilt_ethernet(struct __sk_buff *skb)
{
	if (!raven_pull(skb, ETH_HLEN + sizeof(struct raven_ipv4)))
		return false;
	void *data = (void *)(long)skb->data;
	struct raven_eth *eth = data;
	/* IPv6's length lies within as many bytes, too. */
	struct raven_ipv4 *ip = data + ETH_HLEN;
	__u32 ip_len = skb->len - ETH_HLEN;

	if ((void *)(ip + 1) > (void *)(long)skb->data_end || eth->proto != (__be16)skb->protocol)
		return false;
	if (eth->proto == bpf_htons(ETH_P_IP))
		return ip->version_ihl >> 4 == 4 && bpf_ntohs(ip->total_len) == ip_len;
	return ip->version_ihl >> 4 == 6 && bpf_ntohs(*(__be16 *)(data + ETH_HLEN + 4)) + sizeof(struct raven_ipv6) == ip_len;
}

SEC("tc")
int raven_from_tunnel(struct __sk_buff *skb)
{
	__u32 len = skb->len;
	bool ethernet = raven_tunnel_ethernet || (raven_tunnel_xfrm && rebuilt_ethernet(skb));
	struct raven_verdict verdict = ethernet ? decide(skb, ETH_HLEN) : decide(skb, 0);

	RAVEN_COUNT(from_tunnel, verdict.reason, len);
	return verdict.action;
}
