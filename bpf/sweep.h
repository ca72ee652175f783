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

/* Buries a flow that is dead, or any when the table is flushed. A global function that counts, as Linux 6.1 takes each
 * number its caller counts to for another way to go, and gives up on them. A live flow's key may be written anew while
 * its port is marked: at worst a port is marked that no flow uses, until the sweep after the next one. */
__noinline int sweep_place(__u32 place, struct sweep *sweep)
{
	struct entry *entry = bpf_map_lookup_elem(&flows, &place);

	if (!sweep || !entry)
		return 0;
	if (room_bury(place, sweep->flush ? ~0ULL : sweep->now)) {
		sweep->removed++;
	} else if (sweep->now < entry->flow.expires) {
		mark_used(&entry->key);
		sweep->live++;
	}
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

	if (dry_run)
		return 0;

	/* One sweep at a time: user space holds its lock. A CPU that has read the number before marks a port with one
	 * that is a sweep old, which stays for one sweep more, and this sweep marks the ports of the flows that it sees. */
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
	int place = table_find(&entry.key, hash, NO_PLACE);
	struct flow *have = flow_at(place);

	args->entered = false;
	if (dry_run || (have && flow_alive(have, time) && !args->replace))
		return 0;
	if (!(have && flow_restart(place, &entry.key, hash, &entry.flow)) &&
	    !flow_begin(&entry.key, hash, &entry.flow, time))
		return 0;
	mark_used(&entry.key);
	if (entry.flow.state == FLOW_TCP_SYN_SENT)
		*syn_stamp(entry.key.local_port) = entry.flow.created >> (STAMP_SHIFT - CREATED_SHIFT);
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
