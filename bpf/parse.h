/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* A frame becomes a struct packet. Each parser checks its header's bounds, reads it, and returns where the next one
 * begins. What is not IP and what cannot be parsed each leave with a reason of their own. */
#ifndef PORTCULLIS_PARSE_H
#define PORTCULLIS_PARSE_H

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "config.h"
#include "headers.h"
#include "maps.h"
#include "types.h"
#include "verdict.h"

#define MAX_VLAN_TAGS 2
/* More than any stack sends; a packet with more is dropped, never let through unread. */
#define MAX_EXTENSIONS 10

/* The bytes that the program may touch, and how long the whole frame is (it may go on behind `end`). */
struct frame {
	void *begin;
	void *end;
	__u32 length;
	bool merged; /* GRO or GSO: lengths in the IP header may be 0 */
};

/* Parse results beside the reasons. */
enum {
	PARSED = -1,
	PARSE_MORE = -2, /* a header goes on behind `end`, inside the frame */
	TRACK = -3,	 /* of a packet that goes out: it begins or moves a flow */
	FOLLOW = -4,	 /* the same where it has a flow, or may be given one: see is_followed */
};

/* Cut off: by the frame's real end, or by what is linear of it. */
static __always_inline int cut_off(const struct frame *frame, int reason)
{
	return frame->length > (__u32)(frame->end - frame->begin) ? PARSE_MORE : reason;
}

/* Headers end before this offset; parse_extensions sees to it. */
#define MAX_OFFSET 0x7fff

/* The bytes at `offset`, or NULL. */
#define HEADER(frame, offset, type)                                           \
	({                                                                    \
		type *header_ = (frame)->begin + BOUNDED(offset, MAX_OFFSET); \
		(void *)(header_ + 1) > (frame)->end ? NULL : header_;        \
	})

/* The same number without the bounds that the verifier has found for it. Without this it walks every sequence of
 * extension headers apart, and gives up. */
static __always_inline __u32 forget_bounds(__u32 number)
{
	return number ^ *(volatile __u32 *)&state.zero;
}

/* FIN, SYN, RST, ACK and URG combinations that netfilter takes (its tcp_valid_flags), one bit each; PSH and the
 * congestion bits do not matter. */
static __always_inline bool tcp_flags_valid(__u8 flags)
{
	const __u64 valid = 1ULL << TCP_SYN | 1ULL << (TCP_SYN | TCP_URG) | 1ULL << (TCP_SYN | TCP_ACK) |
			    1ULL << TCP_RST | 1ULL << (TCP_RST | TCP_ACK) | 1ULL << (TCP_FIN | TCP_ACK) |
			    1ULL << (TCP_FIN | TCP_ACK | TCP_URG) | 1ULL << TCP_ACK | 1ULL << (TCP_ACK | TCP_URG);

	return valid >> (flags & (TCP_FIN | TCP_SYN | TCP_RST | TCP_ACK | TCP_URG)) & 1;
}

/* IPv4's ICMP does not run over IPv6, nor the other way round: there it is one more unknown protocol. */
static __always_inline bool is_icmp(const struct packet *packet)
{
	return packet->protocol == (packet->family == 4 ? PROTO_ICMP : PROTO_ICMPV6);
}

/* Type of the query that an ICMP reply answers; 0 for what is no reply. */
static __always_inline __u8 icmp_query_of_reply(__u8 protocol, __u8 type)
{
	if (protocol == PROTO_ICMPV6)
		return type == 129 ? 128 : 0;
	switch (type) {
	case 0:
		return 8;
	case 14:
	case 16:
	case 18:
		return type - 1;
	}
	return 0;
}

static __always_inline bool icmp_is_query(__u8 protocol, __u8 type)
{
	if (protocol == PROTO_ICMPV6)
		return type == 128;
	return type == 8 || type == 13 || type == 15 || type == 17;
}

