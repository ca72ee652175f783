/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Room for new flows: which flow gives way when the table is full. Dead ones go first, then connections that are over or
 * may never have been, then what netfilter would drop early, too: flows that are not assured, those first that have been
 * idle for longest. Assured ones never give way. */
#ifndef PORTCULLIS_ROOM_H
#define PORTCULLIS_ROOM_H

#include <bpf/bpf_helpers.h>

#include "config.h"
#include "count.h"
#include "maps.h"
#include "table.h"
#include "timeout.h"
#include "types.h"

/* What a flow is worth: its class, then when it was last used. A rank is that and a place of the set. */
#define CLASS_SHIFT 56
#define NEVER ((~0ULL >> 6) - 1)
static __always_inline __u64 worth(const struct flow *flow, __u64 time)
{
	/* One that was picked up and not answered is no more than somebody's word. */
	bool over = flow->state == FLOW_TCP_TIME_WAIT || flow->state == FLOW_TCP_CLOSE ||
		    (flow->state == FLOW_TCP_LOOSE && !(flow->marks & ANSWERED));

	if (time >= flow->expires)
		return 0;
	if (over)
		return (1ULL << CLASS_SHIFT) + flow_used_at(flow);
	if (flow->state == FLOW_KILLED || (flow->marks & ASSURED && flow->state != FLOW_TCP_LAST_ACK))
		return NEVER;
	return (2ULL << CLASS_SHIFT) + flow_used_at(flow);
}

#define RANK_SHIFT 6
#define RANK(worth, number) ((worth) << RANK_SHIFT | (number))
#define PLACE_MASK ((1 << RANK_SHIFT) - 1)
_Static_assert(PLACES_PER_SET <= 1 << RANK_SHIFT, "a rank holds a place of a set");

/* Frees a place when its flow is dead. */
static __always_inline bool room_bury(__u32 place, __u64 time)
{
	struct entry *entry = bpf_map_lookup_elem(&flows, &place);
	__u64 *word = word_of(place), tag;

	if (!entry || !word || time < entry->flow.expires)
		return false;
	tag = tag_in(*(volatile __u64 *)word, place % PLACES_PER_SET);
	if (tag == BUSY || tag == FREE || !exchange_tag(word, place % PLACES_PER_SET, tag, BUSY))
		return false;
	if (time < entry->flow.expires) { /* it has just begun anew */
		end_busy(word, place % PLACES_PER_SET, tag);
		return false;
	}
	table_free(place, word);
	return true;
}

/* For a place whose flow is not dead: the lower of its rank and another one. One that is dead is buried. A global
 * function: Linux 6.1 takes each number that its caller counts to for another way to go. */
__noinline __u64 room_rank(__u32 place, __u64 lowest_rank, __u64 time)
{
	struct entry *entry = bpf_map_lookup_elem(&flows, &place);
	__u64 rank;

	if (!entry || room_bury(place, time))
		return lowest_rank;
	rank = RANK(worth(&entry->flow, time), place % PLACES_PER_SET);
	return rank < lowest_rank ? rank : lowest_rank;
}

/* The rank of the flow of a set that is worth least. */
#define NONE RANK(NEVER, 0)
__noinline __u64 room_least(__u32 set, __u64 time)
{
	struct tags *tags = bpf_map_lookup_elem(&flow_tags, &set);
	__u64 rank = NONE;

	if (!tags)
		return NONE;
	for (__u32 i = 0; i < PLACES_PER_SET; i++) {
		__u64 tag = tag_in(tags->words[TAG_WORD(i / TAGS_PER_WORD)], i);

		if (tag != BUSY && tag != FREE)
			rank = room_rank(set * PLACES_PER_SET + i, rank, time);
	}
	return rank;
}

/* Makes a place busy whose flow gives way, and forgets that. False when it does not, or is another one by now. */
static __always_inline bool room_evict(__u32 place, __u64 time)
{
	struct entry *entry = bpf_map_lookup_elem(&flows, &place);
	__u64 *word = word_of(place), tag;

	if (!entry || !word)
		return false;
	tag = tag_in(*(volatile __u64 *)word, place % PLACES_PER_SET);
	if (tag == BUSY || tag == FREE || !exchange_tag(word, place % PLACES_PER_SET, tag, BUSY))
		return false;
	/* It may have been answered, or begun anew, since it was looked at. */
	if (worth(&entry->flow, time) == NEVER) {
		end_busy(word, place % PLACES_PER_SET, tag);
		return false;
	}
	if (time < entry->flow.expires)
		count_seen(SEEN_FLOWS_EVICTED);
	table_forget(place);
	return true;
}

static __always_inline bool is_full(void)
{
	return *(volatile __s64 *)&account.flows >= account.max_flows;
}

/* Takes a free place of a set. */
static __always_inline int room_free(__u32 set, __u64 hash)
{
	struct tags *tags = bpf_map_lookup_elem(&flow_tags, &set);
	int number = tags ? take_free_place(tags, hash) : NO_PLACE;

	if (number == NO_PLACE)
		return NO_PLACE;
	__sync_fetch_and_add(&account.flows, 1);
	return set * PLACES_PER_SET + number;
}

/* Lets a flow give way to a new one of `set`: one of that set, or of another that comes in turn, whichever is worth
 * less, so that it does not matter how flows are spread. A place of the set, which is busy then, or NO_PLACE: nobody gave
 * way, or there is room elsewhere. */
static __always_inline int room_make(__u32 set, __u64 time)
{
	__u64 own = room_least(set, time), other = NONE, *word;
	__u32 other_set = 0, place;

	if (is_full()) {
		other_set = __sync_fetch_and_add(&account.next_set, 1) % flow_sets;
		other = room_least(other_set, time);
	}
	place = set * PLACES_PER_SET + (own & PLACE_MASK);
	if (own != NONE && own >> RANK_SHIFT <= other >> RANK_SHIFT)
		return room_evict(place, time) ? (int)place : NO_PLACE;
	place = other_set * PLACES_PER_SET + (other & PLACE_MASK);
	word = word_of(place);
	if (other != NONE && word && room_evict(place, time)) {
		end_busy(word, place % PLACES_PER_SET, FREE);
		__sync_fetch_and_add(&account.flows, -1);
	}
	return NO_PLACE;
}

#define ROOM_ATTEMPTS 8 /* sets besides its own that a new flow asks for one that gives way */

/* A place for a new flow, busy until table_give, or NO_PLACE. CPUs that see the last free one at the same time may put
 * in one flow each too many. */
__noinline int room_take(__u64 hash, __u64 time)
{
	__u32 set = set_of(hash);

	for (int i = 0; i < ROOM_ATTEMPTS; i++) {
		int place = is_full() ? NO_PLACE : room_free(set, hash);

		if (place == NO_PLACE)
			place = room_make(set, time);
		if (place != NO_PLACE)
			return place;
	}
	return is_full() ? NO_PLACE : room_free(set, hash);
}

#endif
