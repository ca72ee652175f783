/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Load-time constants. The verifier removes what they switch off, so what is not used costs nothing. */
#ifndef PORTCULLIS_CONFIG_H
#define PORTCULLIS_CONFIG_H

#include "types.h"

/* Whether this is the object that "explain" sends packets through (explain.bpf.c): it decides as the other one does, and
 * leaves no trace. It is known when that is compiled: of a constant known at load, the verifier takes out the jump and
 * leaves the load, and here no packet is to pay for what few ask. */
#ifndef DRY_RUN
#define DRY_RUN false
#endif
static const bool dry_run = DRY_RUN;

enum policy {
	POLICY_DROP,
	POLICY_ACCEPT,
	POLICY_ESTABLISHED,
	POLICY_LOG,
	POLICY_REJECT,
};

/* The link. A device without Ethernet headers (tun, ppp, wireguard) starts its frames with the IP header. */
volatile const bool ethernet = true;
volatile const __u16 own_mac[3] = {}; /* in network order, in pairs of bytes: three comparisons instead of six */
/* The program is loaded with BPF_F_XDP_HAS_FRAGS: a frame may go on behind data_end. */
volatile const bool multi_buffer = false;

/* Place in `last_run`; 0 for a program that may stand at more than one device. */
volatile const __u32 run_slot = 0;
/* The program is loaded once for many devices: own_mac and run_slot are those of the device, see `devices`. */
volatile const bool many_devices = false;

/* The page of the ledger for the program's device; 0 for a program that may stand at more than one: see page_of. */
volatile const __u32 ledger_page = 0;

volatile const __u32 input_policy = POLICY_DROP;
volatile const __u32 forward_policy = POLICY_DROP;
volatile const __u32 invalid_policy = POLICY_LOG;

/* Reasons of which packets go into the journal, one bit each. */
volatile const __u64 logged_reasons = 0;

/* Accepted ICMP types, one bit each. */
volatile const __u64 icmp4_types[4] = {};
volatile const __u64 icmp6_types[4] = {};

/* Jiffies a second. */
volatile const __u32 hz = 250;
volatile const __u32 jiffy = 4000000; /* in nanoseconds */

/* Jiffies by flow state; a power of two that holds them. */
#define TIMEOUT_SLOTS 32
volatile const __u32 timeouts[TIMEOUT_SLOTS] = {};
_Static_assert(FLOW_STATES < TIMEOUT_SLOTS, "a flow state has no timeout");
/* A UDP flow that is answered and older is a stream (net/netfilter/nf_conntrack_proto_udp.c). */
#define UDP_STREAM_AGE (2 * hz)

/* How long a flow may be in SYN_SENT, in units of `syn_sent`. */
volatile const __u16 longest_syn_sent = 0xffff;

/* Sets of the flow table. */
volatile const __u32 flow_sets = 1;

/* Whether a rule has a limit, or is for some addresses of this host: programs without this do not ask. */
volatile const bool uses_limits = false;
volatile const bool uses_addresses = false;
/* Whether a rule is about what is routed. */
volatile const bool uses_forward_rules = false;

/* Tests move the clock: the time is then jiffies plus clock_offset. */
volatile const bool test_clock = false;

#endif
