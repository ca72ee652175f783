/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* A Bloom filter of the flows there are. A packet of a flood belongs to none, and in a table of a million to find that
 * out costs more than all the rest of the program. There are two generations: new flows enter both, packets ask the
 * one that state.generation names. A sweep empties the other one, enters what lives, and changes over. */
#ifndef PORTCULLIS_FILTER_H
#define PORTCULLIS_FILTER_H

#include <bpf/bpf_helpers.h>

#include "config.h"
#include "maps.h"
#include "types.h"

#define MIX 0x9e3779b97f4a7c15ULL /* 2^64 by the golden ratio */

/* The ports and protocol stand together at the end of either key. */
static __always_inline __u64 mix(__u64 addresses, __u16 local_port, __u16 remote_port, __u8 protocol)
{
	__u64 hash = addresses ^ ((__u64)protocol << 32 | (__u32)local_port << 16 | remote_port) * MIX;

	hash = (hash ^ hash >> 29) * MIX;
	return hash ^ hash >> 32;
}

static __always_inline __u64 hash4(const struct flow_key4 *key)
{
	return mix(((__u64)key->local << 32 | key->remote) * MIX, key->local_port, key->remote_port, key->protocol);
}

static __always_inline __u64 hash6(const struct flow_key6 *key)
{
	__u64 local = (__u64)key->local[0] << 32 | key->local[1], local2 = (__u64)key->local[2] << 32 | key->local[3];
	__u64 remote = (__u64)key->remote[0] << 32 | key->remote[1];
	__u64 remote2 = (__u64)key->remote[2] << 32 | key->remote[3];

	return mix((((local * MIX ^ local2) * MIX ^ remote) * MIX ^ remote2) * MIX, key->local_port, key->remote_port,
		   key->protocol);
}

/* Two bits of one word. */
static __always_inline __u64 filter_bits(__u64 hash)
{
	return 1ULL << (hash >> 58) | 1ULL << (hash >> 52 & 63);
}

static __always_inline __u64 *filter_word(__u64 hash, __u32 generation)
{
	__u32 index = (hash & filter_mask) | (generation ? filter_mask + 1 : 0);

	return bpf_map_lookup_elem(&filter, &index);
}

static __always_inline void filter_enter(__u64 hash)
{
	__u64 bits = filter_bits(hash);

	for (__u32 generation = 0; generation < 2; generation++) {
		__u64 *word = filter_word(hash, generation);

		if (word && (*word & bits) != bits)
			__sync_fetch_and_or(word, bits);
	}
}

/* False when there is no such flow for sure. */
static __always_inline bool filter_has(__u64 hash)
{
	__u64 *word = filter_word(hash, state.generation), bits = filter_bits(hash);

	return !word || (*word & bits) == bits;
}

#endif
