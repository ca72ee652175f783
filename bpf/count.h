/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The ledger: each packet that comes in is counted once, on the page of its device, under the reason that decided it. */
#ifndef PORTCULLIS_COUNT_H
#define PORTCULLIS_COUNT_H

#include <bpf/bpf_helpers.h>

#include "config.h"
#include "explain.h"
#include "maps.h"
#include "types.h"
#include "verdict.h"

/* Each CPU has its own numbers. Programs run with bottom halves off, so none is interrupted by another between the read
 * and the write; on a PREEMPT_RT kernel one may be, and then a packet is not counted. */
static __always_inline void add(struct tally *tally, __u64 packets, __u64 bytes)
{
	if (!tally)
		return;
	tally->packets += packets;
	tally->bytes += bytes;
}

static __always_inline struct tally *tally_at(__u32 page, __u32 reason)
{
	struct ledger_page *found = bpf_map_lookup_elem(&ledger, &page);

	return found ? &found->tallies[BOUNDED(reason, RULE_ZERO - 1)] : NULL;
}

static __always_inline __u32 page_of(__u32 ifindex)
{
	__u32 *page;

	if (ledger_page)
		return ledger_page;
	page = bpf_map_lookup_elem(&ledger_pages, &ifindex);
	return page ? *page : 0;
}

/* What is no packet's verdict. */
static __always_inline void count_seen(__u32 reason)
{
	if (dry_run)
		return explain_count(reason);
	add(tally_at(ledger_page, reason), 1, 0);
}

static __always_inline void count_rule(__u32 reason, __u32 length)
{
	__u32 rule = reason - RULE_ZERO;

	if (dry_run)
		return explain_count(reason);
	add(bpf_map_lookup_elem(&rule_tallies, &rule), 1, length);
}

/* A packet of a device, under the reason that decided it. */
static __always_inline void count(__u32 ifindex, __u32 reason, __u32 length)
{
	if (dry_run)
		return explain_count(reason);
	if (reason >= RULE_ZERO) {
		count_rule(reason, length);
		reason = PASS_RULE;
	}
	add(tally_at(page_of(ifindex), reason), 1, length);
}

/* While a device goes over from XDP to TC or back, both filter it. So that a packet is counted once, XDP then marks what it
 * passes, in the room for metadata before the frame. A driver that has no such room lets a few be counted twice. */
#define COUNTED (0x706f7274ULL << 32)

static __always_inline void hand_over(struct xdp_md *ctx)
{
	__u64 *mark;

	if (dry_run || !state.handover || bpf_xdp_adjust_meta(ctx, -(int)sizeof(*mark)))
		return;
	mark = (void *)(long)ctx->data_meta;
	if ((void *)(mark + 1) <= (void *)(long)ctx->data)
		*mark = COUNTED | ctx->ingress_ifindex;
}

static __always_inline bool is_counted(const struct __sk_buff *skb)
{
	__u64 *mark = (void *)(long)skb->data_meta;

	return (void *)(mark + 1) <= (void *)(long)skb->data && *mark == (COUNTED | skb->ifindex);
}

/* A packet that TC lets in or not, and how many frames have been merged into it. */
static __always_inline void count_skb(const struct __sk_buff *skb, __u32 reason, __u32 length)
{
	if (is_counted(skb))
		return;
	count(skb->ifindex, reason, length);
	if (!dry_run && skb->gso_segs > 1)
		add(tally_at(page_of(skb->ifindex), SEEN_MERGED), skb->gso_segs - 1, 0);
}

#endif
