/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Packets are shown as they come to whoever looks: up to READERS readers, each of whom is told of what he asks for. That is
 * filtered here, so one packet among millions is found. Of each reason a CPU shows so many a second: a flood of one hides no
 * other. What was asked for and not shown is counted. Nobody is woken for a packet. While nobody looks, a bit says so. */
#ifndef PORTCULLIS_SHOW_H
#define PORTCULLIS_SHOW_H

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "config.h"
#include "count.h"
#include "event.h"
#include "flow.h"
#include "headers.h"
#include "maps.h"
#include "parse.h"
#include "types.h"
#include "verdict.h"

/* The bits of those who want to see drops, among which is what would be dropped, or of those who want to see the rest. */
static __always_inline __u8 readers_of(__u32 reason)
{
	if (dry_run)
		return 0;
	return is_drop(reason) ? state.show_drops : state.show_passes;
}

/* What stands at a place among the headers. */
#define HEADER_AT(showing, place, type) ((type *)&(showing)->headers[BOUNDED(place, READ_BYTES - 1)])

/* Reads the addresses and ports of a packet, as far as they can be read. */
static __always_inline void read_headers(struct showing *s, __u32 length)
{
	__u32 place = 0;
	bool later = false;
	__u8 next;

	s->family = s->protocol = s->has_ports = 0;
	if (ethernet) {
		place = 12;
		for (int i = 0; i < 2; i++) {
			__u16 kind = *HEADER_AT(s, place, __u16);

			if (kind == bpf_htons(ETHERTYPE_VLAN) || kind == bpf_htons(ETHERTYPE_QINQ))
				place += 4;
		}
		place += 2;
	}
	switch (*HEADER_AT(s, place, __u8) >> 4) {
	case 4:
		if (place + sizeof(struct ipv4_header) > length)
			return;
		s->src[0] = *HEADER_AT(s, place + 12, __u32);
		s->dst[0] = *HEADER_AT(s, place + 16, __u32);
		s->src[1] = s->src[2] = s->src[3] = s->dst[1] = s->dst[2] = s->dst[3] = 0;
		next = *HEADER_AT(s, place + 9, __u8);
		later = *HEADER_AT(s, place + 6, __u16) & bpf_htons(0x1fff);
		s->family = 4;
		place += (*HEADER_AT(s, place, __u8) & 0xf) * 4;
		break;
	case 6:
		if (place + sizeof(struct ipv6_header) > length)
			return;
		__builtin_memcpy(s->src, HEADER_AT(s, place + 8, __u32), sizeof(s->src));
		__builtin_memcpy(s->dst, HEADER_AT(s, place + 24, __u32), sizeof(s->dst));
		next = *HEADER_AT(s, place + 6, __u8);
		s->family = 6;
		place += sizeof(struct ipv6_header);
		for (int i = 0; i < MAX_EXTENSIONS && is_extension(next); i++) {
			__u32 words = *HEADER_AT(s, place + 1, __u8);

			if (later || place + 8 > length)
				return;
			if (next == PROTO_FRAGMENT) { /* which has no length */
				words = 0;
				later = *HEADER_AT(s, place + 2, __u16) & bpf_htons(0xfff8);
			}
			next = *HEADER_AT(s, place, __u8);
			place = forget_bounds(place + 8 + words * 8);
		}
		break;
	default:
		return;
	}
	s->protocol = next;
	if (later || class_of(next) == CLASS_NONE || place + 4 > length)
		return;
	s->ports[0] = *HEADER_AT(s, place, __u16);
	s->ports[1] = *HEADER_AT(s, place + 2, __u16);
	s->has_ports = true;
}

static __always_inline bool is_in(const __u32 *address, const __u32 *prefix, const __u32 *mask)
{
	return !((((address[0] & mask[0]) ^ prefix[0]) | ((address[1] & mask[1]) ^ prefix[1])) |
		 (((address[2] & mask[2]) ^ prefix[2]) | ((address[3] & mask[3]) ^ prefix[3])));
}

/* Whether a reader asks for packets of a reason, from an interface. */
static __always_inline bool wants(const struct reader *reader, __u32 reason, __u32 ifindex)
{
	if (reason < RULE_ZERO ? !(reader->reasons >> reason & 1)
			       : reader->rule_reasons != reason && reader->rule_reasons != ANY_RULE)
		return false;
	if (!reader->interfaces[0])
		return true;
	for (int i = 0; i < READER_INTERFACES; i++)
		if (reader->interfaces[i] == ifindex)
			return true;
	return false;
}

static __always_inline bool asks_for_headers(const struct reader *reader)
{
	return reader->family || reader->port || reader->to_port || reader->has_protocol;
}

/* Whether a reader asks for a packet with these headers. What cannot be read is none. */
static __always_inline bool wants_headers(const struct reader *reader, const struct showing *s)
{
	if (reader->family && (s->family != reader->family || !is_in(s->src, reader->from, reader->from_mask) ||
			       !is_in(s->dst, reader->to, reader->to_mask)))
		return false;
	if (reader->has_protocol && (!s->family || s->protocol != reader->protocol))
		return false;
	if (reader->to_port && (!s->has_ports || s->ports[1] != bpf_htons(reader->to_port)))
		return false;
	return !reader->port ||
	       (s->has_ports && (s->ports[0] == bpf_htons(reader->port) || s->ports[1] == bpf_htons(reader->port)));
}

