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
 * who makes it has the bucket alone until he writes the new key, and who comes second goes without. Two that give the
 * same source a bucket at once give it two: one packet is not charged. Nor is one whose bucket has just changed hands:
 * whoever charges it finds another time there, and then another key; should it be the same time to the nanosecond, the new source is charged with the old one's interval. Such a debt
 * may be more than its limit allows, and is then taken for none. */
#ifndef PORTCULLIS_LIMIT_H
#define PORTCULLIS_LIMIT_H

#include <bpf/bpf_helpers.h>

#include "config.h"
#include "explain.h"
#include "maps.h"
#include "table.h"
#include "types.h"

#define NO_KEY 0ULL
#define BEING_GIVEN 1ULL

/* How often a CPU tries anew when others were faster. Who is that often charged by others at once is over his limit. */
#define CHARGES 16

/* Loops stay loops: each step anew would want registers of its own, and so stack. */
#define FEW_REGISTERS _Pragma("clang loop unroll(disable)")

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

/* Charges a bucket with a packet: false when that is over the limit. */
static __always_inline bool charge(struct bucket *bucket, __u64 key, const struct limit *limit, __u64 now_ns)
{
	__u64 before, debt;

	FEW_REGISTERS
	for (int i = 0; i < CHARGES; i++) {
		before = *(volatile __u64 *)&bucket->arrival;
		if (*(volatile __u64 *)&bucket->key != key)
			return true;
		debt = before > now_ns ? before - now_ns : 0;
		/* One that no packet of this limit makes. */
		if (debt > limit->tolerance + limit->interval + jiffy)
			debt = 0;
		/* The clock goes by jiffies: within one, whatever comes has to wait for none. */
		if (debt > limit->tolerance && debt > jiffy) {
			EXPLAIN(debt, debt - (limit->tolerance > jiffy ? limit->tolerance : jiffy));
			return false;
		}
		if (dry_run)
			return true;
		if (__sync_val_compare_and_swap(&bucket->arrival, before, now_ns + debt + limit->interval) == before)
			return true;
	}
	return false;
}

/* Gives a bucket to a source, which is charged with one packet. False when somebody else is at it. */
static __always_inline bool give_bucket(struct bucket *bucket, __u64 key, __u64 arrival)
{
	__u64 before = *(volatile __u64 *)&bucket->key;

	if (dry_run)
		return true;
	if (before == BEING_GIVEN || __sync_val_compare_and_swap(&bucket->key, before, BEING_GIVEN) != before)
		return false;
	/* Exchanges are ordered: nobody sees the key before the time. */
	__sync_lock_test_and_set(&bucket->arrival, arrival);
	__sync_lock_test_and_set(&bucket->key, key);
	return true;
}

/* Whether a rule's limit lets a packet in. A global function with next to no stack, as its callers have left it little on
 * Linux 6.1. */
__noinline int limit_admits(struct packet *packet, __u32 rule, __u64 time)
{
	struct limit *limit = bpf_map_lookup_elem(&limits, &rule);
	struct bucket *least, *bucket;
	__u64 key;

	if (!packet || !limit || !limit->interval)
		return true;
	time *= jiffy; /* from here on nanoseconds, so that a limit does not depend on the kernel's ticks */
	key = bucket_key(packet, limit->salt);
	rule = key & (LIMIT_SETS - 1); /* and the number of the set */
	bucket = bpf_map_lookup_elem(&limit_buckets, &rule);
	if (!bucket)
		return true;
	least = bucket;
	FEW_REGISTERS
	for (int i = 0; i < BUCKETS_PER_SET; i++, bucket++) {
		if (bucket->key == key)
			return charge(bucket, key, limit, time);
		if (bucket->arrival < least->arrival)
			least = bucket;
	}
	give_bucket(least, key, time + limit->interval);
	return true;
}

#endif
