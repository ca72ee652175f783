/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Whoever looks at packets as they come attaches programs of his own to the functions here (monitor.bpf.c). They are called
 * only while somebody looks. */
#ifndef PORTCULLIS_SHOW_H
#define PORTCULLIS_SHOW_H

#include <bpf/bpf_helpers.h>

#include "config.h"
#include "count.h"
#include "event.h"
#include "maps.h"
#include "types.h"
#include "verdict.h"

/* What is to be shown: set before anything is attached, cleared after. A bit too many costs a nanosecond. */
enum show {
	SHOW_DROPS = 1 << 0,
	SHOW_PASSES = 1 << 1,
};

static __always_inline bool is_shown(__u32 reason)
{
	return state.shows & (is_drop(reason) ? SHOW_DROPS : SHOW_PASSES);
}

__noinline int shown_xdp(struct xdp_md *ctx, __u32 reason)
{
	asm volatile("" ::"r"(ctx), "r"(reason)); /* or the compiler leaves the call out */
	return 0;
}

__noinline int shown_skb(struct __sk_buff *skb, __u32 reason)
{
	asm volatile("" ::"r"(skb), "r"(reason));
	return 0;
}

/* Whether the policy has packets of a reason in the journal. */
static __always_inline bool is_logged(__u32 reason)
{
	return logged_reasons && reason < RULE_ZERO && logged_reasons >> reason & 1;
}

/* Global functions, so that the verifier walks them once and not behind every path of the packet. */
__noinline int logged_xdp(struct xdp_md *ctx, __u32 reason)
{
	log_frame(&journal, 1 + reason, ctx, false, ctx->ingress_ifindex,
		  multi_buffer ? bpf_xdp_get_buff_len(ctx) : ctx->data_end - ctx->data, reason, now());
	return 0;
}

__noinline int logged_skb(struct __sk_buff *skb, __u32 reason)
{
	log_frame(&journal, 1 + reason, skb, true, skb->ifindex, skb->len, reason, now());
	return 0;
}

static __always_inline void tell_xdp(struct xdp_md *ctx, __u32 reason)
{
	if (is_logged(reason))
		logged_xdp(ctx, reason);
	if (is_shown(reason))
		shown_xdp(ctx, reason);
}

static __always_inline void tell_skb(struct __sk_buff *skb, __u32 reason)
{
	if (is_logged(reason))
		logged_skb(skb, reason);
	if (is_shown(reason))
		shown_skb(skb, reason);
}

/* The end of a packet's way. */
static __always_inline void end_xdp(struct xdp_md *ctx, __u32 reason)
{
	count(reason);
	tell_xdp(ctx, reason);
}

static __always_inline void end_skb(struct __sk_buff *skb, __u32 reason)
{
	count(reason);
	tell_skb(skb, reason);
}

#endif
