/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What user space is shown of packets. Counters count every packet, the log and the journal have some of them. */
#ifndef PORTCULLIS_EVENT_H
#define PORTCULLIS_EVENT_H

#include <bpf/bpf_helpers.h>

#include "config.h"
#include "maps.h"
#include "types.h"
#include "verdict.h"

/* A flood must neither fill the ring nor wake its reader for every packet. Each CPU logs that many a second. */
#define EVENTS_A_SECOND 32

static __always_inline bool event_allowed(__u32 place, __u64 time)
{
	struct event_budget *budget = bpf_map_lookup_elem(&event_budgets, &place);

	if (!budget)
		return false;
	if (time >= budget->renewed + hz) {
		budget->renewed = time;
		budget->left = EVENTS_A_SECOND;
	}
	if (!budget->left)
		return false;
	budget->left--;
	return true;
}

/* Puts a frame into a ring under a reason, if the budget of that place allows it. `skb` tells which of the two contexts
 * ctx is. */
static __always_inline void log_frame(void *ring, __u32 place, void *ctx, bool skb, __u32 ifindex, __u32 length,
				      __u32 reason, __u64 time)
{
	struct event *event;
	__u32 captured;
	long error;

	if (dry_run) {
		asm volatile("" ::"r"(ctx)); /* or its callers are handed no context, which Linux does not take */
		return;
	}
	if (!length || !event_allowed(place, time))
		return;
	captured = BOUNDED((length < EVENT_FRAME ? length : EVENT_FRAME) - 1, EVENT_FRAME - 1) + 1;
	event = bpf_ringbuf_reserve(ring, sizeof(*event), 0);
	if (!event)
		return;
	event->time = bpf_ktime_get_boot_ns();
	event->ifindex = ifindex;
	event->reason = reason;
	event->length = length;
	event->captured = captured;
	event->ethernet = ethernet;
	if (skb)
		error = bpf_skb_load_bytes(ctx, 0, event->frame, captured);
	else
		error = bpf_xdp_load_bytes(ctx, 0, event->frame, captured);
	if (error)
		event->captured = 0;
	bpf_ringbuf_submit(event, 0);
}

#endif