static __always_inline bool icmp_is_error(__u8 protocol, __u8 type)
{
	if (protocol == PROTO_ICMPV6)
		return type < 128; /* RFC 4443, 2.1: known or not */
	return type == 3 || type == 4 || type == 5 || type == 11 || type == 12;
}

/* Types that netfilter tracks neither as a query nor as neighbour discovery: unless they answer something of ours, or
 * quote it, it calls them INVALID (net/netfilter/nf_conntrack_proto_icmp.c and _icmpv6.c). */
static __always_inline bool icmp_needs_flow(__u8 protocol, __u8 type)
{
	if (protocol == PROTO_ICMPV6)
		return !(type == 128 || (type >= 130 && type <= 136) || type == 139 || type == 143 || type == 151 ||
			 type == 152);
	return !icmp_is_query(protocol, type);
}

static __always_inline int parse_tcp(const struct frame *frame, struct packet *packet, __u32 length, bool quoted)
{
	struct tcp_header *tcp = HEADER(frame, packet->transport, struct tcp_header);
	struct port_header *ports;

	if (tcp && length >= sizeof(*tcp)) {
		__u32 header = (tcp->offset >> 4) * 4;

		packet->src_port = bpf_ntohs(tcp->src);
		packet->dst_port = bpf_ntohs(tcp->dst);
		packet->seq = bpf_ntohl(tcp->seq);
		packet->ack = bpf_ntohl(tcp->ack);
		packet->tcp_flags = tcp->flags;
		packet->payload = header < length ? length - header : 0;
		if (!tcp_flags_valid(tcp->flags))
			packet->invalid = INVALID_FLAGS;
		/* The rest of a fragmented header comes later. */
		if (header < sizeof(*tcp) || (header > length && packet->fragment == FRAGMENT_NONE))
			packet->invalid = INVALID_HEADER;
		return PARSED;
	}
	if (packet->fragment == FRAGMENT_FIRST && !quoted)
		return cut_off(frame, DROP_TINY_FRAGMENT);
	/* netfilter's port match needs no more than the ports. */
	ports = HEADER(frame, packet->transport, struct port_header);
	if (length < sizeof(*ports))
		return DROP_BAD_TRANSPORT;
	if (!ports || length >= sizeof(*tcp))
		return cut_off(frame, DROP_BAD_TRANSPORT);
	packet->src_port = bpf_ntohs(ports->src);
	packet->dst_port = bpf_ntohs(ports->dst);
	packet->invalid = INVALID_HEADER;
	return PARSED;
}

static __always_inline int parse_ports(const struct frame *frame, struct packet *packet, __u32 length)
{
	struct port_header *ports = HEADER(frame, packet->transport, struct port_header);
	struct udp_header *udp;
	struct sctp_header *sctp;

	if (length < sizeof(*ports))
		return DROP_BAD_TRANSPORT;
	if (!ports)
		return cut_off(frame, DROP_BAD_TRANSPORT);
	packet->src_port = bpf_ntohs(ports->src);
	packet->dst_port = bpf_ntohs(ports->dst);

	if (packet->protocol == PROTO_SCTP) {
		sctp = HEADER(frame, packet->transport, struct sctp_header);
		if (sctp && length >= sizeof(*sctp))
			packet->type = sctp->chunk;
		else
			packet->invalid = INVALID_HEADER;
		return PARSED;
	}
	udp = HEADER(frame, packet->transport, struct udp_header);
	if (!udp || length < sizeof(*udp)) {
		packet->invalid = INVALID_HEADER;
	} else if (packet->protocol == PROTO_UDP && packet->fragment == FRAGMENT_NONE && !frame->merged) {
		__u16 said = bpf_ntohs(udp->length);

		if (said < sizeof(*udp) || said > length)
			packet->invalid = INVALID_LENGTH;
	}
	return PARSED;
}

