/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The flow table: where a flow's place is. A hash set of our own, since a packet of a flow costs as many cache misses
 * as there are lines that lead to it: the kernel's hash map takes a bucket, a chain and two lines an entry, this one a
 * line of tags, which stays in the cache, and the entry. A packet of a flood ends at the tags.
 *
 * Places stand in sets, each place with a tag of some bits of its flow's hash. Tag FREE is nobody's. Whoever makes a
 * tag BUSY, by compare-and-exchange, has the place for himself, until he gives it the tag of the flow that is there. */
#ifndef PORTCULLIS_TABLE_H
#define PORTCULLIS_TABLE_H

#include <bpf/bpf_helpers.h>

#include "config.h"
#include "maps.h"
#include "types.h"

#define NO_PLACE -1
#define barrier() asm volatile("" ::: "memory")

#define TAG_MASK ((1ULL << TAG_BITS) - 1)
#define FREE 0ULL
#define BUSY TAG_MASK
/* A value in each tag of a word. */
#define EACH_TAG(value) ((value) * 0x0004010040100401ULL)

#define MIX 0x9e3779b97f4a7c15ULL /* 2^64 by the golden ratio */

/* Without the seed nobody can choose connections that crowd one set. */
static __always_inline __u64 hash_of(const struct flow_key *key)
{
	__u64 hash = state.seed ^ ((__u64)key->local[0] << 32 | key->remote[0]);

	if (key->family == 6) {
		hash = hash * MIX ^ ((__u64)key->local[1] << 32 | key->remote[1]);
		hash = (hash ^ hash >> 32) * MIX ^ ((__u64)key->local[2] << 32 | key->remote[2]);
		hash = (hash ^ hash >> 32) * MIX ^ ((__u64)key->local[3] << 32 | key->remote[3]);
	}
	hash = (hash ^ hash >> 32) * MIX;
	hash ^= (__u64)key->protocol << 32 | (__u32)key->local_port << 16 | key->remote_port;
	hash = (hash ^ hash >> 29) * MIX;
	return hash ^ hash >> 32;
}

static __always_inline __u32 set_of(__u64 hash)
{
	return (hash & 0xffffffff) * flow_sets >> 32;
}

static __always_inline __u64 tag_of(__u64 hash)
{
	__u64 tag = hash >> (64 - TAG_BITS);

	return tag == FREE ? FREE + 1 : tag == BUSY ? BUSY - 1 : tag;
}

/* The high bit of each tag that is 0. */
static __always_inline __u64 zero_tags(__u64 word)
{
	const __u64 low = EACH_TAG(TAG_MASK >> 1), high = EACH_TAG((TAG_MASK >> 1) + 1);

	return ~(((word & low) + low) | word) & high;
}

/* The number of the lowest tag whose high bit is set: the product moves it from its place to the top. */
static __always_inline __u32 lowest(__u64 high_bits)
{
	const __u64 numbers = 1ULL << 50 | 2ULL << 40 | 3ULL << 30 | 4ULL << 20 | 5ULL << 10;

	return ((high_bits & -high_bits) >> (TAG_BITS - 1)) * numbers >> 60;
}

static __always_inline bool same_key(const struct flow_key *a, const struct flow_key *b)
{
	const __u64 *x = (const __u64 *)a, *y = (const __u64 *)b;

	return x[4] == y[4] && x[0] == y[0] && x[2] == y[2] && x[1] == y[1] && x[3] == y[3];
}

/* A word of a set's tags, as one that the verifier knows to be within. */
#define TAG_WORD(number) BOUNDED(number, TAG_WORDS - 1)

/* The place of a flow, alive or not, or NO_PLACE. Global functions are verified once, and not behind each path that
 * leads to them. Linux 6.1 has 32 bytes of stack left for this one, so the set stays where it is. */
__noinline int table_find(const struct flow_key *key, __u64 hash)
{
	volatile __u32 set = set_of(hash);
	struct tags *tags = bpf_map_lookup_elem(&flow_tags, (void *)&set);
	__u64 found = 0;
	__u32 place;

	if (!tags || !key)
		return NO_PLACE;
	/* The words, by the step's upper bits, and the places whose tag is the same, by the lower three: one counter,
	 * as there is no stack for two. */
	for (__u32 step = 0; step < TAG_WORDS << 3; step++) {
		__u64 number = TAG_WORD(hash + (step >> 3)), word = tags->words[number];
		struct entry *entry;

		if (!(step & 7))
			found = zero_tags(word ^ EACH_TAG(tag_of(hash)));
		asm volatile("" : "+r"(hash)); /* what comes of it is not kept on the stack */
		if (!found) {
			/* Here a flood ends. */
			if (!step && !(word >> STRAYS_SHIFT))
				return NO_PLACE;
			step |= 7;
			continue;
		}
		place = set * PLACES_PER_SET + number * TAGS_PER_WORD + lowest(found);
		entry = bpf_map_lookup_elem(&flows, &place);
		if (entry && same_key(&entry->key, key))
			return place;
		found &= found - 1;
	}
	place = NO_PLACE;
	barrier();
	return place;
}

/* A flow that nothing but its end takes out of the table: it was answered, and not by a refusal. */
static __always_inline bool is_answered(const struct flow *flow)
{
	return flow->answered && flow->state != FLOW_TCP_SYN_SENT;
}

static __always_inline __u32 shift_of(__u32 number)
{
	return number % TAGS_PER_WORD * TAG_BITS;
}

