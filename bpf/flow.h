/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The flow tables: finding, beginning and keeping flows. What a packet makes of one is in state.h.
 *
 * Entries change through the looked-up pointer without a lock. Two CPUs may overwrite each other's state, and an
 * entry that is deleted meanwhile may have become another flow's: at worst a flow lives for one timeout too many, or
 * falls back one state until its next packet. */
#ifndef PORTCULLIS_FLOW_H
#define PORTCULLIS_FLOW_H

#include <bpf/bpf_helpers.h>

#include "config.h"
#include "filter.h"
#include "maps.h"
#include "parse.h"
#include "state.h"
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
	return BOUNDED((__u64) class * PORTS_PER_CLASS + port, PORT_SLOTS - 1);
}

/* The key of the flow that a packet belongs to. */
static __always_inline struct flow_key4 key4(const struct packet *packet, enum direction direction)
{
	bool out = direction == OUTBOUND;

	return (struct flow_key4){
		.local = out ? packet->src[0] : packet->dst[0],
		.remote = out ? packet->dst[0] : packet->src[0],
		.local_port = out ? packet->src_port : packet->dst_port,
		.remote_port = out ? packet->dst_port : packet->src_port,
		.protocol = packet->protocol,
	};
}

static __always_inline struct flow_key6 key6(const struct packet *packet, enum direction direction)
{
	bool out = direction == OUTBOUND;
	struct flow_key6 key = {
		.local_port = out ? packet->src_port : packet->dst_port,
		.remote_port = out ? packet->dst_port : packet->src_port,
		.protocol = packet->protocol,
	};

	__builtin_memcpy(key.local, out ? packet->src : packet->dst, sizeof(key.local));
	__builtin_memcpy(key.remote, out ? packet->dst : packet->src, sizeof(key.remote));
	return key;
}

/* The flow of a packet, alive or not; `pending` tells that it waits for its first answer. */
static __always_inline struct flow *flow_find(const struct packet *packet, enum direction direction, bool *pending)
{
	struct flow *flow;

	*pending = false;
	if (packet->family == 4) {
		struct flow_key4 key = key4(packet, direction);

		flow = bpf_map_lookup_elem(&flows4, &key);
		if (flow)
			return flow;
		*pending = true;
		return bpf_map_lookup_elem(&pending4, &key);
	}

	struct flow_key6 key = key6(packet, direction);

	flow = bpf_map_lookup_elem(&flows6, &key);
	if (flow)
		return flow;
	*pending = true;
	return bpf_map_lookup_elem(&pending6, &key);
}

/* A flow that was answered moves to the table that nothing evicts. When that is full it stays where it is. */
static __always_inline bool flow_confirm(const struct packet *packet, const struct flow *flow)
{
	struct flow value = *flow;

	if (packet->family == 4) {
		struct flow_key4 key = key4(packet, INBOUND);

		if (bpf_map_update_elem(&flows4, &key, &value, BPF_ANY))
			return false;
		bpf_map_delete_elem(&pending4, &key);
		return true;
	}

	struct flow_key6 key = key6(packet, INBOUND);

	if (bpf_map_update_elem(&flows6, &key, &value, BPF_ANY))
		return false;
	bpf_map_delete_elem(&pending6, &key);
	return true;
}

static __always_inline __u64 flow_hash(const struct packet *packet, enum direction direction)
{
	if (packet->family == 4) {
		struct flow_key4 key = key4(packet, direction);

		return hash4(&key);
	}

	struct flow_key6 key = key6(packet, direction);

	return hash6(&key);
}

/* Makes the filter know of a flow that stands in a table: not before, as a sweep could then miss it. */
static __always_inline void flow_announce(const struct packet *packet)
{
	filter_enter(flow_hash(packet, OUTBOUND));
	if (!state.crowded && ++begun >= crowd)
		state.crowded = true;
}

static __always_inline void flow_begin(const struct packet *packet, const struct flow *flow)
{
	if (packet->family == 4) {
		struct flow_key4 key = key4(packet, OUTBOUND);

		bpf_map_update_elem(&pending4, &key, flow, BPF_ANY);
		return;
	}

	struct flow_key6 key = key6(packet, OUTBOUND);

	bpf_map_update_elem(&pending6, &key, flow, BPF_ANY);
}

static __always_inline __u16 stamp_of(__u64 time)
{
	return time >> STAMP_SHIFT;
}

/* Where a local port has its stamp. A port out of a register that was spilled has no bounds on Linux 6.1 and 6.12. */
static __always_inline __u16 *syn_stamp(__u16 port)
{
	return &syn_sent[BOUNDED(port, PORTS_PER_CLASS - 1)];
}

/* A SYN that can meet none of ours. Within another flow it would be invalid, which is only of account where invalid
 * packets are let in. */
static __always_inline bool is_stray_syn(const struct packet *packet, __u64 time)
{
	return invalid_policy != POLICY_ACCEPT && is_tcp_syn(packet) &&
	       (__u16)(stamp_of(time) - *syn_stamp(packet->dst_port)) > longest_syn_sent;
}

/* An inbound packet: does it belong to a flow of ours? One that it contradicts makes it invalid. `full` tells that an
 * answered flow found no room. */
static __always_inline bool flow_admits(struct packet *packet, __u64 time, bool *full)
{
	struct flow *flow;
	bool pending;

	if (is_stray_syn(packet, time))
		return false;
	if (state.crowded && !filter_has(flow_hash(packet, INBOUND)))
		return false;
	flow = flow_find(packet, INBOUND, &pending);
	if (!flow || !flow_alive(flow, time) || !flow_inbound(flow, packet, time))
		return false;
	if (!flow->answered)
		flow->answered = true;
	if (pending && is_answer(flow))
		*full = !flow_confirm(packet, flow);
	return true;
}

/* An outbound packet: begins, moves or ends its flow. */
static __always_inline void flow_track(const struct packet *packet, __u64 time)
{
	enum flow_state first = flow_first_state(packet);
	bool pending;
	struct flow *flow = flow_find(packet, OUTBOUND, &pending);

	if (flow && flow_alive(flow, time)) {
		bool closed = flow->state == FLOW_TCP_TIME_WAIT || flow->state == FLOW_TCP_CLOSE ||
			      flow->state == FLOW_TCP_LAST_ACK;

		if (!(closed && is_tcp_syn(packet))) {
			flow_outbound(flow, packet, pending, time);
			return;
		}
	}
	if (first == FLOW_NONE)
		return;
	if (flow && flow->state == FLOW_KILLED && time < flow->expires && !is_tcp_syn(packet))
		return;

	struct flow entry = {
		.expires = time + timeout_of(first),
		.created = time,
		.ack = packet->tcp_flags & TCP_ACK ? packet->ack : 0,
		.state = first,
	};

	if (flow) {
		/* One that ended by a RST, after which more has come, is to netfilter the same when it begins again. */
		if (time < flow->expires && !flow->ending)
			entry.answered = flow->answered;
		*flow = entry;
	} else {
		flow_begin(packet, &entry);
	}
	if (first == FLOW_TCP_SYN_SENT)
		*syn_stamp(packet->src_port) = stamp_of(time);
	flow_announce(packet);
}

#endif
