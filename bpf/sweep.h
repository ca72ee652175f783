/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What user space does to the flow table, inside the kernel: the places are the datapath's, and a sweep of a million
 * flows takes a fraction of the time. */
#ifndef PORTCULLIS_SWEEP_H
#define PORTCULLIS_SWEEP_H

#include <bpf/bpf_helpers.h>

#include "flow.h"
#include "maps.h"
#include "table.h"
#include "types.h"

struct bpf_map;

/* Each sweep marks the ports of the flows it leaves. A mark that is two sweeps old belongs to no flow (one sweep old
 * may be a flow that began behind the sweep's back), and user space clears it. */
static __always_inline void mark_used(const struct flow_key *key)
{
	enum port_class class = class_of(key->protocol);

	if (class != CLASS_NONE)
		used[port_slot(class, key->local_port)] = state.sweep;
}

/* A dead flow's place is first made BUSY, so that what is there stays what was looked at. A global function that
 * counts, as Linux 6.1 takes each number its caller counts to for another way to go, and gives up on them. */
__noinline int sweep_place(__u32 place, struct sweep *sweep)
{
	__u32 set = place / PLACES_PER_SET, number = place % PLACES_PER_SET;
	struct tags *tags = bpf_map_lookup_elem(&flow_tags, &set);
	struct entry *entry = bpf_map_lookup_elem(&flows, &place);
	__u64 *word, before, tag;

	if (!sweep || !tags || !entry)
		return 0;
	word = &tags->words[TAG_WORD(number / TAGS_PER_WORD)];
	before = *word;
	tag = before >> shift_of(number) & TAG_MASK;
	if (tag == FREE || tag == BUSY)
		return 0;
	if (!sweep->flush && sweep->now < entry->flow.expires) {
		mark_used(&entry->key);
		sweep->live++;
		return 0;
	}
	if (!exchange_tag(word, before, number, BUSY))
		return 0;
	if (!sweep->flush && sweep->now < entry->flow.expires) { /* it has just been looked up */
		end_busy(word, number, tag);
		sweep->live++;
		return 0;
	}
	if (sweep->flush)
		entry->flow.expires = 0;
	table_forget(place);
	end_busy(word, number, FREE);
	sweep->removed++;
	return 0;
}

static long sweep_set(struct bpf_map *map, const __u32 *set, struct tags *tags, struct sweep *sweep)
{
	for (__u32 number = 0; number < PLACES_PER_SET; number++) {
		__u64 word = tags->words[TAG_WORD(number / TAGS_PER_WORD)];

		if ((word >> shift_of(number) & TAG_MASK) != FREE)
			sweep_place(*set * PLACES_PER_SET + number, sweep);
	}
	return 0;
}

/* Takes dead flows out, or all of them. */
SEC("syscall")
int portcullis_sweep(struct sweep *args)
{
	struct sweep sweep = {.now = now(), .flush = args->flush};

	state.sweep = state.sweep == 255 ? 1 : state.sweep + 1;
	bpf_for_each_map_elem(&flow_tags, sweep_set, &sweep, 0);
	*args = sweep;
	return 0;
}

/* Enters a flow that user space knows of. */
SEC("syscall")
int portcullis_enter(struct seed *args)
{
	struct entry entry = args->entry;
	__u64 hash = hash_of(&entry.key), time = now();
	struct flow *have = flow_find(&entry.key, hash);

	args->entered = false;
	if (have && flow_alive(have, time) && !args->replace)
		return 0;
	if (have)
		*have = entry.flow;
	else if (!flow_begin(&entry.key, hash, &entry.flow, time))
		return 0;
	mark_used(&entry.key);
	if (entry.flow.state == FLOW_TCP_SYN_SENT)
		*syn_stamp(entry.key.local_port) = stamp_of(entry.flow.created);
	args->entered = true;
	return 0;
}

/* The datapath's clock, for expiry times and for finding out how fast jiffies go. */
SEC("syscall")
int portcullis_clock(__u64 *jiffies)
{
	*jiffies = now();
	return 0;
}

#endif
