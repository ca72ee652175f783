/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The counters. */
#ifndef PORTCULLIS_COUNT_H
#define PORTCULLIS_COUNT_H

#include <bpf/bpf_helpers.h>

#include "explain.h"
#include "maps.h"
#include "types.h"

/* Each CPU has its own number. Programs run with bottom halves off, so none is interrupted by another between the read
 * and the write; on a PREEMPT_RT kernel one may be, and then a packet is not counted. */
static __always_inline void count(__u32 reason)
{
	__u64 *counter;

	if (dry_run)
		return explain_count(reason);
	counter = bpf_map_lookup_elem(&counters, &reason);
	if (counter)
		*counter += 1;
}

#endif
