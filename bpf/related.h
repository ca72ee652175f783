/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* ICMP errors: what they quote is a packet that this host, or one behind it, is said to have sent. */
#ifndef PORTCULLIS_RELATED_H
#define PORTCULLIS_RELATED_H

#include "flow.h"
#include "forward.h"
#include "maps.h"
#include "parse.h"
#include "policy.h"
#include "types.h"

static __always_inline bool same_address(const __u32 *a, const __u32 *b, __u8 family)
{
	if (a[0] != b[0])
		return false;
	return family == 4 || (a[1] == b[1] && a[2] == b[2] && a[3] == b[3]);
}

/* Reads the packet that is quoted between two offsets. A subprogram, because it parses a second time and few packets
 * need it. */
static __noinline int parse_quoted(const struct frame *frame, __u32 offset, __u32 limit, __u8 family,
				   struct packet *quoted)
{
	if (family == 4)
		return parse_ipv4(frame, quoted, offset, limit, true);
	return parse_ipv6(frame, quoted, offset, limit, true);
}

/* The key of the same packets where they were begun by the other end. In its place, as there is no stack for another. */
static __always_inline void turn_key(struct flow_key *key)
{
	__u16 port = key->local_port;

	key->local_port = key->remote_port;
	key->remote_port = port;
	for (int i = 0; i < 4; i++) {
		__u32 word = key->local[i];

		key->local[i] = key->remote[i];
		key->remote[i] = word;
	}
}

/* Where an ICMP error goes. */
enum way {
	TO_US,
	INWARD,	 /* in by this interface, to a host behind this one */
	OUTWARD, /* out by this interface, from a host behind this one */
};

/* Whether who has sent a packet that an error quotes needed no flow for it: its port is open, or the forward rules of
 * this interface let it through, or what it answers. */
static __always_inline bool is_open_anyway(const struct packet *quoted, enum way way, __u32 ifindex, __u64 time)
{
	enum direction direction = way == OUTWARD ? INBOUND : OUTBOUND;
	enum port_class class = class_of(quoted->protocol);
	struct port port;

	if (way != TO_US && uses_forward_rules && forward_decision(quoted, forwarder_of(ifindex).set, direction).number)
		return true;
	if (way == INWARD || is_icmp(quoted))
		return false;
	if (class != CLASS_NONE)
		port = port_entry(class, way == TO_US ? quoted->src_port : quoted->dst_port);
	else
		port = protocol_entry(quoted->protocol);
	if (!port.rule && !(port.set && decide(quoted, port.set, direction).number))
		return false;
	return way == TO_US ||
	       is_own(quoted->family, quoted->dst, time); /* published, and its address translated back */
}

/* Whether an ICMP error is about traffic of ours, or of hosts behind us: the quoted packet went from the error's
 * destination (anyone on the path may report), and it belongs to a live flow, or to traffic that keeps none. */
static __always_inline int is_related(const struct frame *frame, const struct packet *error, enum way way,
				      __u32 ifindex, __u64 time)
{
	/* A copy, so that the caller's may stay in registers. */
	struct frame quoting = *frame;
	struct packet quoted = {};
	struct flow_key key;
	struct flow *flow;
	int result;

	result = parse_quoted(&quoting, error->transport + sizeof(struct icmp_header), error->end, error->family,
			      &quoted);
	if (result == PARSE_MORE)
		return PARSE_MORE;
	if (result != PARSED || quoted.fragment == FRAGMENT_LATER)
		return false;
	if (!same_address(quoted.src, error->dst, error->family))
		return false;
	if (is_icmp(&quoted) && !icmp_is_query(quoted.protocol, quoted.type) &&
	    (way == TO_US || !icmp_query_of_reply(quoted.protocol, quoted.type)))
		return false;
	if (is_open_anyway(&quoted, way, ifindex, time))
		return true;
	key = key_of(&quoted, way == OUTWARD ? INBOUND : OUTBOUND);
	flow = flow_at(table_find(&key, hash_of(&key), NO_PLACE));
	if (flow && flow_alive(flow, time))
		return true;
	if (way != INWARD)
		return false;
	/* What a host behind us has answered. */
	turn_key(&key);
	flow = flow_at(table_find(&key, hash_of(&key), NO_PLACE));
	return flow && flow_alive(flow, time);
}

#endif
