/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
#ifndef RAVEN_DROPPED_H
#define RAVEN_DROPPED_H

#include "maps.h"

/* Keeps the addresses of a packet that is dropped, for whoever asks which packets these were. */
static __always_inline void raven_remember(int reason, const struct raven_flow_key *flow, __u32 ifindex)
{
	__u32 why = reason;
	struct raven_dropped_ring *ring = bpf_map_lookup_elem(&raven_dropped, &why);
	struct raven_dropped *slot;

	if (!ring)
		return;
	slot = &ring->last[ring->count & (RAVEN_DROPPED_KEPT - 1)];
	ring->count++;
	slot->at_ns = bpf_ktime_get_ns();
	slot->flow = *flow;
	slot->ifindex = ifindex;
}

#endif
