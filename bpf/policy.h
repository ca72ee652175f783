/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What the administrator allows: ports, sources, ICMP types, and what is for somebody else. */
#ifndef PORTCULLIS_POLICY_H
#define PORTCULLIS_POLICY_H

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "config.h"
#include "device.h"
#include "maps.h"
#include "ranges.h"
#include "types.h"

#define AF_INET 2
#define AF_INET6 10

#define DHCP_SERVER 67
#define DHCP_CLIENT 68
#define DHCPV6_CLIENT 546
#define DHCPV6_SERVER 547

static __always_inline struct port entry_at(__u32 slot)
{
	if (!(ports.listed[slot / 64] >> slot % 64 & 1))
		return (struct port){};
	return ports.entries[slot];
}

/* What is open at a local port. */
static __always_inline struct port port_entry(enum port_class class, __u16 number)
{
	return entry_at(port_slot(class, number));
}

/* What is open of a protocol without ports. */
static __always_inline struct port protocol_entry(__u8 protocol)
{
	return entry_at(CLASS_SLOTS + BOUNDED(protocol, 255));
}

/* What a set says of an address; of none, 0. */
static __always_inline __u32 value_of(__u32 set, __u8 family, const __u32 *addr)
{
	if (family == 4)
		return range_value4(set, bpf_ntohl(addr[0]));
	return range_value6(set, (__u64)bpf_ntohl(addr[0]) << 32 | bpf_ntohl(addr[1]),
			    (__u64)bpf_ntohl(addr[2]) << 32 | bpf_ntohl(addr[3]));
}

/* A word that holds a struct decision. */
union answer {
	struct decision decision;
	__u32 word;
};

static __always_inline struct decision decision_of(__u32 set, __u8 family, const __u32 *addr)
{
	union answer answer = {.word = value_of(set, family, addr)};

	return answer.decision;
}

