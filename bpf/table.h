/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The flow table: where a flow's place is. A hash set of our own, since a packet of a flow costs as many cache misses
 * as there are lines that lead to it: the kernel's hash map takes a bucket, a chain and two lines an entry, this one a
 * line of tags, which stays in the cache, and the entry. A packet of a flood ends at the tags.
 *
 * Places stand in sets, each place with a tag of some bits of its flow's hash. Tag FREE is nobody's. Whoever makes a
 * tag BUSY, by compare-and-exchange from what he has seen there, has the place for himself until he gives it a tag: he
 * alone writes the key, and takes a flow out or puts one in. What packets change in the flow of a place that they have
 * found (flow.h) is not locked. */
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

/* Without the seed nobody can choose connections that crowd one set. Ports that follow one another, to one peer, have
 * to spread like random ones: that takes the last multiplication (a test fills tables with them). */
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
	hash = (hash ^ hash >> 32) * MIX;
	return hash ^ hash >> 29;
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

static __always_inline __u32 shift_of(__u32 number)
{
	return number % TAGS_PER_WORD * TAG_BITS;
}

/* The place of a flow, alive or not, or NO_PLACE; `besides` is passed over. Global functions are verified once, and not
 * behind each path that leads to them. Linux 6.1 has 32 bytes of stack left for this one, so the set stays where it
 * is. */
__noinline int table_find(const struct flow_key *key, __u64 hash, int besides)
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
		if (entry && same_key(&entry->key, key) && (int)place != besides)
			return place;
		found &= found - 1;
	}
	place = NO_PLACE;
	barrier();
	return place;
}

/* So often nobody else changes a word in between. */
#define ATTEMPTS 16

/* Puts a tag in the place of the one that was seen there; false when that has changed. Other tags of the word may
 * change meanwhile. */
static __always_inline bool exchange_tag(__u64 *word, __u32 number, __u64 from, __u64 to)
{
	__u64 shift = shift_of(number);

	for (int i = 0; i < ATTEMPTS; i++) {
		__u64 before = *(volatile __u64 *)word, after = (before & ~(TAG_MASK << shift)) | to << shift;

		if ((before >> shift & TAG_MASK) != from)
			return false;
		if (__sync_val_compare_and_swap(word, before, after) == before)
			return true;
	}
	return false;
}

/* The tag of a place, and the word that it stands in. */
static __always_inline __u64 *word_of(__u32 place)
{
	__u32 set = place / PLACES_PER_SET;
	struct tags *tags = bpf_map_lookup_elem(&flow_tags, &set);

	return tags ? &tags->words[TAG_WORD(place % PLACES_PER_SET / TAGS_PER_WORD)] : NULL;
}

static __always_inline __u64 tag_in(__u64 word, __u32 number)
{
	return word >> shift_of(number) & TAG_MASK;
}

/* Puts a tag, or FREE, in the place of BUSY: whoever made it that is alone there. What is fetched is ordered: what was
 * written there is seen before the tag. */
static __always_inline void end_busy(__u64 *word, __u32 number, __u64 tag)
{
	__u64 before = __sync_fetch_and_and(word, ~((BUSY ^ tag) << shift_of(number)));

	asm volatile("" ::"r"(before));
}

/* More strays than this are not counted: the word then has some for ever. */
#define MANY_STRAYS (~0ULL >> STRAYS_SHIFT)

/* Counts a stray of a word, before it can be looked for, or one less, after that. */
static __always_inline bool count_stray(__u64 *word, bool more)
{
	const __u64 one = 1ULL << STRAYS_SHIFT;

	for (int i = 0; i < ATTEMPTS; i++) {
		__u64 before = *(volatile __u64 *)word;

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

/* Frees a busy place. */
static __always_inline void table_free(__u32 place, __u64 *word)
{
	table_forget(place);
	end_busy(word, place % PLACES_PER_SET, FREE);
	__sync_fetch_and_add(&account.flows, -1);
}

static __always_inline int take_free_place(struct tags *tags, __u64 hash)
{
	for (__u32 step = 0; step < TAG_WORDS * 2; step++) {
		__u64 number = TAG_WORD(hash + (step >> 1)), free = zero_tags(tags->words[number]);

		/* Each word is tried twice: somebody may have been faster. */
		if (free && exchange_tag(&tags->words[number], lowest(free), FREE, BUSY))
			return number * TAGS_PER_WORD + lowest(free);
	}
	return NO_PLACE;
}

/* Takes the place of a flow that was found there, to write it anew: false when it is no longer its place. */
static __always_inline bool table_claim(__u32 place, const struct flow_key *key, __u64 hash)
{
	struct entry *entry = bpf_map_lookup_elem(&flows, &place);
	__u64 *word = word_of(place);

	if (!entry || !word || !exchange_tag(word, place % PLACES_PER_SET, tag_of(hash), BUSY))
		return false;
	if (same_key(&entry->key, key))
		return true;
	end_busy(word, place % PLACES_PER_SET, tag_of(hash));
	return false;
}

/* Two CPUs may have begun the same flow at once, each in a place of its own. Whoever has given his a tag last sees both:
 * the one further back goes. */
__noinline int table_settle(const struct flow_key *key, __u64 hash, int place)
{
	int other = table_find(key, hash, place);
	__u64 *word;

	if (!key || other == NO_PLACE)
		return 0;
	if (other < place)
		other = place;
	word = word_of(other);
	if (word && table_claim(other, key, hash))
		table_free(other, word);
	return 0;
}

/* Gives a busy place to the flow that has been written there. False, and the place is free, when too many others are
 * at work. `stays`: the flow was there before, and counts as what it is. */
static __always_inline bool table_give(__u32 place, const struct flow_key *key, __u64 hash, bool stays)
{
	__u32 set = place / PLACES_PER_SET, number = place % PLACES_PER_SET;
	struct tags *tags = bpf_map_lookup_elem(&flow_tags, &set);
	__u64 word = TAG_WORD(number / TAGS_PER_WORD), home = TAG_WORD(hash);
	bool given;

	if (!tags)
		return false;
	given = stays || word == home || count_stray(&tags->words[home], true);
	end_busy(&tags->words[word], number, given ? tag_of(hash) : FREE);
	if (!given)
		__sync_fetch_and_add(&account.flows, -1);
	else
		table_settle(key, hash, place);
	return given;
}

#endif
