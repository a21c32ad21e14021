/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
#ifndef RAVEN_ABI_H
#define RAVEN_ABI_H

/*
 * The ABI of everything pinned below /sys/fs/bpf/raven/v<RAVEN_ABI>/: map names, keys, values and the meaning of each
 * number in them. Any change to maps.h, or to the order of the enums in reasons.h, raises it. The daemon and the CNI
 * plugin refuse a tree whose number they do not know.
 */
#define RAVEN_ABI 4

#endif
