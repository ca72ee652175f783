/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Flows: finding, beginning and keeping them. What a packet makes of one is in state.h, where it stands in table.h, and
 * which one gives way in room.h.
 *
 * Keys, and flows that begin, are written by whoever has the place alone (table.h). A flow that lives changes through
 * the looked-up pointer without a lock. Two CPUs may overwrite each other's state: then a flow falls back one state, or
 * lacks a mark, until its next packet. And a place that gives way between the look and the write has become another
 * flow's, which then lives for one timeout of the wrong state: too long, or till its next packet from this host, as a
 * flow of this host's own making in either case. */
#ifndef PORTCULLIS_FLOW_H
#define PORTCULLIS_FLOW_H

#include <bpf/bpf_helpers.h>

#include "config.h"
#include "explain.h"
#include "maps.h"
#include "parse.h"
#include "room.h"
#include "state.h"
#include "table.h"
#include "types.h"

static __always_inline __u64 now(void)
{
	return bpf_jiffies64() + (test_clock ? state.clock_offset : 0);
}

static __always_inline enum port_class class_of(__u8 protocol)
{
	switch (protocol) {
	case PROTO_TCP:
		return CLASS_TCP;
	case PROTO_UDP:
		return CLASS_UDP;
	case PROTO_SCTP:
		return CLASS_SCTP;
	case PROTO_UDPLITE:
		return CLASS_UDPLITE;
	}
	return CLASS_NONE;
}

static __always_inline __u64 port_slot(enum port_class class, __u16 port)
{
	return BOUNDED((__u64) class * PORTS_PER_CLASS + port, CLASS_SLOTS - 1);
}

/* The key of the flow that a packet belongs to. */
static __always_inline struct flow_key key_of(const struct packet *packet, enum direction direction)
{
	bool out = direction == OUTBOUND;
	struct flow_key key = {
		.local_port = out ? packet->src_port : packet->dst_port,
		.remote_port = out ? packet->dst_port : packet->src_port,
		.protocol = packet->protocol,
		.family = packet->family,
	};

	__builtin_memcpy(key.local, out ? packet->src : packet->dst, sizeof(key.local));
	__builtin_memcpy(key.remote, out ? packet->dst : packet->src, sizeof(key.remote));
	return key;
}

/* The flow of a place that table_find or room_take has returned. */
static __always_inline struct flow *flow_at(__u32 place)
{
	struct entry *entry = bpf_map_lookup_elem(&flows, &place);

	if (dry_run && entry)
		explain_flow(place, entry);
	return entry ? &entry->flow : NULL;
}

/* Enters a flow that is not in the table. False when there is no room. */
static __always_inline bool flow_begin(const struct flow_key *key, __u64 hash, const struct flow *flow, __u64 time)
{
	__u32 place = room_take(hash, time);
	struct entry *entry = bpf_map_lookup_elem(&flows, &place);

	if (!entry)
		return false;
	entry->key = *key;
	entry->flow = *flow;
	return table_give(place, key, hash, false);
}

/* Begins a flow anew in the place where it was found. False when that is no longer its place. */
static __always_inline bool flow_restart(__u32 place, const struct flow_key *key, __u64 hash, const struct flow *flow)
{
	struct flow *have = flow_at(place);

	if (!have || !table_claim(place, key, hash))
		return false;
	*have = *flow;
	return table_give(place, key, hash, true);
}

static __always_inline __u16 stamp_of(__u64 time)
{
	return time >> STAMP_SHIFT;
}

/* Where a local port has its stamp. CPUs that write one at the same time write the same time, or one that is a unit
 * older, for which longest_syn_sent leaves room. A port out of a register that was spilled has no bounds on Linux 6.1
 * and 6.12. */
static __always_inline __u16 *syn_stamp(__u16 port)
{
	return &syn_sent[BOUNDED(port, PORTS_PER_CLASS - 1)];
}

/* Whether a packet that comes in can belong to a flow at all: one read, so that a flood ends here. Its port has to be
 * in use, and a SYN can only meet one of ours. (Within another flow it would be invalid, which is only of account where
 * invalid packets are let in.) */
static __always_inline bool may_have_flow(const struct packet *packet, enum port_class class, __u64 time)
{
	if (invalid_policy != POLICY_ACCEPT && is_tcp_syn(packet))
		return (__u16)(stamp_of(time) - *syn_stamp(packet->dst_port)) <= longest_syn_sent;
	return class == CLASS_NONE || used[port_slot(class, packet->dst_port)];
}

/* An inbound packet: does it belong to a flow of ours? One that it contradicts makes it invalid. */
static __always_inline bool flow_admits(struct packet *packet, enum port_class class, __u64 time)
{
	struct flow_key key;
	struct flow *flow;

	if (!may_have_flow(packet, class, time))
		return false;
	key = key_of(packet, INBOUND);
	flow = flow_at(table_find(&key, hash_of(&key), NO_PLACE));
	if (!flow || !flow_alive(flow, time))
		return false;
	if (dry_run) {
		explained.after = *flow;
		flow = &explained.after;
	}
	if (!flow_inbound(flow, packet, time))
		return false;
	if (!(flow->marks & ANSWERED))
		flow->marks |= ANSWERED;
	return true;
}

/* One that the administrator has cut: nothing revives it but a new connection. */
static __always_inline bool stays_cut(const struct flow *flow, const struct packet *packet, __u64 time)
{
	return flow->state == FLOW_KILLED && time < flow->expires && !is_tcp_syn(packet);
}

/* An outbound packet: begins, moves or ends its flow. False when a new one finds no room. A global function, so that
 * the verifier walks it once and not behind every path of the parser. */
__noinline int flow_track(struct packet *packet, __u64 time)
{
	struct flow_key key;
	struct flow *flow, next;
	enum flow_state first;
	__u64 hash;
	int place;

	if (dry_run || !packet)
		return true;
	key = key_of(packet, OUTBOUND);
	hash = hash_of(&key);
	place = table_find(&key, hash, NO_PLACE);
	flow = flow_at(place);
	if (flow && flow_alive(flow, time) && flow_outbound(flow, packet, time))
		return true;
	first = flow_first_state(packet);
	if (first == FLOW_NONE || (flow && stays_cut(flow, packet, time)))
		return true;
	if (first == FLOW_TCP_SYN_SENT)
		*syn_stamp(packet->src_port) = stamp_of(time);
	next = flow_of(packet, first, time);
	return (flow && flow_restart(place, &key, hash, &next)) || flow_begin(&key, hash, &next, time);
}

#endif
