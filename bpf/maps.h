/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef PORTCULLIS_MAPS_H
#define PORTCULLIS_MAPS_H

#include <bpf/bpf_helpers.h>

#include "types.h"
#include "verdict.h"

/* Default sizes; the loader sets what the policy asks for. */
#define MAX_FLOWS 262144
#define MAX_PENDING 32768
#define MAX_RULES 1024
#define MAX_SOURCES 65536
#define MAX_LOCAL 4096

/* Flows that were answered. A hash, so that a flood of new flows evicts none of them. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_FLOWS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct flow_key4);
	__type(value, struct flow);
} flows4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_FLOWS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct flow_key6);
	__type(value, struct flow);
} flows6 SEC(".maps");

/* Flows that wait for their first answer. They may be evicted; the next packet out makes them again. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, MAX_PENDING);
	__type(key, struct flow_key4);
	__type(value, struct flow);
} pending4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, MAX_PENDING);
	__type(key, struct flow_key6);
	__type(value, struct flow);
} pending6 SEC(".maps");

/* The open ports, in .bss: user space writes, the datapath reads without a helper call. */
struct port ports[PORT_SLOTS];

/* For each local port, the sweep in which a flow last used it; 0 is never. An inbound packet to a port that is
 * neither open nor used can have no flow, so a flood of random ports never reaches the flow tables. */
__u8 used[PORT_SLOTS] SEC(".data.used");

/* See filter.h. Both generations, one behind the other. */
#define FILTER_WORDS 65536
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 2 * FILTER_WORDS);
	__type(key, __u32);
	__type(value, __u64);
} filter SEC(".maps");

/* For each local TCP port, when a SYN last left from it, in units of 256 jiffies modulo 2^16. A SYN that comes in can
 * only meet one of ours: a flood of them is told by this, and asks neither filter nor table. */
#define STAMP_SHIFT 8
__u16 syn_sent[PORTS_PER_CLASS] SEC(".data.syn_sent");

/* The number of the sweep, 1 to 255 in turn, that marks `used`, and what else changes at run time. */
struct state {
	__u64 clock_offset; /* jiffies by which the tests' clock is ahead */
	__u32 zero;	    /* always 0, which the verifier cannot know */
	__u8 sweep;
	__u8 generation; /* of the filter: 0 or 1 */
	__u8 crowded;	 /* there are flows enough for the filter to be worth asking */
} state SEC(".data.state") = {.sweep = 1};

/* Flows that have begun since the last sweep, and those that lived then; about, as CPUs count without a lock. */
__u32 begun SEC(".data.begun");

/* Who may use the ports of a set. */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, MAX_SOURCES);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct source_key4);
	__type(value, __u32); /* rule */
} sources4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, MAX_SOURCES);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct source_key6);
	__type(value, __u32); /* rule */
} sources6 SEC(".maps");

/* Local, broadcast and anycast addresses: what the kernel would deliver here. */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, MAX_LOCAL);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct local_key4);
	__type(value, __u8);
} local4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, MAX_LOCAL);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct local_key6);
	__type(value, __u8);
} local6 SEC(".maps");

/* Packets by reason, then by rule. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, REASON_COUNT + MAX_RULES);
	__type(key, __u32);
	__type(value, __u64);
} counters SEC(".maps");

/* Packets for the log. Some 350 wait for their reader; when it is full, later ones are only counted. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 65536);
} events SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct event_budget);
} event_budgets SEC(".maps");

/* Read by the commands, never by the datapath. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, MAX_RULES);
	__type(key, __u32);
	__type(value, struct rule);
} rules SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct settings);
} running SEC(".maps");

#endif