/* Puts one tag in the place of another; false when it has changed meanwhile. */
static __always_inline bool exchange_tag(__u64 *word, __u64 before, __u32 number, __u64 tag)
{
	__u64 shift = shift_of(number), after = (before & ~(TAG_MASK << shift)) | tag << shift;

	return __sync_val_compare_and_swap(word, before, after) == before;
}

/* More strays than this are not counted: the word then has some for ever. */
#define MANY_STRAYS (~0ULL >> STRAYS_SHIFT)
/* So often nobody else changes a word in between. */
#define ATTEMPTS 16

/* Counts a stray of a word, before it can be looked for, or one less, after that. */
static __always_inline bool count_stray(__u64 *word, bool more)
{
	const __u64 one = 1ULL << STRAYS_SHIFT;

	for (int i = 0; i < ATTEMPTS; i++) {
		__u64 before = *word;

		if (before >> STRAYS_SHIFT == MANY_STRAYS ||
		    __sync_val_compare_and_swap(word, before, more ? before + one : before - one) == before)
			return true;
	}
	return false;
}

/* For a busy place: the flow that was there can no longer be found, and is no stray of its word. */
__noinline int table_forget(__u32 place)
{
	struct entry *entry = bpf_map_lookup_elem(&flows, &place);
	__u32 set = place / PLACES_PER_SET;
	struct tags *tags = bpf_map_lookup_elem(&flow_tags, &set);
	__u64 home;

	if (!entry || !tags)
		return 0;
	home = TAG_WORD(hash_of(&entry->key));
	if (home != place % PLACES_PER_SET / TAGS_PER_WORD)
		count_stray(&tags->words[home], false);
	return 0;
}

/* Puts a tag, or FREE, in the place of BUSY: whoever made it that is alone there. */
static __always_inline void end_busy(__u64 *word, __u32 number, __u64 tag)
{
	__u64 before = __sync_fetch_and_and(word, ~((BUSY ^ tag) << shift_of(number)));

	asm volatile("" ::"r"(before)); /* what is fetched is ordered: what was written there is seen before the tag */
}

static __always_inline int take_free_place(struct tags *tags, __u64 hash)
{
	for (int i = 0; i < TAG_WORDS; i++) {
		__u64 number = TAG_WORD(hash + i), word = tags->words[number], free = zero_tags(word);

		if (free && exchange_tag(&tags->words[number], word, lowest(free), BUSY))
			return number * TAGS_PER_WORD + lowest(free);
	}
	return NO_PLACE;
}

/* How much a flow is worth keeping: nothing when it is dead, ALL when it was answered. */
#define ALL (~0ULL / PLACES_PER_SET - 1)
static __always_inline __u64 worth(const struct flow *flow, __u64 time)
{
	if (time >= flow->expires)
		return 0;
	return is_answered(flow) ? ALL : flow->expires;
}

/* The less worthy of a place and one that was found before: what it is worth, then its number in the set. */
__noinline __u64 table_spare(__u32 place, __u64 found, __u64 time)
{
	struct entry *entry = bpf_map_lookup_elem(&flows, &place);
	__u64 this;

	if (!entry)
		return found;
	this = worth(&entry->flow, time) * PLACES_PER_SET + place % PLACES_PER_SET;
	return this < found ? this : found;
}

/* The place of a dead flow, or of the unanswered one that has least to live: netfilter drops those early, too. */
static __always_inline int take_used_place(struct tags *tags, __u64 hash, __u64 time)
{
	__u32 first = set_of(hash) * PLACES_PER_SET, number, place;
	__u64 found = ALL * PLACES_PER_SET, *word, before;
	struct entry *entry;

	for (__u32 i = 0; i < PLACES_PER_SET; i++) {
		if ((tags->words[TAG_WORD(i / TAGS_PER_WORD)] >> shift_of(i) & TAG_MASK) != BUSY)
			found = table_spare(first + i, found, time);
	}
	if (found >= ALL * PLACES_PER_SET)
		return NO_PLACE;
	number = found % PLACES_PER_SET;
	word = &tags->words[TAG_WORD(number / TAGS_PER_WORD)];
	before = *word;
	place = first + number;
	entry = bpf_map_lookup_elem(&flows, &place);
	if ((before >> shift_of(number) & TAG_MASK) == BUSY || !entry || worth(&entry->flow, time) == ALL ||
	    !exchange_tag(word, before, number, BUSY))
		return NO_PLACE;
	table_forget(place);
	return number;
}

/* A place for a new flow, busy until table_give, or NO_PLACE when all of the set are taken. */
__noinline int table_take(__u64 hash, __u64 time)
{
	__u32 set = set_of(hash);
	struct tags *tags = bpf_map_lookup_elem(&flow_tags, &set);
	int place;

	if (!tags)
		return NO_PLACE;
	place = take_free_place(tags, hash);
	if (place == NO_PLACE)
		place = take_used_place(tags, hash, time);
	return place == NO_PLACE ? NO_PLACE : (int)(set * PLACES_PER_SET + place);
}

/* Gives a busy place to the flow that has been written there. False, and the place is free, when too many others are
 * at work. */
static __always_inline bool table_give(__u32 place, __u64 hash)
{
	__u32 set = place / PLACES_PER_SET, number = place % PLACES_PER_SET;
	struct tags *tags = bpf_map_lookup_elem(&flow_tags, &set);
	__u64 word = TAG_WORD(number / TAGS_PER_WORD), home = TAG_WORD(hash);
	bool given;

	if (!tags)
		return false;
	given = word == home || count_stray(&tags->words[home], true);
	end_busy(&tags->words[word], number, given ? tag_of(hash) : FREE);
	return given;
}

#endif