/* What a set says about the peer of a packet: a rule, or none, and whether it has a limit. */
static __always_inline struct decision decide(const struct packet *packet, __u32 set, enum direction direction)
{
	const __u32 *peer = direction == INBOUND ? packet->src : packet->dst;
	const __u32 *own = direction == INBOUND ? packet->dst : packet->src;
	struct decision decision = decision_of(set, packet->family, peer);

	if (uses_addresses && decision.kind == BY_ADDRESS)
		decision = decision_of(decision.number, packet->family, own);
	return decision;
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

static __always_inline bool is_link_local(const __u32 *addr)
{
	return bpf_ntohl(addr[0]) >> 22 == 0xfe80 >> 6;
}

/* Of DHCPv6, only to a link-local address, which nobody reaches from afar; the server may have any address. */
static __always_inline bool is_dhcp_answer(const struct packet *packet)
{
	if (packet->protocol != PROTO_UDP || packet->invalid)
		return false;
	if (packet->family == 4)
		return packet->src_port == DHCP_SERVER && packet->dst_port == DHCP_CLIENT;
	return packet->src_port == DHCPV6_SERVER && packet->dst_port == DHCPV6_CLIENT && is_link_local(packet->dst);
}

/* 224.0.0.0/4, ff00::/8 and 255.255.255.255 are never routed for a host, nor is 0.0.0.0, which is a broadcast when the
 * source is 0.0.0.0 too, and nothing otherwise (ip_route_input_slow in net/ipv4/route.c). */
static __always_inline bool is_never_routed(const struct packet *packet)
{
	__u32 first = bpf_ntohl(packet->dst[0]);

	if (packet->family == 4)
		return first >> 28 == 0xe || first == 0xffffffff || first == 0;
	return first >> 24 == 0xff;
}

/* An address that was this host's when the map was filled. */
static __always_inline bool is_local(__u8 family, const __u32 *addr)
{
	if (family == 4) {
		struct local_key4 key = {.prefix_len = 32, .addr = addr[0]};

		return bpf_map_lookup_elem(&local4, &key);
	}

	struct local_key6 key = {.prefix_len = 128};

	__builtin_memcpy(key.addr, addr, sizeof(key.addr));
	return bpf_map_lookup_elem(&local6, &key);
}

/* Where an address has its slot, in a table of those that are known. */
static __always_inline __u64 known_slot(const __u32 *addr)
{
	__u32 mixed = (addr[0] ^ addr[1] ^ addr[2] ^ addr[3]) * 0x9e3779b1; /* 2^32 by the golden ratio */

	return BOUNDED(mixed >> 22, KNOWN_SLOTS - 1);
}

/* How long it is known what an address is. */
#define KNOWN_TIME hz

/* `until` is read before the address and after it: a slot that is written meanwhile has another. */
static __always_inline bool is_known(const volatile struct known *slot, __u8 family, const __u32 *addr, __u64 time)
{
	__u64 until = slot->until;

	return until > time && slot->addr[0] == addr[0] && slot->addr[1] == addr[1] && slot->addr[2] == addr[2] &&
	       slot->addr[3] == addr[3] && slot->family == family && slot->until == until;
}

#define BEING_WRITTEN 1 /* jiffies, long ago */

/* Notes an address. Whoever makes `until` BEING_WRITTEN, by compare-and-exchange, has the slot for himself till he
 * gives it a time again, and who comes meanwhile leaves it: no two CPUs mix two addresses.
 *
 * A CPU that does not read in order (not x86) may see half of the address from before and half of the one after, both
 * times with the same `until`. Worst outcome: for the instant of that write, a packet to a mixture of two IPv6
 * addresses of this host is taken for this host's. */
static __always_inline void make_known(struct known *slot, __u8 family, const __u32 *addr, __u64 time)
{
	__u64 until = slot->until;

	if (dry_run || until == BEING_WRITTEN ||
	    __sync_val_compare_and_swap(&slot->until, until, BEING_WRITTEN) != until)
		return;
	slot->family = family;
	__builtin_memcpy(slot->addr, addr, sizeof(slot->addr));
	__sync_lock_test_and_set(&slot->until, time + KNOWN_TIME);
}

/* An address of this host, by the map. Only that is noted: what the routing table says depends on more than the
 * address, and who sends chooses the rest. */
static __always_inline bool is_own(__u8 family, const __u32 *addr, __u64 time)
{
	struct known *slot = &known_own[known_slot(addr)];

	if (is_known(slot, family, addr, time))
		return true;
	if (!is_local(family, addr))
		return false;
	make_known(slot, family, addr, time);
	return true;
}

/* Asks the routing table about a packet that comes in on an interface: a BPF_FIB_LKUP_RET_... or an error. `next` becomes
 * the IPv4 address that it would be sent to, the gateway's where there is one. */
static __always_inline long ask_routes(void *ctx, __u32 ifindex, __u8 family, const __u32 *src, const __u32 *dst,
				       __u32 *next)
{
	__u32 zero = 0;
	struct bpf_fib_lookup *fib = bpf_map_lookup_elem(&questions, &zero);
	long answer;

	if (!fib)
		return -1;
	__builtin_memset(fib, 0, sizeof(*fib));
	if (family == 4) {
		fib->family = AF_INET;
		fib->ipv4_src = src[0];
		fib->ipv4_dst = dst[0];
	} else {
		fib->family = AF_INET6;
		/* About a link-local source the kernel's answer is no, but it does route its packets back out of
		 * the same interface. */
		if (!is_link_local(src))
			__builtin_memcpy(fib->ipv6_src, src, sizeof(fib->ipv6_src));
		__builtin_memcpy(fib->ipv6_dst, dst, sizeof(fib->ipv6_dst));
	}
	fib->ifindex = ifindex;
	answer = bpf_fib_lookup(ctx, fib, sizeof(*fib), 0);
	*next = fib->ipv4_dst;
	return answer;
}

/* Would the kernel route a packet to this address away? A miss in the map of local prefixes asks the routing table: an
 * address that came after the map was filled is then still ours, and so is any while the kernel routes nothing. */
static __always_inline bool is_for_other_host(void *ctx, bool skb, __u32 ifindex, const struct packet *packet,
					      __u64 time)
{
	__u32 next = 0;

	if (is_own(packet->family, packet->dst, time) || is_never_routed(packet))
		return false;
	switch (ask_routes(ctx, ifindex, packet->family, packet->src, packet->dst, &next)) {
	case BPF_FIB_LKUP_RET_NOT_FWDED:
		return false;
	case BPF_FIB_LKUP_RET_FWD_DISABLED:
		/* An interface that does not forward IPv4 leaves the stack to drop what is not ours. For IPv6 the
		 * kernel does not go by the interface. */
		return packet->family == 6 && routes_ipv6(ctx, skb);
	}
	/* The address that a DHCP server offers is not ours yet, and the default route seems to lead to it. A gateway
	 * stands there in its place, and not before the hosts behind us. */
	return !(packet->family == 4 && is_dhcp_answer(packet) && next != packet->dst[0]);
}

/* Is the source of a packet that was routed an address of ours, as when it is masqueraded? Who is not is noted, too:
 * that takes nothing but a flow, from an address that came a second ago. */
static __always_inline bool is_from_us(void *ctx, __u32 came_by, const struct packet *packet, __u64 time)
{
	struct known *slot;
	__u32 next;

	if (is_own(packet->family, packet->src, time))
		return true;
	slot = &known_others[known_slot(packet->src)];
	if (is_known(slot, packet->family, packet->src, time))
		return false;
	if (ask_routes(ctx, came_by, packet->family, packet->dst, packet->src, &next) == BPF_FIB_LKUP_RET_NOT_FWDED)
		return true;
	make_known(slot, packet->family, packet->src, time);
	return false;
}

#endif
