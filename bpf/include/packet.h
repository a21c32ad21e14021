/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
#ifndef RAVEN_PACKET_H
#define RAVEN_PACKET_H

#include "kernel.h"
#include "maps.h"

/*
 * What one look at the headers found. Nothing in it points into the packet, so it survives helpers that move data.
 *
 * Where the IP header begins (l3: ETH_HLEN, or 0 without Ethernet) is not in here: it is handed on as a constant, which
 * the verifier can follow on every kernel, as it could not through memory.
 */
struct raven_packet {
	struct raven_flow_key flow; /* addresses, protocol, and the ports of TCP and UDP */
	__u32 wire_len;             /* bytes of the largest IP packet this becomes on a wire (GSO is cut up first) */
	__u8 family;                /* AF_INET or AF_INET6 */
	__u8 ttl;                   /* or hop limit */
	__u8 tcp_flags;             /* 0 for other protocols */
	__u8 pad;
};

static __always_inline void raven_map4(struct raven_addr *to, const __u8 from[4])
{
	__u32 *words = (__u32 *)to->bytes;

	words[0] = 0;
	words[1] = 0;
	words[2] = bpf_htonl(0xffff);
	__builtin_memcpy(&words[3], from, 4);
}

/* The sum over a header without options is 0xffff when its checksum is right. */
static __always_inline bool raven_ipv4_checksum_ok(const struct raven_ipv4 *ip)
{
	const __u16 *half = (const __u16 *)ip;
	__u32 sum = 0;

#pragma unroll
	for (int i = 0; i < 10; i++)
		sum += half[i];
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return sum == 0xffff;
}

/* Bytes of the IP packet that reaches a wire: a GSO packet leaves in segments of gso_size behind its headers. */
static __always_inline __u32 raven_wire_len(struct __sk_buff *skb, __u32 ip_len, __u32 header_len)
{
	return skb->gso_size ? skb->gso_size + header_len : ip_len;
}

/* Makes [0, len) readable by direct access; returns false when the packet is shorter. */
static __always_inline bool raven_pull(struct __sk_buff *skb, __u32 len)
{
	if ((void *)(long)skb->data + len <= (void *)(long)skb->data_end)
		return true;
	return skb->len >= len && bpf_skb_pull_data(skb, len) == 0;
}

/*
 * Reads transport ports and flags at offset l4. ip_header is the length of the IP header, ip_len that of the whole IP
 * packet. ICMP has neither ports nor anything else to read. Returns 0 or the reason to pass.
 */
static __always_inline int raven_parse_l4(struct __sk_buff *skb, struct raven_packet *p, __u32 l4, __u32 ip_header,
					  __u32 ip_len)
{
	void *data, *end;

	p->flow.sport = 0;
	p->flow.dport = 0;
	p->tcp_flags = 0;
	switch (p->flow.protocol) {
	case IPPROTO_TCP: {
		if (ip_len < ip_header + sizeof(struct raven_tcp) || !raven_pull(skb, l4 + sizeof(struct raven_tcp)))
			return RAVEN_PASS_MALFORMED;
		data = (void *)(long)skb->data;
		end = (void *)(long)skb->data_end;
		struct raven_tcp *tcp = data + l4;
		if ((void *)(tcp + 1) > end)
			return RAVEN_PASS_MALFORMED;
		p->flow.sport = tcp->sport;
		p->flow.dport = tcp->dport;
		p->tcp_flags = tcp->flags;
		p->wire_len = raven_wire_len(skb, ip_len, ip_header + (tcp->offset >> 4) * 4);
		return 0;
	}
	case IPPROTO_UDP: {
		if (ip_len < ip_header + sizeof(struct raven_udp) || !raven_pull(skb, l4 + sizeof(struct raven_udp)))
			return RAVEN_PASS_MALFORMED;
		data = (void *)(long)skb->data;
		end = (void *)(long)skb->data_end;
		struct raven_udp *udp = data + l4;
		if ((void *)(udp + 1) > end)
			return RAVEN_PASS_MALFORMED;
		p->flow.sport = udp->sport;
		p->flow.dport = udp->dport;
		p->wire_len = raven_wire_len(skb, ip_len, ip_header + sizeof(struct raven_udp));
		return 0;
	}
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6:
		p->wire_len = ip_len;
		return 0;
	default:
		return RAVEN_PASS_PROTOCOL;
	}
}

