/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What a packet makes of a flow. Timeouts and states are netfilter's (nf_conntrack_proto_*.c), with one difference on
 * purpose: what arrives may lengthen a flow's life but not shorten it, because it may be forged. Our own FIN and RST end
 * a flow, and so does a peer's RST at exactly the sequence number that we wait for (RFC 5961). */
#ifndef PORTCULLIS_STATE_H
#define PORTCULLIS_STATE_H

#include "config.h"
#include "parse.h"
#include "types.h"

enum sctp_chunk {
	SCTP_INIT = 1,
	SCTP_ABORT = 6,
	SCTP_SHUTDOWN_COMPLETE = 14,
};

static __always_inline __u32 timeout_of(__u8 flow_state)
{
	return timeouts[BOUNDED(flow_state, TIMEOUT_SLOTS - 1)];
}

static __always_inline void flow_enter(struct flow *flow, __u8 flow_state, __u64 time)
{
	flow->state = flow_state;
	flow->expires = time + timeout_of(flow_state);
}

/* Puts the end off, but writes only when an eighth of the timeout has gone: the entry stays clean in the caches. */
static __always_inline void flow_refresh(struct flow *flow, __u64 time)
{
	__u32 timeout = timeout_of(flow->state);

	if ((__s64)(time + timeout - flow->expires) > timeout >> 3)
		flow->expires = time + timeout;
}

