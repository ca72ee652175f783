/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* ICMP errors: what they quote is a packet that this host is said to have sent. */
#ifndef PORTCULLIS_RELATED_H
#define PORTCULLIS_RELATED_H

#include "flow.h"
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

/* Whether an ICMP error is about traffic of ours: the quoted packet went from the error's destination (anyone on the
 * path may report), and it belongs to a live flow, or comes from a port of this host that is open, which keeps no
 * flows; `local`: the error is for this host, not for one behind it. */
static __always_inline int is_related(const struct frame *frame, const struct packet *error, bool local, __u64 time)
{
	/* A copy, so that the caller's may stay in registers. */
	struct frame quoting = *frame;
	struct packet quoted = {};
	enum port_class class;
	struct flow_key key;
	struct flow *flow;
	struct port port;
	int result;

	result = parse_quoted(&quoting, error->transport + sizeof(struct icmp_header), error->end, error->family,
			      &quoted);
	if (result == PARSE_MORE)
		return PARSE_MORE;
	if (result != PARSED || quoted.fragment == FRAGMENT_LATER)
		return false;
	if (!same_address(quoted.src, error->dst, error->family))
		return false;

	class = class_of(quoted.protocol);
	if (is_icmp(&quoted)) {
		if (!icmp_is_query(quoted.protocol, quoted.type))
			return false;
	} else if (local) {
		port = class != CLASS_NONE ? port_entry(class, quoted.src_port) : protocol_entry(quoted.protocol);
		if (port.rule)
			return true;
		if (port.set && decide(&quoted, port.set, OUTBOUND).number)
			return true;
	}
	key = key_of(&quoted, OUTBOUND);
	flow = flow_at(table_find(&key, hash_of(&key), NO_PLACE));
	return flow && flow_alive(flow, time);
}

#endif
