/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
#ifndef RAVEN_COUNT_H
#define RAVEN_COUNT_H

#include "maps.h"

/* Counts a packet of len bytes in this CPU's slot of raven_counters; program is one of the struct's fields. */
#define RAVEN_COUNT(program, why, len)                                                                  \
	do {                                                                                             \
		__u32 _why = (why);                                                                      \
		struct raven_program_counters *_counters = bpf_map_lookup_elem(&raven_counters, &_why);          \
		if (_counters) {                                                                         \
			_counters->program.packets++;                                                    \
			_counters->program.bytes += (len);                                               \
		}                                                                                        \
	} while (0)

static __always_inline const struct raven_node_config *raven_get_config(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&raven_config, &zero);
}

#endif