/* The allowance of a reader for a reason, where a packet may be shown now. */
static __always_inline struct allowance *allowance_of(const struct reader *reader, struct showing *s, __u32 slot,
						      __u64 time)
{
	struct allowance *allowance;

	s->place = slot * ALLOWANCES + (s->shown.reason < RULE_ZERO ? s->shown.reason : RULE_ZERO);
	allowance = bpf_map_lookup_elem(&allowances, &s->place);
	if (!allowance)
		return NULL;
	if (time - allowance->renewed >= hz) {
		allowance->renewed = time;
		allowance->left = reader->rate;
	}
	if (!allowance->left) {
		allowance->missed++;
		return NULL;
	}
	allowance->left--;
	return allowance;
}

#define CAPTURED_SHIFT 32 /* BPF_F_CTXLEN_MASK */

/* Shows a packet to one reader, if he asks for it. `skb` tells which of the two contexts ctx is. */
static __always_inline int show_to(void *ctx, bool skb, __u32 slot)
{
	struct showing *s = bpf_map_lookup_elem(&showings, &state.zero);
	struct allowance *allowance;
	struct reader *reader;
	__u64 time = now();
	void *buffers;

	if (!s)
		return 0;
	s->place = slot;
	reader = bpf_map_lookup_elem(&readers, &s->place);
	if (!reader || time >= reader->until || !wants(reader, s->shown.reason, s->shown.ifindex))
		return 0;
	if (asks_for_headers(reader)) {
		if (!s->read) {
			__u32 length = s->shown.length < READ_BYTES ? s->shown.length : READ_BYTES;

			if (!length)
				return 0;
			length = BOUNDED(length - 1, READ_BYTES - 1) + 1;
			if (skb ? bpf_skb_load_bytes(ctx, 0, s->headers, length)
				: bpf_xdp_load_bytes(ctx, 0, s->headers, length))
				return 0;
			read_headers(s, length);
			s->read = true;
		}
		if (!wants_headers(reader, s))
			return 0;
	}
	allowance = allowance_of(reader, s, slot, time);
	if (!allowance)
		return 0;
	s->place = slot;
	buffers = bpf_map_lookup_elem(&reader_buffers, &s->place);
	s->shown.time = bpf_ktime_get_boot_ns();
	s->shown.captured = s->shown.length < reader->snaplen ? s->shown.length : reader->snaplen;
	if (!buffers ||
	    bpf_perf_event_output(ctx, buffers, (__u64)s->shown.captured << CAPTURED_SHIFT | BPF_F_CURRENT_CPU,
				  &s->shown, sizeof(s->shown)))
		allowance->missed++;
	return 0;
}

static __always_inline bool begin_showing(__u32 reason, __u32 ifindex, __u32 length, bool outbound)
{
	struct showing *s = bpf_map_lookup_elem(&showings, &state.zero);

	if (!s)
		return false;
	s->read = false;
	s->shown.reason = reason;
	s->shown.ifindex = ifindex;
	s->shown.length = length;
	s->shown.ethernet = ethernet;
	s->shown.outbound = outbound;
	return true;
}

/* Global functions, so that the verifier walks them once and not behind every path of the packet. */
__noinline int show_to_xdp(struct xdp_md *ctx, __u32 slot)
{
	return show_to(ctx, false, slot);
}
__noinline int show_to_skb(struct __sk_buff *skb, __u32 slot)
{
	return show_to(skb, true, slot);
}

__noinline int show_xdp(struct xdp_md *ctx, __u32 reason)
{
	__u32 looking;

	if (!begin_showing(reason, ctx->ingress_ifindex,
			   multi_buffer ? bpf_xdp_get_buff_len(ctx) : ctx->data_end - ctx->data, false))
		return 0;
	looking = readers_of(verdict_of(reason));
	for (__u32 slot = 0; slot < READERS && looking >> slot; slot++)
		if (looking >> slot & 1)
			show_to_xdp(ctx, slot);
	return 0;
}

__noinline int show_skb(struct __sk_buff *skb, __u32 reason, __u32 outbound)
{
	__u32 looking;

	if (!begin_showing(reason, skb->ifindex, skb->len, outbound))
		return 0;
	looking = readers_of(verdict_of(reason));
	for (__u32 slot = 0; slot < READERS && looking >> slot; slot++)
		if (looking >> slot & 1)
			show_to_skb(skb, slot);
	return 0;
}

/* Whether the policy has packets of a reason in the journal. */
static __always_inline bool is_logged(__u32 reason)
{
	return !dry_run && logged_reasons && reason < RULE_ZERO && logged_reasons >> reason & 1;
}

__noinline int logged_xdp(struct xdp_md *ctx, __u32 reason)
{
	log_frame(&journal, 1 + reason, ctx, false, ctx->ingress_ifindex,
		  multi_buffer ? bpf_xdp_get_buff_len(ctx) : ctx->data_end - ctx->data, reason, now());
	return 0;
}

__noinline int logged_skb(struct __sk_buff *skb, __u32 reason)
{
	log_frame(&journal, 1 + reason, skb, true, skb->ifindex, skb->len, reason, now());
	return 0;
}

/* `watched` is WATCHED_SHIFT where the packet would be dropped for the reason, else 0. */
static __always_inline void tell_xdp(struct xdp_md *ctx, __u32 reason, __u32 watched)
{
	if (is_logged(reason))
		logged_xdp(ctx, reason + watched);
	if (readers_of(reason))
		show_xdp(ctx, reason + watched);
}

static __always_inline void tell_skb(struct __sk_buff *skb, __u32 reason, __u32 watched, bool outbound)
{
	if (is_logged(reason))
		logged_skb(skb, reason + watched);
	if (readers_of(reason))
		show_skb(skb, reason + watched, outbound);
}

#endif