static __always_inline int raven_parse4(struct __sk_buff *skb, struct raven_packet *p, const __u32 l3)
{
	if (!raven_pull(skb, l3 + sizeof(struct raven_ipv4)))
		return RAVEN_PASS_MALFORMED;
	struct raven_ipv4 *ip = (void *)(long)skb->data + l3;
	if ((void *)(ip + 1) > (void *)(long)skb->data_end || ip->version_ihl >> 4 != 4)
		return RAVEN_PASS_MALFORMED;
	if (ip->version_ihl != 0x45)
		return RAVEN_PASS_IP_OPTIONS;
	if (!raven_ipv4_checksum_ok(ip))
		return RAVEN_PASS_MALFORMED;
	/* More fragments, or an offset. Don't-fragment is the bit above. */
	if (ip->frag_off & bpf_htons(0x3fff))
		return RAVEN_PASS_FRAGMENT;
	__u32 ip_len = bpf_ntohs(ip->total_len);
	if (ip_len < sizeof(*ip) || ip_len > skb->len - l3)
		return RAVEN_PASS_MALFORMED;
	p->family = AF_INET;
	p->ttl = ip->ttl;
	p->flow.protocol = ip->protocol;
	raven_map4(&p->flow.saddr, ip->saddr);
	raven_map4(&p->flow.daddr, ip->daddr);
	return raven_parse_l4(skb, p, l3 + sizeof(struct raven_ipv4), sizeof(struct raven_ipv4), ip_len);
}

static __always_inline int raven_parse6(struct __sk_buff *skb, struct raven_packet *p, const __u32 l3)
{
	if (!raven_pull(skb, l3 + sizeof(struct raven_ipv6)))
		return RAVEN_PASS_MALFORMED;
	struct raven_ipv6 *ip = (void *)(long)skb->data + l3;
	if ((void *)(ip + 1) > (void *)(long)skb->data_end || ip->version_class >> 4 != 6)
		return RAVEN_PASS_MALFORMED;
	switch (ip->next_header) {
	case IPPROTO_FRAGMENT:
		return RAVEN_PASS_FRAGMENT;
	case IPPROTO_HOPOPTS:
	case IPPROTO_ROUTING:
	case IPPROTO_ESP:
	case IPPROTO_AH:
	case IPPROTO_DSTOPTS:
	case IPPROTO_MH:
		return RAVEN_PASS_IP_OPTIONS;
	}
	__u32 ip_len = bpf_ntohs(ip->payload_len) + sizeof(*ip);
	if (ip_len > skb->len - l3)
		return RAVEN_PASS_MALFORMED;
	p->family = AF_INET6;
	p->ttl = ip->hop_limit;
	p->flow.protocol = ip->next_header;
	__builtin_memcpy(p->flow.saddr.bytes, ip->saddr, 16);
	__builtin_memcpy(p->flow.daddr.bytes, ip->daddr, 16);
	return raven_parse_l4(skb, p, l3 + sizeof(struct raven_ipv6), sizeof(struct raven_ipv6), ip_len);
}

/*
 * Reads the headers of an IP packet that begins l3 bytes into skb. Returns 0 when the programs understand it,
 * else the reason to pass it to the stack; *p is then not to be used.
 */
static __always_inline int raven_parse(struct __sk_buff *skb, struct raven_packet *p, const __u32 l3)
{
	p->flow.pad[0] = 0;
	p->flow.pad[1] = 0;
	p->flow.pad[2] = 0;
	switch (skb->protocol) {
	case bpf_htons(ETH_P_IP):
		return raven_parse4(skb, p, l3);
	case bpf_htons(ETH_P_IPV6):
		return raven_parse6(skb, p, l3);
	default:
		return RAVEN_PASS_NOT_IP;
	}
}

#endif
