/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What the administrator allows: ports, sources, ICMP types, and what is for somebody else. */
#ifndef PORTCULLIS_POLICY_H
#define PORTCULLIS_POLICY_H

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "config.h"
#include "maps.h"
#include "types.h"

#define AF_INET 2
#define AF_INET6 10

#define DHCP_SERVER 67
#define DHCP_CLIENT 68

/* What is open at a local port. */
static __always_inline struct port port_entry(enum port_class class, __u16 number)
{
	__u32 slot = port_slot(class, number);

	if (!(ports.listed[slot / 64] >> slot % 64 & 1))
		return (struct port){};
	return ports.entries[slot];
}

/* The rule that lets `addr` use the ports of `set`, or 0. */
static __always_inline __u32 source_rule(__u32 set, __u8 family, const __u32 *addr)
{
	__u32 *rule;

	if (family == 4) {
		struct source_key4 key = {.prefix_len = 64, .set = set, .addr = addr[0]};

		rule = bpf_map_lookup_elem(&sources4, &key);
	} else {
		struct source_key6 key = {.prefix_len = 160, .set = set};

		__builtin_memcpy(key.addr, addr, sizeof(key.addr));
		rule = bpf_map_lookup_elem(&sources6, &key);
	}
	return rule ? *rule : 0;
}

/* NDP and MLD (RFC 4890, 4.4.1): a host that loses them loses IPv6. */
static __always_inline bool is_neighbor_discovery(const struct packet *packet)
{
	return packet->protocol == PROTO_ICMPV6 &&
	       ((packet->type >= 130 && packet->type <= 137) || packet->type == 143);
}

static __always_inline bool icmp_accepted(const struct packet *packet)
{
	__u64 types;

	if (packet->family == 4)
		types = icmp4_types[packet->type >> 6 & 3];
	else
		types = icmp6_types[packet->type >> 6 & 3];
	return types >> (packet->type & 63) & 1;
}

static __always_inline bool is_dhcp_answer(const struct packet *packet)
{
	return packet->family == 4 && packet->protocol == PROTO_UDP && packet->src_port == DHCP_SERVER &&
	       packet->dst_port == DHCP_CLIENT && !packet->invalid;
}

/* 224.0.0.0/4, 255.255.255.255, ff00::/8: the kernel never routes these for a host. */
static __always_inline bool is_multicast(const struct packet *packet)
{
	__u32 first = bpf_ntohl(packet->dst[0]);

	if (packet->family == 4)
		return first >> 28 == 0xe || first == 0xffffffff;
	return first >> 24 == 0xff;
}

/* An address that was this host's when the map was filled. */
static __always_inline bool is_own(__u8 family, const __u32 *addr)
{
	if (family == 4) {
		struct local_key4 key = {.prefix_len = 32, .addr = addr[0]};

		return bpf_map_lookup_elem(&local4, &key);
	}

	struct local_key6 key = {.prefix_len = 128};

	__builtin_memcpy(key.addr, addr, sizeof(key.addr));
	return bpf_map_lookup_elem(&local6, &key);
}

/* Would the kernel route a packet to this address away? A miss in the map of local prefixes asks the routing table:
 * an address that came after the map was filled is then still ours. */
static __always_inline bool is_for_other_host(void *ctx, __u32 ifindex, const struct packet *packet)
{
	struct bpf_fib_lookup fib = {};
	long result;

	if (is_multicast(packet) || is_own(packet->family, packet->dst))
		return false;
	if (packet->family == 4) {
		fib.family = AF_INET;
		fib.ipv4_src = packet->src[0];
		fib.ipv4_dst = packet->dst[0];
	} else {
		fib.family = AF_INET6;
		__builtin_memcpy(fib.ipv6_src, packet->src, sizeof(fib.ipv6_src));
		__builtin_memcpy(fib.ipv6_dst, packet->dst, sizeof(fib.ipv6_dst));
	}
	fib.ifindex = ifindex;
	result = bpf_fib_lookup(ctx, &fib, sizeof(fib), 0);
	/* An interface that does not forward IPv4 leaves the stack to drop what is not ours. For IPv6 the same answer
	 * means nothing: the kernel forwards when the host does. */
	if (packet->family == 4 && result == BPF_FIB_LKUP_RET_FWD_DISABLED)
		return false;
	return result != BPF_FIB_LKUP_RET_NOT_FWDED;
}

#endif
