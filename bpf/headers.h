/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The headers of a frame, as they are on the wire. */
#ifndef PORTCULLIS_HEADERS_H
#define PORTCULLIS_HEADERS_H

#include <linux/types.h>

#define ETHERTYPE_IPV4 0x0800
#define ETHERTYPE_IPV6 0x86dd
#define ETHERTYPE_VLAN 0x8100
#define ETHERTYPE_QINQ 0x88a8

union mac {
	__u8 bytes[6];
	__u16 pairs[3];
};

struct ethernet_header {
	union mac dst;
	union mac src;
	__be16 type;
};

struct vlan_header {
	__be16 tci;
	__be16 type;
};

struct ipv4_header {
	__u8 version_ihl;
	__u8 tos;
	__be16 total_length;
	__be16 id;
	__be16 fragment;
	__u8 ttl;
	__u8 protocol;
	__be16 checksum;
	__u32 src;
	__u32 dst;
};

struct ipv6_header {
	__be32 version_class_flow;
	__be16 payload_length;
	__u8 next_header;
	__u8 hop_limit;
	__u32 src[4];
	__u32 dst[4];
};

struct ipv6_extension {
	__u8 next_header;
	__u8 length; /* in 8 bytes, beyond the first 8 */
	__be16 fragment;
	__be32 id;
};

struct port_header {
	__be16 src;
	__be16 dst;
};

struct tcp_header {
	__be16 src;
	__be16 dst;
	__be32 seq;
	__be32 ack;
	__u8 offset;
	__u8 flags;
	__be16 window;
	__be16 checksum;
	__be16 urgent;
};

struct udp_header {
	__be16 src;
	__be16 dst;
	__be16 length;
	__be16 checksum;
};

struct sctp_header {
	__be16 src;
	__be16 dst;
	__be32 tag;
	__be32 checksum;
	__u8 chunk;
	__u8 flags;
	__be16 length;
};

struct icmp_header {
	__u8 type;
	__u8 code;
	__be16 checksum;
	__be16 id;
	__be16 sequence;
};

#define IPV4_FRAGMENT_OFFSET 0x1fff
#define IPV4_MORE_FRAGMENTS 0x2000
#define IPV4_DONT_FRAGMENT 0x4000

#endif
