/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* How long flows live. */
#ifndef PORTCULLIS_TIMEOUT_H
#define PORTCULLIS_TIMEOUT_H

#include "config.h"
#include "types.h"

static __always_inline __u32 timeout_of(__u8 flow_state)
{
	return timeouts[BOUNDED(flow_state, TIMEOUT_SLOTS - 1)];
}

/* That of a flow's state, or less while its peer may be gone. */
static __always_inline __u32 flow_timeout(const struct flow *flow)
{
	__u32 timeout = timeout_of(flow->state), less = timeout_of(FLOW_TCP_UNACKNOWLEDGED);

	return flow->marks & (UNACKED | RST_THEIRS) && less < timeout ? less : timeout;
}

static __always_inline void flow_enter(struct flow *flow, __u8 flow_state, __u64 time)
{
	flow->state = flow_state;
	flow->expires = time + flow_timeout(flow);
}

/* Puts the end off, but writes only when an eighth of the timeout has gone: the entry stays clean in the caches. */
static __always_inline void flow_refresh(struct flow *flow, __u64 time)
{
	__u32 timeout = flow_timeout(flow);

	if ((__s64)(time + timeout - flow->expires) > timeout >> 3)
		flow->expires = time + timeout;
}

static __always_inline bool flow_alive(const struct flow *flow, __u64 time)
{
	return time < flow->expires && flow->state != FLOW_KILLED;
}

/* The last time that the end was put off: when the flow was used, but for an eighth of its timeout. */
static __always_inline __u64 flow_used_at(const struct flow *flow)
{
	return flow->expires - flow_timeout(flow);
}

#endif
