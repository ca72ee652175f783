/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What becomes of a packet that goes out: it begins or moves a flow, or, routed, may not leave. */
#ifndef PORTCULLIS_EGRESS_H
#define PORTCULLIS_EGRESS_H

#include "config.h"
#include "count.h"
#include "flow.h"
#include "forward.h"
#include "ingress.h"
#include "maps.h"
#include "parse.h"
#include "policy.h"
#include "reject.h"
#include "related.h"
#include "types.h"

/* Whether who answers to this packet comes in through its port, or by its protocol, open to everybody or to him. A limit
 * does not count: it is for those who begin. Answers to ICMP are invalid without a flow. */
static __always_inline bool comes_in_anyway(struct packet *packet, enum port_class class)
{
	struct port port;

	if (class != CLASS_NONE)
		port = port_entry(class, packet->src_port);
	else if (is_icmp(packet))
		return false;
	else
		port = protocol_entry(packet->protocol);
	return port.rule || (port.set && decide(packet, port.set, OUTBOUND).number);
}

/* Whether a packet that is routed from an unfiltered interface may leave under `drop`: the rule that lets it, or 0, or the
 * reason why it may not, or PARSE_MORE. */
static __always_inline int may_leave(const struct input *input, __u32 came_by, struct packet *packet)
{
	struct forwarder forwarder = forwarder_of(came_by);
	int result;

	/* Judged where it came in, as routed or, where its address is translated on the way, as to this host. */
	if (forwarder.flags & (FORWARDER_JUDGED | FORWARDER_BEGINS))
		return 0;
	if (packet->fragment == FRAGMENT_LATER)
		return forwards_anything() ? 0 : DROP_FORWARD;
	result = by_forward_rules(packet, forwarder, input->time);
	if (!is_drop(result))
		return result >= RULE_ZERO ? result : 0;
	if (is_icmp(packet) && icmp_is_error(packet->protocol, packet->type)) {
		int related = is_related(&input->frame, packet, OUTWARD, input->ifindex, input->time);

		return related == PARSE_MORE ? PARSE_MORE : related ? 0 : result;
	}
	if (!answers_something(packet))
		return result;
	if (forward_decision(packet, forwarder_of(input->ifindex).set, OUTBOUND).number)
		return 0;
	/* A published port, and its address translated back. */
	if (comes_in_anyway(packet, class_of(packet->protocol)) && is_from_us(input->ctx, came_by, packet, input->time))
		return 0;
	return result;
}

/* may_leave with a stack of its own. */
int routed_skb(struct __sk_buff *skb, struct packet *packet);

/* Whether who answers to a routed packet comes in by a forward rule. To an address of ours, he comes to this host. */
static __always_inline bool comes_through_anyway(const struct input *input, __u32 came_by, const struct packet *packet)
{
	return uses_forward_rules && forward_decision(packet, forwarder_of(input->ifindex).set, OUTBOUND).number &&
	       !is_from_us(input->ctx, came_by, packet, input->time);
}

/* The reason for which a routed packet may not leave, TRACK or FOLLOW, PARSED when there is nothing to do, or PARSE_MORE.
 * `came_by` is the interface that it came in on, or 0. */
static __always_inline int egress(const struct input *input, __u32 came_by, struct packet *packet)
{
	enum port_class class;
	bool open, ours;
	int result;

	*packet = (struct packet){};
	result = parse(&input->frame, packet);
	if (result != PARSED)
		return result == PARSE_MORE ? PARSE_MORE : PARSED;
	if (came_by == input->ifindex && is_answer(packet, input->time))
		return PARSED;
	if (came_by && forward_policy == POLICY_DROP) {
		result = routed_skb(input->ctx, packet);
		if (result < 0 || is_drop(result))
			return result;
		if (result) /* no filter has counted it on the way in */
			count_rule(result, input->frame.length);
	}
	if (packet->fragment == FRAGMENT_LATER)
		return PARSED;

	class = class_of(packet->protocol);
	open = comes_in_anyway(packet, class);
	ours = !came_by ||
	       ((open || forward_policy == POLICY_ACCEPT) && is_from_us(input->ctx, came_by, packet, input->time));
	/* Whoever answers comes in through the port, or, where everything is let through, needs no flow. Were these
	 * flows, the outside could make us allocate. Routed, it is an answer of ours when a container gave it and the
	 * address was translated back. */
	if (ours)
		return open ? PARSED : TRACK;
	if (forward_policy == POLICY_ACCEPT)
		return PARSED;
	return comes_through_anyway(input, came_by, packet) ? FOLLOW : TRACK;
}

/* Whether a routed packet whose answers come in by a rule is tracked, so that a connection outlives the rules by which it
 * goes: if it has a flow, or is of a TCP connection that goes on and has none in either direction. A SYN begins none, nor
 * does what is not TCP: whoever forges those makes hosts behind us answer, and would have us allocate. A forged ACK has
 * them answer with a RST, and its flow gives way first (room.h). A global function for its stack. */
__noinline int is_followed(struct packet *packet, __u64 time)
{
	struct flow_key key;
	struct flow *flow;

	if (!packet || !uses_forward_rules)
		return false;
	key = key_of(packet, OUTBOUND);
	flow = flow_at(table_find(&key, hash_of(&key), NO_PLACE));
	if (flow && time < flow->expires)
		return true;
	if (packet->protocol != PROTO_TCP || packet->tcp_flags & TCP_SYN)
		return false;
	turn_key(&key);
	flow = flow_at(table_find(&key, hash_of(&key), NO_PLACE));
	return !flow || time >= flow->expires;
}

/* Keeps the flow of a packet that goes out, and marks its port: after the flow is there, and before the packet leaves. */
static __always_inline void track(struct packet *packet)
{
	enum port_class class = class_of(packet->protocol);

	if (dry_run)
		return;
	if (!flow_track(packet, now()))
		count_seen(SEEN_FLOWS_FULL);
	if (class != CLASS_NONE && used[port_slot(class, packet->src_port)] != state.sweep)
		used[port_slot(class, packet->src_port)] = state.sweep;
}

#endif