/* The state in which a packet of ours begins a flow, or FLOW_NONE when it begins none. */
static __always_inline enum flow_state flow_first_state(const struct packet *packet)
{
	switch (packet->protocol) {
	case PROTO_TCP:
		if (packet->invalid)
			return FLOW_NONE;
		switch (packet->tcp_flags & (TCP_SYN | TCP_ACK | TCP_RST | TCP_FIN)) {
		case TCP_SYN:
			return FLOW_TCP_SYN_SENT;
		case TCP_ACK:
			return FLOW_TCP_LOOSE;
		}
		return FLOW_NONE;
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

static __always_inline bool is_tcp_syn(const struct packet *packet)
{
	return packet->protocol == PROTO_TCP && !packet->invalid &&
	       (packet->tcp_flags & (TCP_SYN | TCP_ACK | TCP_RST | TCP_FIN)) == TCP_SYN;
}

static __always_inline void tcp_outbound(struct flow *flow, const struct packet *packet, __u64 time)
{
	__u8 flags = packet->tcp_flags;

	if (packet->invalid)
		return;
	if (flags & TCP_ACK)
		flow->ack = packet->ack;
	if (flags & TCP_RST) {
		flow_enter(flow, FLOW_TCP_CLOSE, time);
		flow->ending |= RST_OURS;
		if (!flow->answered)
			flow->expires = time; /* there is nothing to wind down */
		return;
	}
	if (flags & TCP_SYN) {
		if (flags & TCP_ACK && flow->state == FLOW_TCP_SYN_SENT && flow->ending & SYN_THEIRS)
			flow_enter(flow, FLOW_TCP_SYN_RECV, time);
		return; /* a SYN sent again does not renew */
	}
	if (flow->state == FLOW_TCP_SYN_SENT)
		return; /* no stack sends it */
	if (flags & TCP_FIN) {
		flow->ending |= FIN_OURS;
		if (flow->state != FLOW_TCP_TIME_WAIT && flow->state != FLOW_TCP_CLOSE)
			flow_enter(flow, flow->ending & FIN_THEIRS ? FLOW_TCP_LAST_ACK : FLOW_TCP_FIN_WAIT, time);
		return;
	}
	switch (flow->state) {
	case FLOW_TCP_SYN_RECV:
		flow_enter(flow, FLOW_TCP_ESTABLISHED, time);
		return;
	case FLOW_TCP_FIN_WAIT:
	case FLOW_TCP_CLOSE_WAIT:
		if (flow->ending & FIN_THEIRS) {
			flow_enter(flow, FLOW_TCP_TIME_WAIT, time);
			return;
		}
		break;
	}
	flow_refresh(flow, time);
}

/* Whether the packet belongs to the flow. */
static __always_inline bool tcp_inbound(struct flow *flow, struct packet *packet, __u64 time)
{
	__u8 flags = packet->tcp_flags;

	if (packet->invalid)
		return false;
	if (flow->state == FLOW_TCP_CLOSE)
		flow->ending &= ~RST_OURS;
	if (flags & TCP_SYN) {
		if (!(flags & TCP_ACK)) {
			if (flow->state == FLOW_TCP_SYN_SENT) {
				flow->ending |= SYN_THEIRS;
				return true;
			}
			if (flow->state != FLOW_TCP_TIME_WAIT) /* there it is a new connection */
				packet->invalid = INVALID_STATE;
			return false;
		}
		if (flow->state == FLOW_TCP_SYN_SENT)
			flow_enter(flow, FLOW_TCP_SYN_RECV, time);
		return true;
	}
	if (flags & TCP_RST) {
		if (flow->state != FLOW_TCP_SYN_SENT && packet->seq == flow->ack && flow->ack)
			flow_enter(flow, FLOW_TCP_CLOSE, time);
		return true;
	}
	if (flags & TCP_FIN) {
		if (flow->state == FLOW_TCP_SYN_SENT)
			return false;
		flow->ending |= FIN_THEIRS;
		if (flow->state == FLOW_TCP_FIN_WAIT || flow->state == FLOW_TCP_CLOSE_WAIT)
			flow_enter(flow, FLOW_TCP_TIME_WAIT, time);
		else if (flow->state == FLOW_TCP_LOOSE)
			flow_enter(flow, FLOW_TCP_ESTABLISHED, time);
		return true;
	}
	switch (flow->state) {
	case FLOW_TCP_SYN_SENT:
		return true;
	case FLOW_TCP_LOOSE:
		flow_enter(flow, FLOW_TCP_ESTABLISHED, time);
		return true;
	case FLOW_TCP_FIN_WAIT:
		flow_enter(flow, FLOW_TCP_CLOSE_WAIT, time);
		return true;
	case FLOW_TCP_LAST_ACK:
		flow_enter(flow, FLOW_TCP_TIME_WAIT, time);
		return true;
	}
	flow_refresh(flow, time);
	return true;
}

static __always_inline void flow_outbound(struct flow *flow, const struct packet *packet, __u64 time)
{
	switch (packet->protocol) {
	case PROTO_TCP:
		tcp_outbound(flow, packet, time);
		return;
	case PROTO_SCTP:
		if (packet->type == SCTP_ABORT || packet->type == SCTP_SHUTDOWN_COMPLETE) {
			flow_enter(flow, FLOW_SCTP_CLOSED, time);
			return;
		}
		if (packet->type == SCTP_INIT && (flow->state == FLOW_SCTP_NEW || flow->state == FLOW_SCTP_CLOSED)) {
			flow->state = FLOW_SCTP_NEW;
			return; /* an INIT sent again does not renew */
		}
		break;
	case PROTO_UDP:
		if (flow->answered && flow->state == FLOW_UDP && time - flow->created > UDP_STREAM_AGE)
			flow->state = FLOW_UDP_STREAM;
		break;
	case PROTO_UDPLITE:
		if (flow->answered)
			flow->state = FLOW_UDP_STREAM;
		break;
	case PROTO_GRE:
		if (flow->answered)
			flow->state = FLOW_GRE_STREAM;
		break;
	}
	flow_refresh(flow, time);
}

/* The first answer makes no stream yet: it takes a packet after it, as with netfilter. */
static __always_inline bool flow_inbound(struct flow *flow, struct packet *packet, __u64 time)
{
	switch (packet->protocol) {
	case PROTO_TCP:
		return tcp_inbound(flow, packet, time);
	case PROTO_UDP:
	case PROTO_UDPLITE:
		if (packet->invalid)
			return false;
		/* Netfilter asks only of UDP how old it is. */
		if (flow->answered && (packet->protocol == PROTO_UDPLITE ||
				       (flow->state == FLOW_UDP && time - flow->created > UDP_STREAM_AGE)))
			flow->state = FLOW_UDP_STREAM;
		break;
	case PROTO_SCTP:
		if (packet->invalid)
			return false;
		if (flow->state == FLOW_SCTP_NEW)
			flow_enter(flow, FLOW_SCTP_ESTABLISHED, time);
		break;
	case PROTO_GRE:
		if (flow->answered)
			flow->state = FLOW_GRE_STREAM;
		break;
	}
	flow_refresh(flow, time);
	return true;
}

static __always_inline bool flow_alive(const struct flow *flow, __u64 time)
{
	return time < flow->expires && flow->state != FLOW_KILLED;
}

#endif
