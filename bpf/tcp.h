/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The state machine of TCP, as tables to be laid beside netfilter's (tcp_conntracks in nf_conntrack_proto_tcp.c). Rows
 * are what a segment carries, columns the state that it meets. Where a cell differs from netfilter's, it is because what
 * comes in may be forged: it may lengthen a flow's life but not shorten it. What this host sends is believed. */
#ifndef PORTCULLIS_TCP_H
#define PORTCULLIS_TCP_H

#include "config.h"
#include "timeout.h"
#include "types.h"

enum tcp_kind {
	TCP_KIND_SYN,
	TCP_KIND_SYNACK,
	TCP_KIND_FIN,
	TCP_KIND_ACK,
	TCP_KIND_RST, /* has no row: see tcp_reset_ours and tcp_reset_theirs */
	TCP_KINDS = TCP_KIND_RST,
};

/* The columns: the states, and two of them once more with a mark that makes another state of them. */
enum tcp_column {
	COLUMN_SYN_SENT,
	COLUMN_SYN_RECV,
	COLUMN_ESTABLISHED,
	COLUMN_FIN_WAIT,
	COLUMN_CLOSE_WAIT,
	COLUMN_LAST_ACK,
	COLUMN_TIME_WAIT,
	COLUMN_CLOSE,
	COLUMN_LOOSE,
	COLUMN_SYN_SENT2,   /* SYN_SENT after SYN_THEIRS */
	COLUMN_PEER_CLOSED, /* ESTABLISHED after FIN_THEIRS */
	TCP_COLUMNS = 16,
};

/* The cells: the state that the flow enters, or stays in with its end put off, or one of these. */
enum tcp_cell {
	IG = 0x80, /* the segment belongs to the flow, which stays as it is */
	IV,	   /* it contradicts the flow: netfilter's INVALID */
	NW,	   /* it begins a connection of its own */
};

#define SS FLOW_TCP_SYN_SENT
#define SR FLOW_TCP_SYN_RECV
#define ES FLOW_TCP_ESTABLISHED
#define FW FLOW_TCP_FIN_WAIT
#define CW FLOW_TCP_CLOSE_WAIT
#define LA FLOW_TCP_LAST_ACK
#define TW FLOW_TCP_TIME_WAIT
#define CL FLOW_TCP_CLOSE
#define LO FLOW_TCP_LOOSE

/* What we send. SYN: IG is netfilter's, too: the SYN is noted, and a SYN-ACK to it begins the flow anew. A SYN-ACK of
 * ours without their SYN is nothing that a flow is about. ACK in CLOSE: whoever speaks has not been reset. */
/* clang-format off */
static const __u8 tcp_sent[TCP_KINDS][TCP_COLUMNS] = {
	/*                   SS  SR  ES  FW  CW  LA  TW  CL  LO  S2  PC */
	[TCP_KIND_SYN]    = {SS, IG, IG, IG, IG, IG, NW, NW, IG, IG, IG},
	[TCP_KIND_SYNACK] = {IG, IG, IG, IG, IG, IG, IG, IG, IG, SR, IG},
	[TCP_KIND_FIN]    = {IG, FW, FW, FW, FW, LA, TW, CL, FW, IG, LA},
	[TCP_KIND_ACK]    = {IG, ES, ES, FW, CW, TW, TW, LO, LO, IG, ES},
};
/* clang-format on */

/* What comes in. FIN: until our own FIN it is only marked, as a forged one may shorten nothing. */
/* clang-format off */
static const __u8 tcp_received[TCP_KINDS][TCP_COLUMNS] = {
	/*                   SS  SR  ES  FW  CW  LA  TW  CL  LO  S2  PC */
	[TCP_KIND_SYN]    = {IG, IV, IV, IV, IV, IV, NW, IV, IV, IG, IV},
	[TCP_KIND_SYNACK] = {SR, IG, IG, IG, IG, IG, IG, IG, IG, SR, IG},
	[TCP_KIND_FIN]    = {IV, IG, IG, TW, TW, LA, TW, CL, ES, IV, IG},
	[TCP_KIND_ACK]    = {IG, SR, ES, CW, CW, TW, TW, CL, ES, IG, ES},
};
/* clang-format on */

#undef SS
#undef SR
#undef ES
#undef FW
#undef CW
#undef LA
#undef TW
#undef CL
#undef LO

static __always_inline __u32 tcp_column(const struct flow *flow)
{
	if (flow->state == FLOW_TCP_SYN_SENT && flow->marks & SYN_THEIRS)
		return COLUMN_SYN_SENT2;
	if (flow->state == FLOW_TCP_ESTABLISHED && flow->marks & FIN_THEIRS)
		return COLUMN_PEER_CLOSED;
	return flow->state - FLOW_TCP_SYN_SENT;
}

