/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Sources whose packets are dropped before anything else is asked: those on block lists and those that are banned. Trusted
 * ones never are.
 *
 * A gate keeps the clean ones away from the tables, by one read: a bit for each /24 of IPv4, and one for many networks of
 * IPv6, tells that something in there may be blocked. User space sets bits before what they lead to is there, and clears
 * them after: a bit too many costs time, a bit too few there never is. And where nothing at all is blocked `state.asks`
 * says so. */
#ifndef PORTCULLIS_BLOCK_H
#define PORTCULLIS_BLOCK_H

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "explain.h"
#include "limit.h"
#include "maps.h"
#include "parse.h"
#include "policy.h"
#include "ranges.h"
#include "types.h"
#include "verdict.h"

/* What is to be asked about a source: set before anything is in the table, cleared after. */
enum ask {
	ASK_LISTS = 1 << 0,
	ASK_BANS4 = 1 << 1,
	ASK_BANS6 = 1 << 2,
	ASK_BAN_NETWORKS4 = 1 << 3,
	ASK_BAN_NETWORKS6 = 1 << 4,
	ASK_BANS = ASK_BANS4 | ASK_BANS6 | ASK_BAN_NETWORKS4 | ASK_BAN_NETWORKS6,
};

/* False for a source that is neither blocked nor banned. */
static __always_inline bool may_be_blocked(const struct packet *packet)
{
	__u32 zero = 0;
	struct source_gate *gate = bpf_map_lookup_elem(&source_gate, &zero);
	__u32 first = bpf_ntohl(packet->src[0]), bit;
	__u64 word;

	if (!gate)
		return true;
	if (packet->family == 4) {
		bit = first >> 8;
		word = gate->v4[BOUNDED(bit >> 6, GATE_WORDS4 - 1)];
	} else {
		bit = first * 0x9e3779b1 >> 12; /* 2^32 by the golden ratio */
		word = gate->v6[BOUNDED(bit >> 6, GATE_WORDS6 - 1)];
	}
	return word >> (bit & 63) & 1;
}

/* The sets of the ruleset, read as one word, and once for a verdict: two reads may be of two policies. */
union sources {
	struct blocking sets;
	__u64 word;
};

static __always_inline struct blocking blocking_sets(void)
{
	union sources sources = {.word = *(volatile __u64 *)&blocks};

	return sources.sets;
}

/* What a set says of the source of a packet; of set 0, nothing. */
static __always_inline __u32 source_value(__u32 set, const struct packet *packet)
{
	return set ? value_of(set, packet->family, packet->src) : 0;
}

static __always_inline bool is_trusted(const struct packet *packet)
{
	bool trusted = source_value(blocking_sets().trust_set, packet);

	if (trusted)
		EXPLAIN(trusted, true);
	return trusted;
}

/* One of the reasons that bans have is counted, or a list. */
static __always_inline void count_source(__u32 *place)
{
	__u64 *counter;

	if (dry_run)
		return;
	counter = bpf_map_lookup_elem(&source_counters, place);
	if (counter)
		*counter += 1;
}

static __always_inline bool holds(const struct ban *ban, __u64 time)
{
	return ban->until > time;
}

/* The longest of the banned networks that hold an address. One that has ended must not hide a shorter one that has not. */
#define LIVE_NETWORK(networks, key, time)                          \
	({                                                         \
		struct ban *ban_ = NULL;                           \
		FEW_REGISTERS                                      \
		for (int i_ = 0; i_ <= 128; i_++) {                \
			ban_ = bpf_map_lookup_elem(networks, key); \
			if (!ban_ || holds(ban_, time))            \
				break;                             \
			(key)->prefix_len = ban_->prefix_len - 1;  \
			ban_ = NULL;                               \
			if ((key)->prefix_len > 128)               \
				break;                             \
		}                                                  \
		ban_;                                              \
	})

/* Whether a source is banned at this moment; then its packet is counted. A global function, and the key is all that stands
 * on its stack: Linux 6.1 has left it 32 bytes. */
__noinline int is_banned(struct packet *packet, __u64 time)
{
	struct local_key6 key;
	struct ban *ban = NULL;

	if (!packet)
		return false;
	__builtin_memcpy(key.addr, packet->src, sizeof(key.addr));
	if (packet->family == 4) {
		if (state.asks & ASK_BANS4)
			ban = bpf_map_lookup_elem(&bans4, &key.addr);
		if ((!ban || !holds(ban, time)) && state.asks & ASK_BAN_NETWORKS4) {
			key.prefix_len = 32;
			ban = LIVE_NETWORK(&ban_networks4, &key, time);
		}
	} else {
		if (state.asks & ASK_BANS6)
			ban = bpf_map_lookup_elem(&bans6, &key.addr);
		if ((!ban || !holds(ban, time)) && state.asks & ASK_BAN_NETWORKS6) {
			key.prefix_len = 128;
			ban = LIVE_NETWORK(&ban_networks6, &key, time);
		}
	}
	if (!ban || !holds(ban, time))
		return false;
	EXPLAIN(ban, *ban);
	if (dry_run)
		return true;
	__sync_fetch_and_add(&ban->packets, 1);
	key.prefix_len = MAX_BLOCK_LISTS + BOUNDED(ban->reason, MAX_BAN_REASONS - 1);
	count_source(&key.prefix_len);
	return true;
}

/* The reason for which a source is dropped, or PARSED. */
static __always_inline int source_verdict(struct packet *packet, __u64 time)
{
	struct blocking sets;
	__u32 list = 0;

	if (!state.asks || !may_be_blocked(packet))
		return PARSED;
	sets = blocking_sets();
	if (source_value(sets.trust_set, packet))
		return PARSED;
	if (state.asks & ASK_BANS && is_banned(packet, time))
		return DROP_BANNED;
	if (sets.block_set && packet->family == 4)
		list = single_value4(sets.block_set, bpf_ntohl(packet->src[0]));
	if (!list)
		list = source_value(sets.block_set, packet);
	if (!list)
		return PARSED;
	EXPLAIN(list, list);
	count_source(&list);
	return DROP_BLOCKED;
}

#endif
