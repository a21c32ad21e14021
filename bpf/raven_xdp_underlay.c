//go:build ignore

// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
/*
 * XDP on the underlay NIC, opt-in: drops VXLAN from strangers and floods of WireGuard handshakes before they cost
 * anything. It repeats what the nft table raven decides (strangers) and adds a limit per source (handshakes); packets of
 * established tunnels are of another type and do not count.
 */
#include "include/count.h"
#include "include/dropped.h"
#include "include/packet.h"

char _license[] SEC("license") = "Dual BSD/GPL";

/* The first message of a WireGuard handshake: type 1 with three reserved zero bytes, 148 bytes (wireguard.com/protocol). */
#define WIREGUARD_INITIATION 1
#define WIREGUARD_INITIATION_LEN 148
#define WINDOW_NS 1000000000ULL

struct verdict {
	int reason;
	int action;
};

static __always_inline struct verdict pass(int reason)
{
	return (struct verdict){.reason = reason, .action = XDP_PASS};
}

static __always_inline struct verdict drop(struct xdp_md *ctx, const struct raven_flow_key *flow, int reason)
{
	raven_remember(reason, flow, ctx->ingress_ifindex);
	return (struct verdict){.reason = reason, .action = XDP_DROP};
}

/* Counts one handshake of source in its current second; true where that is one too many. */
static __always_inline bool over_limit(const struct raven_addr *source, __u32 limit)
{
	struct raven_handshake_window *seen = bpf_map_lookup_elem(&raven_handshakes, source);
	__u64 now = bpf_ktime_get_ns();

	if (!seen || now - seen->window_ns >= WINDOW_NS) {
		struct raven_handshake_window fresh = {.window_ns = now, .count = 1};

		bpf_map_update_elem(&raven_handshakes, source, &fresh, BPF_ANY);
		return false;
	}
	return __sync_fetch_and_add(&seen->count, 1) >= limit;
}

/* flow holds the packet's addresses already. */
static __always_inline struct verdict judge_udp(struct xdp_md *ctx, const struct raven_node_config *config,
						struct raven_flow_key *flow, struct raven_udp *udp, void *end)
{
	if ((void *)(udp + 1) > end)
		return pass(RAVEN_PASS_MALFORMED);
	flow->sport = udp->sport;
	flow->dport = udp->dport;
	flow->protocol = IPPROTO_UDP;
	if (udp->dport == bpf_htons(config->overlay_port)) {
		if (!raven_is_member(&flow->saddr, RAVEN_MEMBER_OF_REGION))
			return drop(ctx, flow, RAVEN_DROP_VXLAN_STRANGER);
		return pass(RAVEN_PASS_UNDERLAY);
	}
	if (config->tunnel_port && config->handshakes_per_second && udp->dport == bpf_htons(config->tunnel_port)) {
		__u32 *type = (__u32 *)(udp + 1);

		if ((void *)(type + 1) > end || *type != bpf_htonl(WIREGUARD_INITIATION << 24) ||
		    bpf_ntohs(udp->len) != sizeof(*udp) + WIREGUARD_INITIATION_LEN)
			return pass(RAVEN_PASS_UNDERLAY);
		if (over_limit(&flow->saddr, config->handshakes_per_second))
			return drop(ctx, flow, RAVEN_DROP_HANDSHAKE_FLOOD);
	}
	return pass(RAVEN_PASS_UNDERLAY);
}

static __always_inline struct verdict decide(struct xdp_md *ctx)
{
	const struct raven_node_config *config = raven_get_config();
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct raven_eth *eth = data;
	struct raven_flow_key flow = {};

	if (!config)
		return pass(RAVEN_PASS_DISABLED);
	if ((void *)(eth + 1) > end)
		return pass(RAVEN_PASS_NOT_IP);
	if (eth->proto == bpf_htons(ETH_P_IP)) {
		struct raven_ipv4 *ip = (void *)(eth + 1);

		if ((void *)(ip + 1) > end)
			return pass(RAVEN_PASS_MALFORMED);
		if (ip->version_ihl != 0x45)
			return pass(RAVEN_PASS_IP_OPTIONS);
		if (ip->frag_off & bpf_htons(0x3fff))
			return pass(RAVEN_PASS_FRAGMENT);
		if (ip->protocol != IPPROTO_UDP)
			return pass(RAVEN_PASS_UNDERLAY);
		raven_map4(&flow.saddr, ip->saddr);
		raven_map4(&flow.daddr, ip->daddr);
		return judge_udp(ctx, config, &flow, (void *)(ip + 1), end);
	}
	if (eth->proto == bpf_htons(ETH_P_IPV6)) {
		struct raven_ipv6 *ip = (void *)(eth + 1);

		if ((void *)(ip + 1) > end)
			return pass(RAVEN_PASS_MALFORMED);
		if (ip->next_header != IPPROTO_UDP)
			return pass(RAVEN_PASS_UNDERLAY);
		__builtin_memcpy(flow.saddr.bytes, ip->saddr, 16);
		__builtin_memcpy(flow.daddr.bytes, ip->daddr, 16);
		return judge_udp(ctx, config, &flow, (void *)(ip + 1), end);
	}
	return pass(RAVEN_PASS_NOT_IP);
}

SEC("xdp")
int raven_xdp_underlay(struct xdp_md *ctx)
{
	struct verdict verdict = decide(ctx);

	/* The packet is as it came. Taken before, the length would be kept on the stack half as a pointer, which no verifier admits. */
	RAVEN_COUNT(xdp_underlay, verdict.reason, (long)ctx->data_end - (long)ctx->data);
	return verdict.action;
}
