/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef PORTCULLIS_MAPS_H
#define PORTCULLIS_MAPS_H

#include <bpf/bpf_helpers.h>

#include "types.h"
#include "verdict.h"

/* Default sizes; the loader sets what the policy asks for. */
#define MAX_FLOWS 262144
#define FLOW_SETS 10923 /* places for twice as many */
#define MAX_RULES 1024
#define RULE_WORDS 32768
#define MAX_LOCAL 4096
#define MAX_FORWARDERS 4096
#define MAX_BANS4 1048576
#define MAX_BANS6 262144
#define MAX_BAN_NETWORKS 65536 /* of a family */
#define BLOCK_LISTS 16
#define LEDGER_PAGES 64
#define LIMIT_SETS 8192 /* a megabyte, for 65536 sources */

/* The flow table, see table.h. Where memory is mapped it begins with a page, so each entry is one line of the cache. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, FLOW_SETS *PLACES_PER_SET);
	__type(key, __u32);
	__type(value, struct entry);
} flows SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, FLOW_SETS);
	__type(key, __u32);
	__type(value, struct tags);
} flow_tags SEC(".maps");

/* The open ports, in .bss: user space writes, the datapath reads without a helper call. A bit each tells whether there
 * is an entry: a flood of random ports reads those alone, and 8 KiB a protocol stay in the cache. Programs of
 * interfaces with other rules have another map for this. */
#define GROUP_BYTES 8192
struct ports {
	struct port entries[PORT_SLOTS];
	__u64 listed[PORT_SLOTS / 64];
	__u8 group[GROUP_BYTES]; /* for user space: which interfaces they are for, as text that ends with a 0 */
} ports;

/* For each local port, the sweep in which a flow last used it; 0 is never. An inbound packet to a port that is
 * neither open nor used can have no flow, so a flood of random ports never reaches the flow tables. */
__u8 used[CLASS_SLOTS] SEC(".data.used");

/* For each local TCP port, when a SYN last left from it, in units of 256 jiffies modulo 2^16. A SYN that comes in can
 * only meet one of ours: a flood of them is told by this, and does not ask the table. */
#define STAMP_SHIFT 8
__u16 syn_sent[PORTS_PER_CLASS] SEC(".data.syn_sent");

/* When the programs of a device last looked at a packet that came in, in jiffies modulo 2^32, at the place that they
 * were loaded with. A driver may cease to run what is attached to it, and tells nobody: user space compares this with
 * what reaches the stack. It is read for each packet and written once a jiffy; of two CPUs that write at once either
 * is right. */
#define RUN_SLOTS 1024
__u32 last_run[RUN_SLOTS] SEC(".data.last_run");

/* What programs that are loaded once for many devices know of each, at its place in `last_run`. Of two devices that share
 * one, the other is looked for among the stations. */
struct device {
	__u32 ifindex;
	__u16 mac[3];
	__u16 pad;
};
struct device devices[RUN_SLOTS] SEC(".data.devices");

/* The number of the sweep, 1 to 255 in turn, that marks `used`, and what else outlives a policy. */
struct state {
	__u64 seed;	    /* of the flow table's hash */
	__u64 clock_offset; /* jiffies by which the tests' clock is ahead */
	__u32 zero;	    /* always 0, which the verifier cannot know */
	__u8 sweep;
	__u8 asks;	  /* enum ask, of block.h */
	__u8 show_drops;  /* which readers want to see packets that are dropped, one bit each: see show.h */
	__u8 show_passes; /* and those that pass */
	__u8 handover;	  /* XDP and TC both filter a device for the moment, see hand_over */
	__u8 watching;	  /* what would be dropped is counted as that, and passes. Read where something would be */
} state SEC(".data.state") = {.sweep = 1};

/* How many flows are in the table, dead ones that nobody has taken out among them, the most that it keeps, and which set
 * a CPU that finds it full looks at next. Apart from what every packet reads. */
struct account {
	__s64 flows;
	__u32 max_flows;
	__u32 next_set;
} account SEC(".data.account") = {.max_flows = MAX_FLOWS};

/* Interfaces by which packets come that are routed, by index. Those that are not there are as 0 says. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_FORWARDERS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__type(value, struct forwarder);
} forwarders SEC(".maps");

/* Limits by the number of their rule. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_RULES);
	__type(key, __u32);
	__type(value, struct limit);
} limits SEC(".maps");

/* What sources are charged with, see limit.h. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, LIMIT_SETS);
	__type(key, __u32);
	__type(value, struct bucket_set);
} limit_buckets SEC(".maps");

/* Which networks may have somebody in them who is blocked or banned: see block.h. */
#define GATE_WORDS4 (1 << 18)
#define GATE_WORDS6 (1 << 14)
struct source_gate {
	__u64 v4[GATE_WORDS4];
	__u64 v6[GATE_WORDS6];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct source_gate);
} source_gate SEC(".maps");

/* The sets of addresses that a policy blocks and trusts. User space writes it as one word: all of it changes at once. */
struct blocking blocks SEC(".data.blocking");

