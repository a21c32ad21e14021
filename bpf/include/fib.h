/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
#ifndef RAVEN_FIB_H
#define RAVEN_FIB_H

#include "packet.h"

/* The longest prefix of Raven's that holds addr, or NULL. */
static __always_inline struct raven_fib_entry *raven_fib_lookup(__u8 family, const struct raven_addr *addr)
{
	if (family == AF_INET) {
		struct raven_fib4_key key = {.prefixlen = 32};

		__builtin_memcpy(key.addr, &addr->bytes[12], 4);
		return bpf_map_lookup_elem(&raven_fib4, &key);
	}
	struct raven_fib6_key key = {.prefixlen = 128};

	__builtin_memcpy(key.addr, addr->bytes, 16);
	return bpf_map_lookup_elem(&raven_fib6, &key);
}

static __always_inline struct raven_nexthop *raven_nexthop_of(const struct raven_fib_entry *entry)
{
	__u32 index = entry->nexthop;

	return bpf_map_lookup_elem(&raven_nexthops, &index);
}

/* True where the source's own prefix has the wanted scope. */
static __always_inline bool raven_source_in(const struct raven_packet *p, __u8 scope)
{
	struct raven_fib_entry *entry = raven_fib_lookup(p->family, &p->flow.saddr);

	return entry && entry->scope == scope;
}

/*
 * True where packets from source may come in by this device: the source's own prefix has the wanted scope and its next
 * hop leaves by the very device that the packet came in by (strict reverse path over Raven's FIB).
 */
static __always_inline bool raven_source_ok(struct __sk_buff *skb, const struct raven_packet *p, __u8 scope)
{
	struct raven_fib_entry *entry = raven_fib_lookup(p->family, &p->flow.saddr);
	struct raven_nexthop *nexthop;

	if (!entry || entry->scope != scope)
		return false;
	nexthop = raven_nexthop_of(entry);
	return nexthop && nexthop->ifindex == skb->ifindex;
}

/* Link-local and multicast traffic is the link's own business (neighbour discovery, MLD): never Raven's. */
static __always_inline bool raven_link_scope(const struct raven_packet *p)
{
	const __u8 *s = p->flow.saddr.bytes, *d = p->flow.daddr.bytes;

	if (p->family == AF_INET)
		return (d[12] & 0xf0) == 0xe0 || (s[12] == 169 && s[13] == 254);
	return d[0] == 0xff || (s[0] == 0xfe && (s[1] & 0xc0) == 0x80);
}

#endif
