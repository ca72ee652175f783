/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* How often one source may begin something, by a rule that has a limit: the generic cell rate algorithm (GCRA). A bucket
 * is one number, when the source's next packet would come if they came one interval apart. A packet may come earlier than
 * that by the limit's tolerance, which is its burst; each that is let in puts the time off by an interval. What lies
 * ahead of now is the source's debt, and a source without debt is as good as forgotten.
 *
 * The table has a fixed size, and who has a bucket where is decided by a hash that nobody knows. In a set that is full the
 * source with the least debt gives way: a flood of sources that send a packet each has the least debt itself, so it does
 * not free one that is over its limit. Nobody is dropped because the table is full. docs/limits.md says what that comes
 * to.
 *
 * What two CPUs do at once. A bucket changes hands by an exchange of its key from what was seen there to BEING_GIVEN;
 * who makes it has the bucket alone until he writes the new key. Two that give the same source a bucket at once give it
 * two: one packet is not charged. Who charges a bucket that has just changed hands finds another time there, and looks
 * anew; should it be the same time to the nanosecond, the new source is charged with the old one's interval. Such a debt
 * may be more than its limit allows, and is then taken for none. */
#ifndef PORTCULLIS_LIMIT_H
#define PORTCULLIS_LIMIT_H

#include <bpf/bpf_helpers.h>

#include "config.h"
#include "maps.h"
#include "table.h"
#include "types.h"

#define NO_KEY 0ULL
#define BEING_GIVEN 1ULL

/* How often a CPU tries anew when others were faster. Who is that often charged by others at once is over his limit; who
 * is that often not given a bucket goes without. */
#define CHARGES 16
#define GIVES 2

/* Jiffies as nanoseconds, so that limits do not depend on how many there are in a second. */
#define JIFFY (1000000000 / hz)

/* Whether a packet that belongs to no flow of ours begins something: each but those of a TCP connection that goes on. */
static __always_inline bool begins_something(const struct packet *packet)
{
	return packet->protocol != PROTO_TCP || (packet->tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN;
}

/* For one rule, another key for each source: each step can be undone. An IPv6 network of 64 bits is one source. */
static __always_inline __u64 bucket_key(const struct packet *packet, __u64 salt)
{
	__u64 hash = (__u64)packet->src[0] << 32 | (packet->family == 6 ? packet->src[1] : 0);

	hash = (hash ^ state.seed) * MIX;
	hash = (hash ^ hash >> 32 ^ salt) * MIX;
	hash = (hash ^ hash >> 29 ^ packet->family) * MIX;
	hash ^= hash >> 32;
	return hash > BEING_GIVEN ? hash : hash + 2;
}

enum charge {
	CHARGED,
	OVER_LIMIT,
	CHANGED_HANDS,
};

/* Charges a bucket with a packet. */
static __always_inline enum charge charge(struct bucket *bucket, __u64 key, const struct limit *limit, __u64 now_ns)
{
	/* At least a jiffy, as that is how the clock goes: or more than a burst a jiffy would be impossible. */
	__u64 tolerance = limit->tolerance < JIFFY ? JIFFY : limit->tolerance;

	for (int i = 0; i < CHARGES; i++) {
		__u64 before = *(volatile __u64 *)&bucket->arrival, from = before;

		if (*(volatile __u64 *)&bucket->key != key)
			return CHANGED_HANDS;
		/* No debt, or one that no packet of this limit makes. */
		if (from < now_ns || from - now_ns > tolerance + limit->interval)
			from = now_ns;
		if (from - now_ns > tolerance)
			return OVER_LIMIT;
		if (__sync_val_compare_and_swap(&bucket->arrival, before, from + limit->interval) == before)
			return CHARGED;
	}
	return OVER_LIMIT;
}

/* Gives the bucket with the least debt to a source, which is charged with one packet. */
static __always_inline bool give_bucket(struct bucket_set *set, __u64 key, __u64 arrival)
{
	struct bucket *least = &set->buckets[0];
	__u64 before;

	for (int i = 1; i < BUCKETS_PER_SET; i++) {
		if (set->buckets[i].arrival < least->arrival)
			least = &set->buckets[i];
	}
	before = *(volatile __u64 *)&least->key;
	if (before == BEING_GIVEN || __sync_val_compare_and_swap(&least->key, before, BEING_GIVEN) != before)
		return false;
	/* Exchanges are ordered: nobody sees the key before the time. */
	__sync_lock_test_and_set(&least->arrival, arrival);
	__sync_lock_test_and_set(&least->key, key);
	return true;
}

/* Whether a rule's limit lets a packet in. A global function, as its callers have no stack left on Linux 6.1. */
__noinline int limit_admits(struct packet *packet, __u32 rule, __u64 time)
{
	struct limit *limit = bpf_map_lookup_elem(&limits, &rule);
	__u64 now_ns = time * JIFFY, key;
	struct bucket_set *set;

	if (!packet || !limit || !limit->interval)
		return true;
	key = bucket_key(packet, limit->salt);
	rule = key & (LIMIT_SETS - 1); /* in its place on the stack, from here on the set's number */
	set = bpf_map_lookup_elem(&limit_buckets, &rule);
	if (!set)
		return true;
	for (int i = 0; i < BUCKETS_PER_SET; i++) {
		if (set->buckets[i].key == key) {
			enum charge charged = charge(&set->buckets[i], key, limit, now_ns);

			if (charged != CHANGED_HANDS)
				return charged == CHARGED;
		}
	}
	for (int i = 0; i < GIVES; i++) {
		if (give_bucket(set, key, now_ns + limit->interval))
			break;
	}
	return true;
}

#endif