/* The block lists of the policy, for the commands: two halves, of which `blocks` names the one that counts. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 2 * BLOCK_LISTS);
	__type(key, __u32);
	__type(value, struct block_list);
} block_lists SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MAX_BANS4);
	__type(key, __u32);
	__type(value, struct ban);
} bans4 SEC(".maps");

struct ban_key6 {
	__u32 addr[4];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MAX_BANS6);
	__type(key, struct ban_key6);
	__type(value, struct ban);
} bans6 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MAX_BAN_NETWORKS);
	__type(key, struct local_key4);
	__type(value, struct ban);
} ban_networks4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MAX_BAN_NETWORKS);
	__type(key, struct local_key6);
	__type(value, struct ban);
} ban_networks6 SEC(".maps");

/* The texts of the numbers that bans have as their reason. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, MAX_BAN_REASONS);
	__type(key, __u32);
	__type(value, struct ban_reason);
} ban_reasons SEC(".maps");

/* Packets by block list, and behind those by the reason of bans. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, MAX_BLOCK_LISTS + MAX_BAN_REASONS);
	__type(key, __u32);
	__type(value, __u64);
} source_counters SEC(".maps");

/* What the kernel would deliver here. Value: whether this host alone has the address. */
#define LOCAL_OWN 1
#define LOCAL_SHARED 2 /* broadcast and anycast */
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

/* Addresses that were found out to be this host's, or another's, a moment ago: one compare in place of a walk through
 * routes. Who has a slot is its address' hash alone, so that one read tells. See policy.h. */
#define KNOWN_SLOTS 1024
struct known {
	__u64 until; /* jiffies; 0: free, 1: being written */
	__u32 addr[4];
	__u32 family;
	__u32 pad;
};
struct known known_own[KNOWN_SLOTS] SEC(".data.own");
struct known known_others[KNOWN_SLOTS] SEC(".data.others");

/* A question to the routing table, struct bpf_fib_lookup: the stack has no room for it. */
struct question {
	__u64 words[8];
};
_Static_assert(sizeof(struct question) == sizeof(struct bpf_fib_lookup), "a question has another size");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct question);
} questions SEC(".maps");

/* Whether this host takes frames to a MAC other than the one known at load. See device.h. */
#define MAX_STATIONS 8192
struct station_key {
	__u64 mac;
	__u32 ifindex;
	__u32 pad;
};

struct station {
	__u64 verdict; /* jiffies until which it holds, shifted by one, and in the lowest bit whether the MAC is ours */
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, MAX_STATIONS);
	__type(key, struct station_key);
	__type(value, struct station);
} stations SEC(".maps");

/* The search for a MAC among the devices of a namespace: what a CPU may still look at, and room to work in. */
struct search {
	__u64 renewed; /* jiffies */
	__u64 left;    /* devices */
	struct station_key key;
	struct station fresh;
	__u64 time;
	__u64 at, end, self, dev, pointer; /* addresses in the kernel */
	__u64 ops, kind;		   /* of the device that was looked at last */
	__u64 mac, number;
	__s32 on;
	__u16 type;
	__u8 length;
	bool finished; /* and not found */
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct search);
} searches SEC(".maps");

/* The ledger: what came in, by reason, a page for each interface. Page 0 is for interfaces for which there was none left.
 * Nothing is ever set back, so that no packet is lost between a read and a write: where user space begins anew, it notes
 * in ledger_offsets what is to be added, modulo 2^64. */
struct ledger_page {
	struct tally tallies[RULE_ZERO];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, LEDGER_PAGES);
	__type(key, __u32);
	__type(value, struct ledger_page);
} ledger SEC(".maps");

/* By page; behind the last one is what the interfaces that are gone had, and all of an earlier ledger. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, LEDGER_PAGES + 1);
	__type(key, __u32);
	__type(value, struct ledger_page);
} ledger_offsets SEC(".maps");

/* The pages of interfaces whose programs may stand at more than one, by index. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, LEDGER_PAGES);
	__type(key, __u32);
	__type(value, __u32);
} ledger_pages SEC(".maps");

/* What rules let in, by number, and what is to be added. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, MAX_RULES);
	__type(key, __u32);
	__type(value, struct tally);
} rule_tallies SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, MAX_RULES);
	__type(key, __u32);
	__type(value, struct tally);
} rule_offsets SEC(".maps");

/* Packets for the log. Some 350 wait for their reader; when it is full, later ones are only counted. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 65536);
} events SEC(".maps");

/* Those who look at packets as they come, what each may still be shown on a CPU, by reason and then of all rules together,
 * and the buffers of each, one for each CPU. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, READERS);
	__type(key, __u32);
	__type(value, struct reader);
} readers SEC(".maps");

#define ALLOWANCES (RULE_ZERO + 1)
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, READERS *ALLOWANCES);
	__type(key, __u32);
	__type(value, struct allowance);
} allowances SEC(".maps");

struct reader_buffers {
	__uint(type, BPF_MAP_TYPE_PERF_EVENT_ARRAY);
	__type(key, __u32);
	__type(value, __u32);
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, READERS);
	__type(key, __u32);
	__array(values, struct reader_buffers);
} reader_buffers SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct showing);
} showings SEC(".maps");

/* Packets for the journal, which the agent reads. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 131072);
} journal SEC(".maps");

/* Of the log, and behind it of the journal by reason. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1 + RULE_ZERO);
	__type(key, __u32);
	__type(value, struct event_budget);
} event_budgets SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct rejection);
} rejections SEC(".maps");

/* Read by the commands, never by the datapath. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, MAX_RULES);
	__type(key, __u32);
	__type(value, struct rule);
} rules SEC(".maps");

/* The records of rules, one after the other with gaps: maps/record.go knows what is in them. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, RULE_WORDS);
	__type(key, __u32);
	__type(value, __u64);
} rule_records SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct settings);
} running SEC(".maps");

#endif
