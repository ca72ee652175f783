/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* How a rejected packet becomes the answer to it, byte by byte: see reject.h. */
#ifndef PORTCULLIS_ANSWER_H
#define PORTCULLIS_ANSWER_H

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "config.h"
#include "headers.h"
#include "maps.h"
#include "parse.h"
#include "types.h"

#define ANSWER_TTL 64

/* How long an ICMP error may be: RFC 1812, 4.3.2.3, and RFC 4443, 3.1. */
#define ICMP4_LONGEST 576
#define ICMP6_LONGEST 1280

/* linux/icmp.h, linux/icmpv6.h */
#define ICMP4_UNREACHABLE 3
#define ICMP4_PORT_UNREACHABLE 3
#define ICMP6_UNREACHABLE 1
#define ICMP6_PORT_UNREACHABLE 4
#define TOS_MASK 0x1e
#define TOS_INTERNETCONTROL 0xc0

static __always_inline __u32 ip_length(const struct packet *packet)
{
	return packet->family == 4 ? sizeof(struct ipv4_header) : sizeof(struct ipv6_header);
}

/* How many bytes of the frame, from its IP header on, an ICMP error quotes. */
static __always_inline __u32 quoted_length(const struct rejection *r)
{
	__u32 length = r->packet.end - r->link_length, most;

	most = (r->packet.family == 4 ? ICMP4_LONGEST : ICMP6_LONGEST) - ip_length(&r->packet) -
	       sizeof(struct icmp_header);
	return length < most ? length : most;
}

