/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What a dry run tells of its packet. In the programs that run there is nothing of this. */
#ifndef PORTCULLIS_EXPLAIN_H
#define PORTCULLIS_EXPLAIN_H

#include <bpf/bpf_helpers.h>

#include "config.h"
#include "types.h"
#include "verdict.h"

#if DRY_RUN
struct explanation explained SEC(".data.explained");
#else
extern struct explanation explained;
#endif

#define EXPLAIN(field, value)                      \
	do {                                       \
		if (dry_run)                       \
			explained.field = (value); \
	} while (0)

/* Takes the place of counting. */
static __always_inline void explain_count(__u32 reason)
{
	if (reason >= SEEN_FLOWS_FULL && reason < REASON_COUNT)
		explained.seen = reason;
	else
		explained.reason = reason;
}

static __always_inline void explain_flow(__u32 place, const struct entry *entry)
{
	explained.entry = *entry;
	explained.place = place + 1;
}

#endif
