/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What a packet makes of a flow. Timeouts and states are netfilter's (nf_conntrack_proto_*.c), with one difference on
 * purpose: what arrives may lengthen a flow's life but not shorten it, because it may be forged. */
#ifndef PORTCULLIS_STATE_H
#define PORTCULLIS_STATE_H

#include "config.h"
#include "parse.h"
#include "tcp.h"
#include "timeout.h"
#include "types.h"

enum sctp_chunk {
	SCTP_INIT = 1,
	SCTP_ABORT = 6,
	SCTP_SHUTDOWN_COMPLETE = 14,
};

/* The state in which a packet of ours begins a flow, or FLOW_NONE when it begins none. */
static __always_inline enum flow_state flow_first_state(const struct packet *packet)
{
	switch (packet->protocol) {
	case PROTO_TCP:
		if (packet->invalid)
			return FLOW_NONE;
		switch (tcp_kind_of(packet->tcp_flags)) {
		case TCP_KIND_SYN:
			return FLOW_TCP_SYN_SENT;
		case TCP_KIND_ACK:
			return FLOW_TCP_LOOSE;
		default:
			return FLOW_NONE;
		}
	case PROTO_UDP:
	case PROTO_UDPLITE:
		return FLOW_UDP;
	case PROTO_SCTP:
		if (packet->type == SCTP_ABORT || packet->type == SCTP_SHUTDOWN_COMPLETE)
			return FLOW_NONE;
		return FLOW_SCTP_NEW;
	case PROTO_ICMP:
	case PROTO_ICMPV6:
		return icmp_is_query(packet->protocol, packet->type) ? FLOW_ICMP : FLOW_NONE;
	case PROTO_GRE:
		return FLOW_GRE;
	}
	return FLOW_OTHER;
}

/* The flow that a packet of ours begins. */
static __always_inline struct flow flow_of(const struct packet *packet, enum flow_state first, __u64 time)
{
	struct flow flow = {
		.expires = time + timeout_of(first),
		.created = time >> CREATED_SHIFT,
		.state = first,
	};

	if (packet->protocol == PROTO_TCP) {
		flow.ack = packet->tcp_flags & TCP_ACK ? packet->ack : 0;
		flow.end = tcp_end(packet);
		flow.marks = NUMBERED | (packet->payload ? UNACKED : 0);
	}
	return flow;
}

static __always_inline __u32 flow_age(const struct flow *flow, __u64 time)
{
	return (__u32)(time >> CREATED_SHIFT) - flow->created;
}

/* A UDP flow that is answered and older is a stream. Netfilter asks only of UDP how old it is. */
static __always_inline bool udp_is_stream(const struct flow *flow, const struct packet *packet, __u64 time)
{
	return flow->marks & ANSWERED &&
	       (packet->protocol == PROTO_UDPLITE || flow_age(flow, time) > UDP_STREAM_AGE >> CREATED_SHIFT);
}

/* The first answer makes no stream yet: it takes a packet after it, as with netfilter. */
static __always_inline void flow_stream(struct flow *flow, const struct packet *packet, __u64 time)
{
	if (packet->protocol == PROTO_GRE ? flow->state != FLOW_GRE || !(flow->marks & ANSWERED)
					  : flow->state != FLOW_UDP || !udp_is_stream(flow, packet, time))
		return;
	flow->state = packet->protocol == PROTO_GRE ? FLOW_GRE_STREAM : FLOW_UDP_STREAM;
	flow->marks |= ASSURED;
}

/* False: the packet begins a flow of its own. */
static __always_inline bool flow_outbound(struct flow *flow, const struct packet *packet, __u64 time)
{
	switch (packet->protocol) {
	case PROTO_TCP:
		return tcp_outbound(flow, packet, time);
	case PROTO_SCTP:
		if (packet->type == SCTP_ABORT || packet->type == SCTP_SHUTDOWN_COMPLETE) {
			flow_enter(flow, FLOW_SCTP_CLOSED, time);
			return true;
		}
		if (packet->type == SCTP_INIT && (flow->state == FLOW_SCTP_NEW || flow->state == FLOW_SCTP_CLOSED)) {
			flow->state = FLOW_SCTP_NEW;
			return true; /* an INIT sent again does not renew */
		}
		break;
	case PROTO_UDP:
	case PROTO_UDPLITE:
	case PROTO_GRE:
		flow_stream(flow, packet, time);
		break;
	}
	flow_refresh(flow, time);
	return true;
}

/* Whether a packet that comes in belongs to the flow. */
static __always_inline bool flow_inbound(struct flow *flow, struct packet *packet, __u64 time)
{
	if (packet->protocol == PROTO_TCP)
		return tcp_inbound(flow, packet, time);
	switch (packet->protocol) {
	case PROTO_UDP:
	case PROTO_UDPLITE:
		if (packet->invalid)
			return false;
		flow_stream(flow, packet, time);
		break;
	case PROTO_GRE:
		flow_stream(flow, packet, time);
		break;
	case PROTO_SCTP:
		if (packet->invalid)
			return false;
		if (flow->state == FLOW_SCTP_NEW) {
			flow_enter(flow, FLOW_SCTP_ESTABLISHED, time);
			flow->marks |= ASSURED;
		}
		break;
	}
	flow_refresh(flow, time);
	return true;
}

#endif
