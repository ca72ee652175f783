/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Every packet leaves with one reason, and is counted once under it. A number from RULE_ZERO on is the rule that let the
 * packet in: rule n is RULE_ZERO + n. */
#ifndef PORTCULLIS_VERDICT_H
#define PORTCULLIS_VERDICT_H

#include "types.h"

/* The names are shown to users, lower-case and with spaces: PASS_NOT_IP is "not ip". */
enum reason {
	PASS_NOT_IP,		 /* ARP, LLDP, EAPOL, 802.3: netfilter's INPUT never sees them */
	PASS_OTHER_HOST,	 /* unicast to another MAC: the stack drops it, bridges and macvlan need it */
	PASS_ESTABLISHED,	 /* belongs to a flow that this host began, or that was alive at attach */
	PASS_RELATED,		 /* an ICMP error about a flow or an open port of ours */
	PASS_ICMP,		 /* accepted by the ICMP policy */
	PASS_NEIGHBOR_DISCOVERY, /* NDP and MLD, without which IPv6 does not work */
	PASS_DHCP,		 /* a DHCP server's answer: AF_PACKET clients bypass netfilter, not XDP */
	PASS_FRAGMENT,		 /* a later fragment: useless without the first one, which is filtered */
	PASS_FORWARD,		 /* for another host, and the forward policy lets it */
	PASS_INPUT,		 /* input: accept */
	PASS_INVALID,		 /* what netfilter calls INVALID, under invalid: accept */

	DROP_CLOSED_PORT,
	DROP_SOURCE,   /* the port is open, but not from there, or not to this address */
	DROP_LIMIT,    /* the port is open, but not that often */
	DROP_ICMP,     /* refused by the ICMP policy */
	DROP_PROTOCOL, /* no ports, no flow */
	DROP_REJECTED, /* one of the above but for ICMP, and the sender was told: input: reject */
	DROP_FORWARD,  /* for another host */
	DROP_INVALID,  /* the same, and nothing accepts it */
	DROP_BAD_VLAN, /* more than two tags, or cut off in a tag */
	DROP_BAD_IPV4,
	DROP_BAD_IPV6,
	DROP_BAD_EXTENSION, /* IPv6 extension headers cut off, or too many */
	DROP_BAD_TRANSPORT, /* too short for ports */
	DROP_TINY_FRAGMENT, /* TCP header split over fragments: RFC 1858, RFC 3128 */
	DROP_BLOCKED,	    /* the source is on a block list */
	DROP_BANNED,

	/* Not verdicts: what is counted besides. */
	SEEN_FLOWS_FULL,     /* a flow of ours found no room: what answers it is dropped */
	SEEN_FLOWS_EVICTED,  /* an unassured or closing flow gave its place to a new one */
	SEEN_INVALID_HEADER, /* the kinds of enum invalid, in its order */
	SEEN_INVALID_LENGTH,
	SEEN_INVALID_FLAGS,
	SEEN_INVALID_STATE,
	SEEN_INVALID_ICMP,
	SEEN_MERGED, /* frames that came as part of a packet that the kernel had merged, without the first of each */
	REASON_COUNT,

	/* While the filter only watches: what would be dropped, and passes. The numbers of the drops, in their order. */
	WATCHED_DROPS = 40,

	/* Where a page of the ledger counts what is no reason of its own. */
	UNSENT_LIMIT_WATCHED = 59, /* as below, of what has left all the same */
	UNSENT_FORWARD_WATCHED = 60,
	UNSENT_LIMIT = 61,   /* DROP_LIMIT of what was routed and may not leave: it came in elsewhere */
	UNSENT_FORWARD = 62, /* DROP_FORWARD, the same */
	PASS_RULE = 63,	     /* let in by a rule, which counts it, too */

	RULE_ZERO = 64, /* fixed: a page of the ledger has as many places */
};
_Static_assert(REASON_COUNT <= WATCHED_DROPS, "reasons share counters");
_Static_assert(WATCHED_DROPS + SEEN_FLOWS_FULL - DROP_CLOSED_PORT <= UNSENT_LIMIT_WATCHED, "reasons share counters");

/* From the number of a drop to that of a packet that would be dropped so. */
#define WATCHED_SHIFT (WATCHED_DROPS - DROP_CLOSED_PORT)

#define RULE_REASON(rule) (RULE_ZERO + (rule))
#define SEEN_INVALID(kind) (SEEN_INVALID_HEADER + (kind) - INVALID_HEADER)
_Static_assert(SEEN_INVALID(INVALID_ICMP) == SEEN_INVALID_ICMP, "the kinds are counted in another order");

static __always_inline bool is_drop(__u32 reason)
{
	return reason >= DROP_CLOSED_PORT && reason < SEEN_FLOWS_FULL;
}

/* The reason that the policy has for a packet, whether or not it is in force. */
static __always_inline __u32 verdict_of(__u32 reason)
{
	return is_drop(reason - WATCHED_SHIFT) ? reason - WATCHED_SHIFT : reason;
}

#endif
