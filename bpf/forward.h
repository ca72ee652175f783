/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What is routed: which rules let it through, and who is behind the interface by which it comes. */
#ifndef PORTCULLIS_FORWARD_H
#define PORTCULLIS_FORWARD_H

#include <bpf/bpf_helpers.h>

#include "block.h"
#include "config.h"
#include "explain.h"
#include "flow.h"
#include "limit.h"
#include "maps.h"
#include "parse.h"
#include "policy.h"
#include "types.h"
#include "verdict.h"

/* A word that holds a struct forwarder. */
union forwarder_word {
	struct forwarder forwarder;
	__u32 word;
};

/* What holds for an interface, as a word. A global function for its stack: Linux 6.1 has left its callers little. */
__noinline __u32 forwarder_at(__u32 ifindex)
{
	union forwarder_word *found = bpf_map_lookup_elem(&forwarders, &ifindex);

	if (!found)
		found = bpf_map_lookup_elem(&forwarders, &state.zero);
	return found ? found->word : 0;
}

static __always_inline struct forwarder forwarder_of(__u32 ifindex)
{
	union forwarder_word word = {.word = forwarder_at(ifindex)};

	return word.forwarder;
}

/* Whether anything is let through: then later fragments are, too, as useless without the first one as those to this
 * host. */
static __always_inline bool forwards_anything(void)
{
	return forward_policy != POLICY_DROP || forwarder_of(0).flags & FORWARDS_ANYTHING;
}

/* What the forward rules of a set say of a packet: a rule, or none, and whether it has a limit. OUTBOUND: of the packet
 * that this one answers. A set of forward rules has the places of ports where others have IPv4 addresses. */
static __always_inline struct decision forward_decision(const struct packet *packet, __u32 set,
							enum direction direction)
{
	const __u32 *peer = direction == INBOUND ? packet->src : packet->dst;
	const __u32 *own = direction == INBOUND ? packet->dst : packet->src;
	__u16 number = direction == INBOUND ? packet->dst_port : packet->src_port;
	enum port_class class = class_of(packet->protocol);
	union answer answer = {};

	if (!uses_forward_rules || !set)
		return answer.decision;
	answer.word = range_value4(set, class != CLASS_NONE ? class * PORTS_PER_CLASS + number
							    : CLASS_SLOTS + packet->protocol);
	for (int i = 0; i < 2 && answer.decision.kind == BY_ADDRESS; i++)
		answer.decision = decision_of(answer.decision.number, packet->family, i ? own : peer);
	return answer.decision;
}

/* Whether a packet begins no connection and asks nothing, so that it may answer one that a rule let through. */
static __always_inline bool answers_something(const struct packet *packet)
{
	if (packet->protocol == PROTO_TCP)
		return !begins_something(packet);
	return !is_icmp(packet) || icmp_query_of_reply(packet->protocol, packet->type);
}

/* Whether a packet goes on with a flow that was begun in its direction, and that has been answered. It moves the flow
 * where it leaves. */
static __always_inline bool goes_on(const struct packet *packet, enum port_class class, __u64 time)
{
	struct flow_key key;
	struct flow *flow;

	if (is_tcp_syn(packet) || (class != CLASS_NONE && !used[port_slot(class, packet->src_port)]))
		return false;
	key = key_of(packet, OUTBOUND);
	flow = flow_at(table_find(&key, hash_of(&key), NO_PLACE));
	return flow && flow_alive(flow, time) && flow->marks & ANSWERED;
}

/* The reason for which a packet that answers nothing is let through or not by who is behind the interface that it came in
 * on, and by the rules there. */
static __always_inline int by_forward_rules(struct packet *packet, struct forwarder forwarder, __u64 time)
{
	struct decision decision = forward_decision(packet, forwarder.set, INBOUND);

	if (decision.number && decision.kind == LETS_IN)
		return RULE_REASON(decision.number);
	if (forwarder.flags & FORWARDER_BEGINS)
		return PASS_FORWARD;
	/* What goes on is not what a limit is for, and outlives the rule by which it began. */
	if (goes_on(packet, class_of(packet->protocol), time))
		return PASS_ESTABLISHED;
	if (!decision.number)
		return DROP_FORWARD;
	if (uses_limits && begins_something(packet) && !is_trusted(packet) &&
	    !limit_admits(packet, decision.number, time)) {
		EXPLAIN(limited, decision.number);
		return DROP_LIMIT;
	}
	return RULE_REASON(decision.number);
}

#endif