static __always_inline enum tcp_kind tcp_kind_of(__u8 flags)
{
	if (flags & TCP_RST)
		return TCP_KIND_RST;
	if (flags & TCP_SYN)
		return flags & TCP_ACK ? TCP_KIND_SYNACK : TCP_KIND_SYN;
	return flags & TCP_FIN ? TCP_KIND_FIN : TCP_KIND_ACK;
}

static __always_inline __u8 tcp_cell(const __u8 (*table)[TCP_COLUMNS], enum tcp_kind kind, const struct flow *flow)
{
	__u64 column = BOUNDED(tcp_column(flow), TCP_COLUMNS - 1);

	return table[BOUNDED(kind, TCP_KINDS - 1)][column];
}

static __always_inline bool is_tcp_syn(const struct packet *packet)
{
	return packet->protocol == PROTO_TCP && !packet->invalid &&
	       (packet->tcp_flags & (TCP_SYN | TCP_ACK | TCP_RST | TCP_FIN)) == TCP_SYN;
}

/* Enters a state, or puts its end off. */
static __always_inline void tcp_move(struct flow *flow, __u8 next, __u64 time)
{
	__u8 before = flow->state;

	/* A connection that was opened in both directions, or picked up and answered. */
	if (next == FLOW_TCP_ESTABLISHED && (before == FLOW_TCP_SYN_RECV || before == FLOW_TCP_ESTABLISHED) &&
	    (flow->marks & (ANSWERED | ASSURED)) == ANSWERED)
		flow->marks |= ASSURED;
	if (next == before)
		flow_refresh(flow, time);
	else
		flow_enter(flow, next, time);
}

/* Whether sequence number `a` comes after `b`, modulo 2^32. */
static __always_inline bool is_after(__u32 a, __u32 b)
{
	return (__s32)(a - b) > 0;
}

static __always_inline __u32 tcp_end(const struct packet *packet)
{
	return packet->seq + packet->payload + !!(packet->tcp_flags & TCP_SYN) + !!(packet->tcp_flags & TCP_FIN);
}

/* How far before the end of what we sent an acknowledgement may be: netfilter's MAXACKWINDOW. */
#define ACK_WINDOW 66000

/* While we wait for a SYN-ACK, a RST of ours with the number that somebody acknowledged answers what was forged, or is
 * of an old connection: the SYN stays, and the SYN-ACK to it will come. */
static __always_inline bool answers_a_stray(const struct flow *flow, const struct packet *packet)
{
	return flow->state == FLOW_TCP_SYN_SENT && !(packet->tcp_flags & TCP_ACK) &&
	       flow->end - packet->seq > ACK_WINDOW;
}

/* A RST of ours ends the connection. */
static __always_inline void tcp_reset_ours(struct flow *flow, const struct packet *packet, __u64 time)
{
	if (answers_a_stray(flow, packet))
		return;
	flow_enter(flow, FLOW_TCP_CLOSE, time);
	flow->marks |= RST_OURS;
	if (!(flow->marks & ANSWERED))
		flow->expires = time; /* there is nothing to wind down */
}

/* How far after our last acknowledgement a RST may be for the socket to take it: more than any stack leaves
 * unacknowledged, and a small part of all numbers. */
#define RESET_WINDOW (1 << 20)

/* A RST at exactly the number that we wait for ends the connection (RFC 5961). One in the window may be real, when data
 * before it has not been acknowledged yet, or forged; then the socket answers it. So the flow lives for as long as
 * netfilter leaves an unacknowledged one, unless this host speaks again. */
static __always_inline void tcp_reset_theirs(struct flow *flow, const struct packet *packet, __u64 time)
{
	__u64 end = time + timeout_of(FLOW_TCP_UNACKNOWLEDGED);

	if (flow->state == FLOW_TCP_SYN_SENT) {
		flow->marks |= RST_THEIRS; /* our next SYN is a connection of its own */
		return;
	}
	if (!flow->ack)
		return;
	if (packet->seq == flow->ack) {
		flow_enter(flow, FLOW_TCP_CLOSE, time);
	} else if (packet->seq - flow->ack < RESET_WINDOW) {
		flow->marks |= RST_THEIRS;
		if (flow->expires > end)
			flow->expires = end;
	}
}

/* Notes what the peer has to answer: data, and the second segment in a row that is not behind all others, which is sent
 * again or a probe. While nothing answers, the end of the flow is near: the peer may be gone, and the socket dies without
 * a word. */