/* The identifier stands as the port of the side that asked, the query's type as the other one. */
static __always_inline int parse_icmp(const struct frame *frame, struct packet *packet, __u32 length)
{
	struct icmp_header *icmp = HEADER(frame, packet->transport, struct icmp_header);
	__u8 query;

	if (length < sizeof(*icmp)) {
		packet->invalid = INVALID_HEADER;
		packet->type = 255;
		return PARSED;
	}
	if (!icmp)
		return cut_off(frame, DROP_BAD_TRANSPORT);
	packet->type = icmp->type;
	query = icmp_query_of_reply(packet->protocol, icmp->type);
	if (query) {
		packet->src_port = query;
		packet->dst_port = bpf_ntohs(icmp->id);
	} else if (icmp_is_query(packet->protocol, icmp->type)) {
		packet->src_port = bpf_ntohs(icmp->id);
		packet->dst_port = icmp->type;
	}
	return PARSED;
}

static __always_inline int parse_transport(const struct frame *frame, struct packet *packet, bool quoted)
{
	__u32 length = packet->end - packet->transport;

	if (packet->fragment == FRAGMENT_LATER)
		return PARSED;
	switch (packet->protocol) {
	case PROTO_TCP:
		return parse_tcp(frame, packet, length, quoted);
	case PROTO_UDP:
	case PROTO_UDPLITE:
	case PROTO_SCTP:
		return parse_ports(frame, packet, length);
	case PROTO_ICMP:
	case PROTO_ICMPV6:
		return is_icmp(packet) ? parse_icmp(frame, packet, length) : PARSED;
	}
	return PARSED;
}

/* The packet ends before `limit`. `quoted`: it stands in an ICMP error, is cut short and says its old length. */
static __always_inline int parse_ipv4(const struct frame *frame, struct packet *packet, __u32 offset, __u32 limit,
				      bool quoted)
{
	struct ipv4_header *ip = HEADER(frame, offset, struct ipv4_header);
	__u32 header, total, left = limit - offset;
	__u16 fragment;

	if (!ip)
		return cut_off(frame, DROP_BAD_IPV4);
	header = (ip->version_ihl & 0x0f) * 4;
	total = bpf_ntohs(ip->total_length);
	if (quoted || (frame->merged && !total))
		total = left;
	if (ip->version_ihl >> 4 != 4 || header < sizeof(*ip) || total < header || total > left)
		return DROP_BAD_IPV4;

	packet->family = 4;
	packet->protocol = ip->protocol;
	packet->src[0] = ip->src;
	packet->dst[0] = ip->dst;
	packet->transport = offset + header;
	packet->end = offset + total;

	fragment = bpf_ntohs(ip->fragment);
	if (fragment & (IPV4_FRAGMENT_OFFSET | IPV4_MORE_FRAGMENTS)) {
		packet->fragment = fragment & IPV4_FRAGMENT_OFFSET ? FRAGMENT_LATER : FRAGMENT_FIRST;
		if ((fragment & IPV4_FRAGMENT_OFFSET) == 1 && ip->protocol == PROTO_TCP)
			return DROP_TINY_FRAGMENT;
	}
	return parse_transport(frame, packet, quoted);
}

static __always_inline bool is_extension(__u8 protocol)
{
	return protocol == PROTO_HOP_BY_HOP || protocol == PROTO_ROUTING || protocol == PROTO_FRAGMENT ||
	       protocol == PROTO_DEST_OPTIONS;
}