static __always_inline __u16 folded(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

/* Both ways it is the same. */
static __always_inline __u64 pseudo_header(const struct packet *packet, __u8 protocol, __u32 length)
{
	__u64 sum = bpf_htonl(length) + (__u64)bpf_htonl(protocol);

	for (int i = 0; i < 4; i++)
		sum += (__u64)packet->src[i] + packet->dst[i];
	return sum;
}

/* What stands in the checksum's place as long as the sum is left to a network card. Whoever hands such a packet to its
 * device completes it on the way, and the answer's in the same place. A whole checksum that happens to look so costs
 * an answer. */
static __always_inline __u16 unfinished_sum(const struct frame *frame, const struct packet *packet)
{
	__u16 sum;

	if (packet->protocol == PROTO_TCP) {
		struct tcp_header *tcp = HEADER(frame, packet->transport, struct tcp_header);

		sum = tcp ? tcp->checksum : 0;
	} else if (packet->protocol == PROTO_UDP) {
		struct udp_header *udp = HEADER(frame, packet->transport, struct udp_header);

		sum = udp ? udp->checksum : 0;
	} else {
		return 0;
	}
	return sum == folded(pseudo_header(packet, packet->protocol, packet->end - packet->transport)) ? sum : 0;
}

/* Writes the answer's link and IP headers over the beginning of the frame. `length` is what follows them. */
static __always_inline bool write_headers(const struct frame *frame, const struct rejection *r, __u8 protocol,
					  __u32 length, __u8 tos, bool whole)
{
	const struct packet *packet = &r->packet;

	for (__u32 i = 0; i < LONGEST_LINK / 2; i++) {
		__u16 *pair;

		if (i * 2 >= r->link_length)
			break;
		pair = HEADER(frame, i * 2, __u16);
		if (!pair)
			return false;
		*pair = r->link[i];
	}
	if (packet->family == 4) {
		struct ipv4_header *ip = HEADER(frame, r->link_length, struct ipv4_header);
		__u32 *words = (void *)ip;
		__u64 sum = 0;

		if (!ip)
			return false;
		ip->version_ihl = 0x45;
		ip->tos = tos;
		ip->total_length = bpf_htons(sizeof(*ip) + length);
		ip->id = 0;
		ip->fragment = whole ? bpf_htons(IPV4_DONT_FRAGMENT) : 0;
		ip->ttl = ANSWER_TTL;
		ip->protocol = protocol;
		ip->checksum = 0;
		ip->src = packet->dst[0];
		ip->dst = packet->src[0];
		for (__u32 i = 0; i < sizeof(*ip) / sizeof(*words); i++)
			sum += words[i];
		ip->checksum = ~folded(sum);
	} else {
		struct ipv6_header *ip = HEADER(frame, r->link_length, struct ipv6_header);

		if (!ip)
			return false;
		ip->version_class_flow = bpf_htonl(6 << 28);
		ip->payload_length = bpf_htons(length);
		ip->next_header = protocol;
		ip->hop_limit = ANSWER_TTL;
		__builtin_memcpy(ip->src, packet->dst, sizeof(ip->src));
		__builtin_memcpy(ip->dst, packet->src, sizeof(ip->dst));
	}
	return true;
}

/* The frame becomes a RST (RFC 9293, 3.10.7.1). Behind the headers it has its new length already. */
static __always_inline bool write_reset(const struct frame *frame, const struct rejection *r)
{
	const struct packet *packet = &r->packet;
	struct tcp_header *tcp = HEADER(frame, r->link_length + ip_length(packet), struct tcp_header);
	__u32 *words = (void *)tcp;
	__u64 sum;

	if (!tcp || !write_headers(frame, r, PROTO_TCP, sizeof(*tcp), 0, true))
		return false;
	__builtin_memset(tcp, 0, sizeof(*tcp));
	tcp->src = bpf_htons(packet->dst_port);
	tcp->dst = bpf_htons(packet->src_port);
	tcp->offset = sizeof(*tcp) / 4 << 4;
	if (packet->tcp_flags & TCP_ACK) {
		tcp->seq = bpf_htonl(packet->ack);
		tcp->flags = TCP_RST;
	} else {
		tcp->ack = bpf_htonl(packet->seq + packet->payload + !!(packet->tcp_flags & TCP_SYN) +
				     !!(packet->tcp_flags & TCP_FIN));
		tcp->flags = TCP_RST | TCP_ACK;
	}
	sum = pseudo_header(packet, PROTO_TCP, sizeof(*tcp));
	if (r->unfinished) {
		tcp->checksum = folded(sum);
		return true;
	}
	for (__u32 i = 0; i < sizeof(*tcp) / sizeof(*words); i++)
		sum += words[i];
	tcp->checksum = ~folded(sum);
	return true;
}

/* The sum of the frame's bytes from one offset to another, eight at a time: the verifier walks each turn. */
static __always_inline __u64 sum_of(const struct frame *frame, __u32 at, __u32 to)
{
	struct eight {
		__u32 words[2];
	} *eight;
	__u64 sum = 0;
	__u16 *pair;
	__u8 *last;

	for (int i = 0; i < ICMP6_LONGEST / 8 && at + sizeof(*eight) <= to; i++, at += sizeof(*eight)) {
		eight = HEADER(frame, at, struct eight);
		if (!eight)
			return 0;
		sum += (__u64)eight->words[0] + eight->words[1];
	}
	for (int i = 0; i < 3 && at + sizeof(*pair) <= to; i++, at += sizeof(*pair)) {
		pair = HEADER(frame, at, __u16);
		if (!pair)
			return 0;
		sum += *pair;
	}
	last = at < to ? HEADER(frame, at, __u8) : NULL;
	return last ? sum + bpf_htons(*last << 8) : sum;
}

/* The frame becomes an ICMP error. It has grown at its beginning by the headers, and what is quoted follows. */
static __always_inline bool write_unreachable(const struct frame *frame, const struct rejection *r)
{
	const struct packet *packet = &r->packet;
	bool six = packet->family == 6;
	__u32 start = r->link_length + ip_length(packet);
	__u32 header = packet->transport - r->link_length, length = sizeof(struct icmp_header) + r->quoted;
	struct icmp_header *icmp;
	__u64 sum = 0;

	if (!write_headers(frame, r, six ? PROTO_ICMPV6 : PROTO_ICMP, length, (r->tos & TOS_MASK) | TOS_INTERNETCONTROL,
			   false))
		return false;
	icmp = HEADER(frame, start, struct icmp_header);
	if (!icmp)
		return false;
	icmp->type = six ? ICMP6_UNREACHABLE : ICMP4_UNREACHABLE;
	icmp->code = six ? ICMP6_PORT_UNREACHABLE : ICMP4_PORT_UNREACHABLE;
	icmp->checksum = icmp->id = icmp->sequence = 0;
	if (six)
		sum = pseudo_header(packet, PROTO_ICMPV6, length);
	/* A completed segment's sum is the complement of what stood in its checksum's place. */
	if (r->unfinished)
		sum += (__u16)~r->unfinished;
	sum += sum_of(frame, start, start + sizeof(*icmp) + (r->unfinished ? header : r->quoted));
	icmp = HEADER(frame, start, struct icmp_header);
	if (!icmp)
		return false;
	icmp->checksum = ~folded(sum);
	return true;
}

#endif
