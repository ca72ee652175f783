/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What becomes of a packet that comes in: to this host, or through it. */
#ifndef PORTCULLIS_INGRESS_H
#define PORTCULLIS_INGRESS_H

#include "block.h"
#include "config.h"
#include "explain.h"
#include "flow.h"
#include "forward.h"
#include "limit.h"
#include "parse.h"
#include "policy.h"
#include "related.h"
#include "types.h"
#include "verdict.h"

/* What an entry point knows and the core needs. */
struct input {
	void *ctx;
	bool skb; /* what ctx is: struct __sk_buff or xdp_md */
	struct frame frame;
	__u32 ifindex;
	__u64 time;
};

/* Under `log` an invalid packet is told of, and the rest of the policy decides. */
static __always_inline bool invalid_decides(const struct packet *packet)
{
	return packet->invalid && invalid_policy != POLICY_LOG;
}

static __always_inline int invalid_verdict(void)
{
	return invalid_policy == POLICY_ACCEPT ? PASS_INVALID : DROP_INVALID;
}

/* A packet that belongs to no flow. Where all input is accepted, connections that came in have none, and their FIN
 * and RST are none the worse for it. */
static __always_inline enum invalid invalid_without_flow(const struct packet *packet)
{
	if (packet->invalid || input_policy == POLICY_ACCEPT)
		return packet->invalid;
	if (packet->protocol == PROTO_TCP && !is_tcp_syn(packet) &&
	    (packet->tcp_flags & (TCP_ACK | TCP_RST | TCP_SYN | TCP_FIN)) != TCP_ACK)
		return INVALID_STATE;
	if (is_icmp(packet) && icmp_needs_flow(packet->protocol, packet->type))
		return INVALID_ICMP;
	return INVALID_NONE;
}

/* Nothing open, no flow, no exception: the name says what it was. `condition`: why a rule for this port does not let it
 * in, or 0. */
static __always_inline __u32 refuse(struct packet *packet, __u32 condition)
{
	packet->invalid = invalid_without_flow(packet);
	if (invalid_decides(packet))
		return invalid_verdict();
	if (input_policy == POLICY_ACCEPT)
		return PASS_INPUT;
	if (packet->invalid)
		return DROP_INVALID;
	if (condition)
		return condition;
	if (class_of(packet->protocol) != CLASS_NONE)
		return DROP_CLOSED_PORT;
	return DROP_PROTOCOL;
}

/* PASS_ESTABLISHED or PASS_RELATED for an answer, an error or another packet of a flow of ours, PARSED when it is
 * none, or PARSE_MORE. */
static __always_inline int answers(const struct input *input, struct packet *packet, enum way way)
{
	int related;

	if (is_icmp(packet) && icmp_is_error(packet->protocol, packet->type)) {
		related = is_related(&input->frame, packet, way, input->ifindex, input->time);
		return related == true ? PASS_RELATED : related == PARSE_MORE ? PARSE_MORE : PARSED;
	}
	if (is_icmp(packet) && !icmp_query_of_reply(packet->protocol, packet->type))
		return PARSED;
	return flow_admits(packet, class_of(packet->protocol), input->time) ? PASS_ESTABLISHED : PARSED;
}

/* The reason for which a restricted port lets a packet in or not. */
static __always_inline __u32 by_condition(const struct input *input, struct packet *packet, __u32 set)
{
	struct decision decision = decide(packet, set, INBOUND);

	if (!decision.number)
		return DROP_SOURCE;
	if (uses_limits && decision.kind == LIMITED && begins_something(packet) && !is_trusted(packet) &&
	    !limit_admits(packet, decision.number, input->time)) {
		EXPLAIN(limited, decision.number);
		return DROP_LIMIT;
	}
	return RULE_REASON(decision.number);
}

static __always_inline int icmp(const struct input *input, struct packet *packet)
{
	int answer = answers(input, packet, TO_US);
	__u32 condition = DROP_ICMP;
	struct port port;

	EXPLAIN(step, STEP_ICMP);
	if (answer != PARSED)
		return answer;
	packet->invalid = invalid_without_flow(packet);
	if (invalid_decides(packet))
		return invalid_verdict();
	if (is_neighbor_discovery(packet))
		return PASS_NEIGHBOR_DISCOVERY;
	if (icmp_accepted(packet))
		return PASS_ICMP;
	/* A rule for all protocols. */
	port = protocol_entry(packet->protocol);
	if (port.rule)
		return RULE_REASON(port.rule);
	if (port.set) {
		condition = by_condition(input, packet, port.set);
		if (!is_drop(condition))
			return condition;
		if (condition == DROP_SOURCE)
			condition = DROP_ICMP;
	}
	return input_policy == POLICY_ACCEPT ? PASS_INPUT : condition;
}

/* For somebody else: the forward policy and its rules decide alone. Under `accept` there is nothing to ask. */
static __always_inline int forward(const struct input *input, struct packet *packet)
{
	int result;

	EXPLAIN(step, STEP_FORWARD);
	if (forward_policy == POLICY_ACCEPT)
		return PASS_FORWARD;
	if (packet->fragment == FRAGMENT_LATER)
		return forwards_anything() ? PASS_FRAGMENT : DROP_FORWARD;
	result = answers(input, packet, INWARD);
	if (result != PARSED)
		return result;
	return by_forward_rules(packet, forwarder_of(input->ifindex), input->time);
}

/* The reason for which a packet to this host passes or not, or PARSE_MORE. */
static __always_inline int input_verdict(const struct input *input, struct packet *packet)
{
	enum port_class class = class_of(packet->protocol);
	__u32 condition = 0;
	struct port port;

	if (invalid_decides(packet))
		return invalid_verdict();
	if (class != CLASS_NONE)
		port = port_entry(class, packet->dst_port);
	else if (is_icmp(packet))
		return icmp(input, packet);
	else
		port = protocol_entry(packet->protocol);
	/* Open to everybody: no state at all, so a flood of SYNs allocates nothing. */
	if (port.rule)
		return RULE_REASON(port.rule);
	EXPLAIN(step, STEP_FLOW);
	if (flow_admits(packet, class, input->time))
		return PASS_ESTABLISHED;
	EXPLAIN(step, STEP_CONDITION);
	if (port.set) {
		condition = by_condition(input, packet, port.set);
		if (!is_drop(condition))
			return condition;
	}
	if (is_dhcp_answer(packet))
		return PASS_DHCP;
	EXPLAIN(step, STEP_REFUSE);
	return refuse(packet, condition);
}

/* The kind of enum invalid stands above the reason. */
#define KIND_SHIFT 24
#define REASON_MASK 0xffffff

/* The reason for which an inbound frame passes or not, with what is invalid about it, or PARSE_MORE. */
static __always_inline int ingress(const struct input *input)
{
	struct packet packet = {};
	int result;

	EXPLAIN(step, STEP_PARSE);
	result = parse(&input->frame, &packet);
	if (result != PARSED)
		return result;
	EXPLAIN(step, STEP_SOURCE);
	EXPLAIN(packet, packet);
	result = source_verdict(&packet, input->time);
	if (result != PARSED)
		return result;
	if (is_for_other_host(input->ctx, input->skb, input->ifindex, &packet, input->time))
		return forward(input, &packet);
	EXPLAIN(step, STEP_OPEN);
	if (packet.fragment == FRAGMENT_LATER)
		return PASS_FRAGMENT;
	result = input_verdict(input, &packet);
	return result < 0 ? result : result | packet.invalid << KIND_SHIFT;
}

#endif