/* Follows the extension headers to the transport header or to a fragment that has none. */
static __always_inline int parse_extensions(const struct frame *frame, struct packet *packet)
{
	struct ipv6_extension *extension;
	__u16 fragment;

	for (int i = 0; i < MAX_EXTENSIONS && is_extension(packet->protocol); i++) {
		if (packet->transport + sizeof(*extension) > packet->end)
			return DROP_BAD_EXTENSION;
		extension = HEADER(frame, packet->transport, struct ipv6_extension);
		if (!extension)
			return cut_off(frame, DROP_BAD_EXTENSION);
		if (packet->protocol == PROTO_FRAGMENT) {
			fragment = bpf_ntohs(extension->fragment);
			packet->transport += sizeof(*extension);
			if (fragment >> 3) {
				packet->fragment = FRAGMENT_LATER;
				if (fragment >> 3 == 1 && extension->next_header == PROTO_TCP)
					return DROP_TINY_FRAGMENT;
				packet->protocol = extension->next_header;
				return PARSED;
			}
			if (fragment & 1)
				packet->fragment = FRAGMENT_FIRST;
		} else {
			packet->transport += ((__u32)extension->length + 1) * 8;
		}
		packet->protocol = extension->next_header;
		packet->transport = forget_bounds(packet->transport);
	}
	if (is_extension(packet->protocol) || packet->transport > packet->end || packet->transport > MAX_OFFSET)
		return DROP_BAD_EXTENSION;
	return PARSED;
}

static __always_inline int parse_ipv6(const struct frame *frame, struct packet *packet, __u32 offset, __u32 limit,
				      bool quoted)
{
	struct ipv6_header *ip = HEADER(frame, offset, struct ipv6_header);
	__u32 payload, left = limit - offset - sizeof(*ip);
	int result;

	if (offset + sizeof(*ip) > limit)
		return DROP_BAD_IPV6;
	if (!ip)
		return cut_off(frame, DROP_BAD_IPV6);
	payload = bpf_ntohs(ip->payload_length);
	if (quoted || (frame->merged && !payload))
		payload = left;
	if (bpf_ntohl(ip->version_class_flow) >> 28 != 6 || payload > left)
		return DROP_BAD_IPV6;

	packet->family = 6;
	packet->protocol = ip->next_header;
	__builtin_memcpy(packet->src, ip->src, sizeof(ip->src));
	__builtin_memcpy(packet->dst, ip->dst, sizeof(ip->dst));
	packet->transport = offset + sizeof(*ip);
	packet->end = packet->transport + payload;

	if (is_extension(packet->protocol)) {
		result = parse_extensions(frame, packet);
		if (result != PARSED)
			return result;
	}
	return parse_transport(frame, packet, quoted);
}

/* PARSED, PARSE_MORE, or the reason that decides the frame. */
static __always_inline int parse(const struct frame *frame, struct packet *packet)
{
	__u32 offset = 0;
	__u16 type;

	if (ethernet) {
		struct ethernet_header *eth = HEADER(frame, 0, struct ethernet_header);

		if (!eth)
			return cut_off(frame, PASS_NOT_IP);
		type = eth->type;
		offset = sizeof(*eth);
		for (int i = 0; i < MAX_VLAN_TAGS; i++) {
			struct vlan_header *vlan;

			if (type != bpf_htons(ETHERTYPE_VLAN) && type != bpf_htons(ETHERTYPE_QINQ))
				break;
			vlan = HEADER(frame, offset, struct vlan_header);
			if (!vlan)
				return cut_off(frame, DROP_BAD_VLAN);
			type = vlan->type;
			offset += sizeof(*vlan);
		}
		if (type == bpf_htons(ETHERTYPE_VLAN) || type == bpf_htons(ETHERTYPE_QINQ))
			return DROP_BAD_VLAN;
	} else {
		__u8 *version = HEADER(frame, 0, __u8);

		if (!version)
			return cut_off(frame, DROP_BAD_IPV4);
		type = *version >> 4 == 6 ? bpf_htons(ETHERTYPE_IPV6) : bpf_htons(ETHERTYPE_IPV4);
	}
	if (type == bpf_htons(ETHERTYPE_IPV4))
		return parse_ipv4(frame, packet, offset, frame->length, false);
	if (type == bpf_htons(ETHERTYPE_IPV6))
		return parse_ipv6(frame, packet, offset, frame->length, false);
	return PASS_NOT_IP;
}

#endif