static __always_inline void tcp_number(struct flow *flow, const struct packet *packet, __u64 time)
{
	__u32 end = tcp_end(packet);
	bool again = flow->marks & NUMBERED && end != flow->end && !is_after(end, flow->end);

	if (!again) {
		flow->end = end;
		flow->marks |= NUMBERED;
	}
	if ((!again && end == packet->seq) || flow->marks & UNACKED)
		return;
	if (again && !packet->payload && !(flow->marks & PROBED)) {
		flow->marks |= PROBED;
		return;
	}
	flow->marks |= UNACKED;
	flow->expires = time + flow_timeout(flow);
}

/* A SYN of ours in a flow that is alive. False: it begins a flow of its own. */
static __always_inline bool tcp_syn_again(struct flow *flow, const struct packet *packet, __u8 cell)
{
	bool refused = cell == FLOW_TCP_SYN_SENT && flow->marks & RST_THEIRS;
	bool closed = cell == NW && flow->marks & (FIN_OURS | FIN_THEIRS | RST_OURS);

	if (refused || closed)
		return false;
	if (flow->state != FLOW_TCP_SYN_SENT)
		flow->marks |= SYN_AGAIN;
	flow->end = tcp_end(packet);
	return true; /* a SYN sent again does not renew */
}

/* A segment of ours in a flow that is alive. False: it is a SYN that begins a flow of its own. */
static __always_inline bool tcp_outbound(struct flow *flow, const struct packet *packet, __u64 time)
{
	enum tcp_kind kind = tcp_kind_of(packet->tcp_flags);
	__u8 cell;

	if (packet->invalid)
		return true;
	if (packet->tcp_flags & TCP_ACK)
		flow->ack = packet->ack;
	if (kind == TCP_KIND_RST) {
		tcp_reset_ours(flow, packet, time);
		return true;
	}
	cell = tcp_cell(tcp_sent, kind, flow);
	if (kind == TCP_KIND_SYN)
		return tcp_syn_again(flow, packet, cell);
	if (flow->marks & RST_THEIRS && flow->state != FLOW_TCP_SYN_SENT)
		flow->marks &= ~RST_THEIRS;
	if (kind == TCP_KIND_FIN)
		flow->marks |= FIN_OURS;
	if (cell < IG)
		tcp_move(flow, cell, time);
	if (kind != TCP_KIND_SYNACK && flow->state != FLOW_TCP_SYN_SENT)
		tcp_number(flow, packet, time);
	return true;
}

/* A SYN-ACK may not acknowledge what we have not sent. One of long ago changes nothing, and the one to a SYN that we
 * sent within an old connection begins the flow anew. */
static __always_inline bool tcp_synack_theirs(struct flow *flow, struct packet *packet, __u8 cell, __u64 time)
{
	if (cell == FLOW_TCP_SYN_RECV && is_after(packet->ack, flow->end)) {
		packet->invalid = INVALID_STATE;
		return false;
	}
	if (cell == FLOW_TCP_SYN_RECV && flow->end - packet->ack > ACK_WINDOW)
		return true;
	if (flow->marks & SYN_AGAIN && packet->ack == flow->end) {
		flow->marks &= ANSWERED | ASSURED | NUMBERED;
		cell = FLOW_TCP_SYN_RECV;
	}
	if (cell == FLOW_TCP_SYN_RECV)
		flow_enter(flow, FLOW_TCP_SYN_RECV, time);
	return true;
}

/* Whether a segment that comes in belongs to the flow. */
static __always_inline bool tcp_inbound(struct flow *flow, struct packet *packet, __u64 time)
{
	enum tcp_kind kind = tcp_kind_of(packet->tcp_flags);
	__u8 cell;

	if (packet->invalid)
		return false;
	if (flow->marks & RST_OURS)
		flow->marks &= ~RST_OURS;
	if (kind == TCP_KIND_RST) {
		tcp_reset_theirs(flow, packet, time);
		return true;
	}
	cell = tcp_cell(tcp_received, kind, flow);
	if (cell == IV && kind == TCP_KIND_SYN)
		packet->invalid = INVALID_STATE;
	if (cell == IV || cell == NW)
		return false;
	switch (kind) {
	case TCP_KIND_SYNACK:
		return tcp_synack_theirs(flow, packet, cell, time);
	case TCP_KIND_SYN:
		flow->marks |= SYN_THEIRS;
		return true;
	case TCP_KIND_FIN:
		flow->marks |= FIN_THEIRS;
		break;
	default:
		break;
	}
	if (flow->marks & (UNACKED | PROBED) && packet->tcp_flags & TCP_ACK && !is_after(flow->end, packet->ack)) {
		flow->marks &= ~(UNACKED | PROBED);
		flow->expires = time + flow_timeout(flow);
	}
	if (cell < IG)
		tcp_move(flow, cell, time);
	return true;
}

#endif
