/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What a set says of an address. A set cuts all addresses into ranges, each with a value: sorted, some in a line of the
 * cache, and an index of evenly spaced buckets that tells in which lines to look. Random addresses cost two reads beside
 * the set's own; when all ranges are in one corner of the address space, a binary search over the lines. */
#ifndef PORTCULLIS_RANGES_H
#define PORTCULLIS_RANGES_H

#include <bpf/bpf_helpers.h>

#include "types.h"

#define RANGE_LINES 65536
#define RANGE_BUCKETS 131072
#define RANGE_SETS 1024

/* The last range of a line that begins at or before the address has it. Ranges that a line has no use for repeat the
 * last one. */
struct range_line4 {
	__u32 first[8];
	__u32 value[8];
};

struct range_line6 {
	__u64 high[3]; /* the first address, in halves */
	__u64 low[3];
	__u32 value[3];
	__u32 pad;
};

/* Of a set with very many ranges of one IPv4 address, those that a hash of the address leads to: they take one read in
 * place of two that wait for each other. One that found no room here is among the ranges, as all of them are. */
#define SINGLES 10
struct range_singles {
	__u32 addr[SINGLES];
	__u16 value[SINGLES]; /* 0: nobody's */
	__u32 pad;
};

struct range_line {
	union {
		struct range_line4 v4;
		struct range_line6 v6;
		struct range_singles singles;
	};
};
_Static_assert(sizeof(struct range_line) == 64, "a line of ranges is a line of the cache");

/* The lines that may hold the addresses of a bucket. */
struct range_bucket {
	__u32 first;
	__u32 last;
};

/* Where the ranges of a family are. */
struct range_index {
	__u64 base; /* the first address of the first bucket, of IPv6 the upper half */
	__u32 shift;
	__u32 last_bucket;  /* that of all higher addresses, too */
	__u32 first_bucket; /* in range_buckets */
	__u32 first_line;   /* in range_lines */
	__u32 last_line;    /* counted from first_line; 0: look at no bucket */
	__u32 pad;
};

enum range_set_state {
	SET_FREE,
	SET_IN_USE,
	SET_DROPPED, /* no port asks for it, but a packet on its way may */
};

/* User space finds by `contents`, a hash, which set decides what it wants. */
struct range_set {
	struct range_index v4;
	struct range_index v6;
	__u8 contents[32];
	__u32 state;
	__u32 first_line; /* what both families take, one after the other */
	__u32 lines;
	__u32 first_bucket;
	__u32 buckets;
	__u32 first_single;  /* line of singles, of those that first_line and lines tell of */
	__u32 singles_shift; /* of the hash; 0: there are none */
	__u32 pad;
};
_Static_assert(sizeof(struct range_set) == 128, "a set fills lines of the cache");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, RANGE_SETS);
	__type(key, __u32);
	__type(value, struct range_set);
} range_sets SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, RANGE_BUCKETS);
	__type(key, __u32);
	__type(value, struct range_bucket);
} range_buckets SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, RANGE_LINES);
	__type(key, __u32);
	__type(value, struct range_line);
} range_lines SEC(".maps");

/* a <= b, as 1 or 0, without a jump that nobody can predict. */
static __always_inline __u64 not_above32(__u32 a, __u32 b)
{
	return ((__u64)a - b - 1) >> 63;
}

static __always_inline __u64 not_above128(__u64 a_high, __u64 a_low, __u64 b_high, __u64 b_low)
{
	__u64 same = a_high == b_high;

	return same ? a_low <= b_low : a_high < b_high;
}

#define RANGE_STEPS 24 /* of a binary search over 2^24 lines */

/* Which of some lines has an address. `key` is where a number stands on the stack. */
#define RANGE_SEARCH(index, lines, key, not_above)                         \
	({                                                                 \
		__u32 at_ = (lines)->first, left_ = (lines)->last - at_;   \
		for (int i_ = 0; i_ < RANGE_STEPS && left_; i_++) {        \
			__u32 half_ = (left_ + 1) / 2;                     \
			struct range_line *line_;                          \
			key = (index)->first_line + at_ + half_;           \
			line_ = bpf_map_lookup_elem(&range_lines, &(key)); \
			if (!line_)                                        \
				break;                                     \
			if (not_above) {                                   \
				at_ += half_;                              \
				left_ -= half_;                            \
			} else {                                           \
				left_ = half_ - 1;                         \
			}                                                  \
		}                                                          \
		at_;                                                       \
	})

/* The value of an IPv4 address in host order. A global function, so that the verifier walks it once. All keys stand in one
 * place: of stack, Linux 6.1 has 32 bytes left below its callers. */
__noinline __u32 range_value4(__u32 number, __u32 addr)
{
	struct range_set *set = bpf_map_lookup_elem(&range_sets, &number);
	struct range_index *index;
	struct range_bucket *lines;
	struct range_line *line;
	__u32 at = 0;

	if (!set)
		return 0;
	index = &set->v4;
	if (index->last_line && addr >= index->base) {
		__u32 bucket = (addr - (__u32)index->base) >> (index->shift & 31);

		if (bucket > index->last_bucket)
			bucket = index->last_bucket;
		number = bucket + index->first_bucket;
		lines = bpf_map_lookup_elem(&range_buckets, &number);
		if (!lines)
			return 0;
		at = RANGE_SEARCH(index, lines, number, line_->v4.first[0] <= addr);
	}
	number = index->first_line + at;
	line = bpf_map_lookup_elem(&range_lines, &number);
	if (!line)
		return 0;

	__u64 place = 0;

	for (int i = 1; i < 8; i++)
		place += not_above32(line->v4.first[i], addr);
	return line->v4.value[BOUNDED(place, 7)];
}

__noinline __u32 range_value6(__u32 number, __u64 high, __u64 low)
{
	struct range_set *set = bpf_map_lookup_elem(&range_sets, &number);
	struct range_index *index;
	struct range_bucket *lines;
	struct range_line *line;
	__u32 at = 0;

	if (!set)
		return 0;
	index = &set->v6;
	if (index->last_line && high >= index->base) {
		__u64 bucket = (high - index->base) >> (index->shift & 63);

		if (bucket > index->last_bucket)
			bucket = index->last_bucket;
		number = bucket + index->first_bucket;
		lines = bpf_map_lookup_elem(&range_buckets, &number);
		if (!lines)
			return 0;
		at = RANGE_SEARCH(index, lines, number, not_above128(line_->v6.high[0], line_->v6.low[0], high, low));
	}
	number = index->first_line + at;
	line = bpf_map_lookup_elem(&range_lines, &number);
	if (!line)
		return 0;
	if (not_above128(line->v6.high[2], line->v6.low[2], high, low))
		return line->v6.value[2];
	if (not_above128(line->v6.high[1], line->v6.low[1], high, low))
		return line->v6.value[1];
	return line->v6.value[0];
}

/* The value of an IPv4 address that stands alone among the ranges, or 0 if it is not in the lines for those. */
__noinline __u32 single_value4(__u32 number, __u32 addr)
{
	struct range_set *set = bpf_map_lookup_elem(&range_sets, &number);
	struct range_line *line;
	__u64 value = 0;

	if (!set || !set->singles_shift)
		return 0;
	number = set->first_single + (addr * 0x9e3779b1 >> (set->singles_shift & 31)); /* 2^32 by the golden ratio */
	line = bpf_map_lookup_elem(&range_lines, &number);
	if (!line)
		return 0;
	for (int i = 0; i < SINGLES; i++)
		value |= line->singles.value[i] & -(((__u64)(line->singles.addr[i] ^ addr) - 1) >> 63);
	return value;
}

#endif
