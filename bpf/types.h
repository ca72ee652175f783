/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Keys, values and the parsed packet. Go sees the same types through BTF. */
#ifndef PORTCULLIS_TYPES_H
#define PORTCULLIS_TYPES_H

#include <linux/bpf.h>
#include <linux/types.h>
#include <stdbool.h>

/* number & mask, in assembler: the verifier has to see a bound that the compiler knows and would leave out. */
#define BOUNDED(number, mask)                                         \
	({                                                            \
		__u64 number_ = (number);                             \
		asm volatile("%0 &= %1" : "+r"(number_) : "i"(mask)); \
		number_;                                              \
	})

/* IANA protocol numbers. */
enum protocol {
	PROTO_HOP_BY_HOP = 0,
	PROTO_ICMP = 1,
	PROTO_TCP = 6,
	PROTO_UDP = 17,
	PROTO_ROUTING = 43,
	PROTO_FRAGMENT = 44,
	PROTO_GRE = 47,
	PROTO_ICMPV6 = 58,
	PROTO_DEST_OPTIONS = 60,
	PROTO_SCTP = 132,
	PROTO_UDPLITE = 136,
};

/* The protocols that have ports, as they index the port tables. */
enum port_class {
	CLASS_TCP,
	CLASS_UDP,
	CLASS_SCTP,
	CLASS_UDPLITE,
	CLASS_COUNT,
	CLASS_NONE = CLASS_COUNT,
};

#define PORTS_PER_CLASS 65536
#define CLASS_SLOTS (CLASS_COUNT * PORTS_PER_CLASS)
/* Behind the ports a slot for each protocol; those of protocols that have ports are not used. */
#define PORT_SLOTS (CLASS_SLOTS + 256)

enum tcp_flag {
	TCP_FIN = 0x01,
	TCP_SYN = 0x02,
	TCP_RST = 0x04,
	TCP_PSH = 0x08,
	TCP_ACK = 0x10,
	TCP_URG = 0x20,
};

enum fragment {
	FRAGMENT_NONE,
	FRAGMENT_FIRST,
	FRAGMENT_LATER, /* carries no ports */
};

/* What netfilter calls INVALID, where it needs no sequence numbers. The verdict is the policy's. */
enum invalid {
	INVALID_NONE,
	/* From the packet alone. */
	INVALID_HEADER, /* transport header shorter than it must be, or than it says */
	INVALID_LENGTH, /* UDP length below 8 or beyond the packet */
	INVALID_FLAGS,	/* TCP flags that no stack sends */
	/* From what is known of its flow. */
	INVALID_STATE, /* TCP that belongs to no flow and can begin none, or a SYN within one */
	INVALID_ICMP,  /* an error or an answer to nothing of ours, or a type that nobody knows */
};

/* One flow, seen from the host: one orientation, so that both directions find the same entry. An IPv4 address stands
 * in word 0, and the others are 0. */
struct flow_key {
	__u32 local[4];
	__u32 remote[4];
	__u16 local_port;
	__u16 remote_port;
	__u8 protocol;
	__u8 family; /* 4 or 6 */
	__u8 pad[2];
};

/* A parsed packet. Addresses are in network order, an IPv4 one in word 0; ports are in host order.
 * For ICMP queries the port of the side that asked is the identifier and the other one its type. */
struct packet {
	__u32 src[4];
	__u32 dst[4];
	__u16 src_port;
	__u16 dst_port;
	__u8 protocol;
	__u8 family; /* 4 or 6 */
	__u8 fragment;
	__u8 invalid; /* enum invalid */
	__u8 tcp_flags;
	__u8 type;	 /* ICMP type, or the first SCTP chunk's */
	__u16 transport; /* bytes from the frame's start to the transport header */
	__u32 seq;
	__u32 ack;
	__u32 payload; /* TCP: bytes behind the header */
	__u32 end;     /* bytes from the frame's start to the end of the IP packet */
};

enum direction {
	INBOUND,
	OUTBOUND,
};

/* The order is that of config.h's timeouts; names and defaults are netfilter's where it has the state. */
enum flow_state {
	FLOW_NONE,
	FLOW_TCP_SYN_SENT,
	FLOW_TCP_SYN_RECV,
	FLOW_TCP_ESTABLISHED,
	FLOW_TCP_FIN_WAIT,
	FLOW_TCP_CLOSE_WAIT,
	FLOW_TCP_LAST_ACK,
	FLOW_TCP_TIME_WAIT,
	FLOW_TCP_CLOSE,
	FLOW_TCP_LOOSE, /* picked up in mid-stream, not answered yet */
	FLOW_UDP,
	FLOW_UDP_STREAM,
	FLOW_ICMP,
	FLOW_GRE,
	FLOW_GRE_STREAM,
	FLOW_SCTP_NEW,
	FLOW_SCTP_ESTABLISHED,
	FLOW_SCTP_CLOSED,
	FLOW_OTHER,
	FLOW_TCP_UNACKNOWLEDGED, /* no state: the timeout of a flow whose peer may be gone */
	FLOW_STATES,
	FLOW_KILLED = FLOW_STATES, /* cut by the administrator: no packet matches, none revives it but a new SYN */
};

/* What has been seen of a flow besides its state. */
enum mark {
	ANSWERED = 1 << 0, /* something has come in: netfilter's SEEN_REPLY */
	ASSURED = 1 << 1,  /* netfilter's ASSURED: the flow gives its place to no new one */
	FIN_OURS = 1 << 2,
	FIN_THEIRS = 1 << 3, /* or somebody's in its name */
	RST_OURS = 1 << 4,   /* and nothing has come since */
	RST_THEIRS = 1 << 5, /* may have ended the connection, and this host has not spoken since */
	SYN_THEIRS = 1 << 6, /* both ends have sent a SYN, and no SYN-ACK: netfilter's SYN_SENT2 */
	SYN_AGAIN = 1 << 7,  /* a SYN of ours within the flow: a SYN-ACK to it begins the flow anew */
	UNACKED = 1 << 8,    /* the peer has to answer something of ours, and has not yet */
	PROBED = 1 << 9,     /* we have sent something anew, or asked whether the peer is there, once */
	NUMBERED = 1 << 10,  /* `end` is known */
};

#define CREATED_SHIFT 4 /* 2^32 times 16 jiffies are two years and more */

struct flow {
	__u64 expires; /* jiffies */
	__u32 created; /* in units of 2^CREATED_SHIFT jiffies */
	__u32 ack;     /* the last TCP acknowledgement that this host sent */
	__u32 end;     /* the sequence number behind all that this host sent */
	__u16 marks;   /* enum mark */
	__u8 state;
	__u8 pad;
};

/* A place of the flow table: one line of the cache. */
struct entry {
	struct flow_key key;
	struct flow flow;
};
_Static_assert(sizeof(struct entry) == 64, "an entry is a line of the cache");

/* What tells of each place of a set whether it may be the one that is looked for: another line, tags of 10 bits. The
 * hash names the word in which a flow's tag is looked for first. Where that was full the flow is a stray, in another
 * word; how many of those a word has is in its bits above the tags. */
#define TAG_BITS 10
#define TAGS_PER_WORD 6
#define STRAYS_SHIFT (TAGS_PER_WORD * TAG_BITS)
#define TAG_WORDS 8
#define PLACES_PER_SET (TAG_WORDS * TAGS_PER_WORD)
struct tags {
	__u64 words[TAG_WORDS];
};

/* What one (class, destination port) means, or a protocol without ports. User space writes it as one aligned word. */
struct port {
	__u16 rule; /* 0: not open to everybody; else the rule that opens it */
	__u16 set;  /* 0: no source may; else the set of prefixes that may */
};

/* What becomes of packets from some sources. */
enum decision_kind {
	LETS_IN,    /* by the rule with that number; 0: by none */
	LIMITED,    /* the same, as often as the rule's limit allows */
	BY_ADDRESS, /* as the set with that number says of the destination */
};

struct decision {
	__u16 number;
	__u16 kind;
};

/* What is known of an interface by which packets come that are routed. */
enum forwarder_flag {
	FORWARDER_JUDGED = 1 << 0,  /* whatever comes in by it has met a filter on the way in */
	FORWARDER_BEGINS = 1 << 1,  /* guests of this host are behind it, which may begin outward */
	FORWARDS_ANYTHING = 1 << 2, /* of all others: something is let through at all */
};

/* User space writes it as one aligned word. */
struct forwarder {
	__u16 set; /* of forward rules, or 0 */
	__u16 flags;
} __attribute__((aligned(4)));

/* How often a rule lets one source in. Times are in nanoseconds, see limit.h. */
struct limit {
	__u64 salt;	 /* the same for equal rules alone */
	__u64 interval;	 /* between two packets; 0: no limit */
	__u64 tolerance; /* how much earlier one may come */
};

/* What a source of a limited rule is charged with. */
struct bucket {
	__u64 key;     /* hash of source and rule; 0: free, 1: being written */
	__u64 arrival; /* when a packet would come if all came one interval apart: what is beyond now, is the debt */
};

#define BUCKETS_PER_SET 8
struct bucket_set {
	struct bucket buckets[BUCKETS_PER_SET]; /* two lines of the cache, which are fetched together */
};

/* A prefix that the kernel delivers to this host: a local, broadcast or anycast route. */
struct local_key4 {
	__u32 prefix_len;
	__u32 addr;
};

struct local_key6 {
	__u32 prefix_len;
	__u32 addr[4];
};

/* Numbers of block lists, and of reasons that bans have, are below these. */
#define MAX_BLOCK_LISTS 1024
#define MAX_BAN_REASONS 4096

/* A source that is banned: an address or a network. */
struct ban {
	__u64 until;   /* jiffies; from then on it is as if it were not there */
	__u64 since;   /* seconds of the time of day */
	__u64 packets; /* that were dropped */
	__u32 reason;
	__u32 prefix_len; /* its key's */
};

struct ban_reason {
	__u8 text[64]; /* ends with a 0; of the number 0, and of those that are free, it is empty */
	__u64 last;    /* when somebody was last banned for it, in seconds of the time of day */
	__u32 bans;    /* that there are, and those that have ended and are not taken out yet */
	__u32 pad;
};

/* The sets of addresses that are blocked and trusted, by their numbers; 0: none is. What the first one says of an address
 * is the number of the block list. */
struct blocking {
	__u16 block_set;
	__u16 trust_set;
	__u16 half;    /* of block_lists that counts */
	__u16 changes; /* how many there have been */
} __attribute__((aligned(8)));

/* A block list in force. */
struct block_list {
	__u8 name[64]; /* ends with a 0 */
	__u8 digest[32];
	__u64 since; /* seconds of the time of day when these networks were first in force */
	__u32 networks4;
	__u32 networks6;
	__u32 order; /* its place among the lists of the policy, from 1 on; 0: there is no such list */
	__u32 pad[3];
};
_Static_assert(sizeof(struct block_list) == 128, "a block list fills lines of the cache");

/* Where the record of a rule is, for the commands that come after: user space writes it as one aligned word, so a rule
 * is there as a whole or not at all. */
struct rule {
	__u32 offset; /* in rule_records, in bytes */
	__u32 length; /* 0: there is no such rule */
} __attribute__((aligned(8)));

/* What the running filter was told, for the commands that come after. */
struct settings {
	__u64 netns;	     /* cookie of the network namespace */
	__u32 hz;	     /* jiffies a second */
	__u32 config_length; /* of config */
	__u32 policy_length; /* of policy */
	__u32 features;	     /* that the programs were loaded with */
	__u8 config[4096];   /* path of the file that the policy came from */
	__u8 policy[12264];  /* YAML: every key but interfaces and rules */
};

/* The first bytes of a logged frame: its headers, in all but strange cases. */
#define EVENT_FRAME 128

/* What is counted of packets. */
struct tally {
	__u64 packets;
	__u64 bytes; /* of their frames, with link headers */
};

/* A packet that user space is shown. */
struct event {
	__u64 time; /* ns since boot */
	__u32 ifindex;
	__u32 reason;
	__u32 length; /* bytes of the frame */
	__u16 captured;
	__u8 ethernet; /* the frame begins with an Ethernet header */
	__u8 pad;
	__u8 frame[EVENT_FRAME];
};

/* What a CPU may still log. */
struct event_budget {
	__u64 renewed; /* jiffies */
	__u64 left;
};

/* Who looks at packets as they come. User space writes what he asks for and then sets his bit of struct state; what he
 * does not ask for is 0. Addresses are in network order, an IPv4 one in word 0, and masked. */
#define READERS 8
#define READER_INTERFACES 4
struct reader {
	__u64 until;	    /* jiffies: a reader has to say that he is still there; 0: the slot is free */
	__u64 owner;	    /* tells whose slot it is */
	__u64 reasons;	    /* one bit each */
	__u32 rule_reasons; /* of rules: 0 for none, ANY_RULE, or that of one */
	__u32 interfaces[READER_INTERFACES];
	__u32 snaplen; /* bytes of a frame */
	__u32 rate;    /* packets of a reason that a CPU shows a second */
	__u32 from[4];
	__u32 from_mask[4];
	__u32 to[4];
	__u32 to_mask[4];
	__u16 port;    /* of either end */
	__u16 to_port; /* of the destination */
	__u8 protocol; /* where has_protocol is set */
	__u8 family;   /* 4 or 6, where there is an address */
	__u8 has_protocol;
	__u8 pad[5];
};
#define ANY_RULE (~0u)

/* What a reader is told of a packet. The first bytes of the frame follow. */
struct shown {
	__u64 time; /* ns since boot */
	__u32 ifindex;
	__u32 reason;
	__u32 length; /* bytes of the frame */
	__u32 captured;
	__u8 ethernet; /* the frame begins with an Ethernet header */
	__u8 outbound;
	__u8 pad[6];
};

/* What a CPU may still show of a reason. */
struct allowance {
	__u64 renewed; /* jiffies */
	__u64 left;
	__u64 missed; /* packets that were asked for and not shown */
};

/* Room to work in, for which the stack has none. Of the headers twice as much as is read, so that any place in the first
 * half may be asked for. */
#define READ_BYTES 256
struct showing {
	struct shown shown;
	__u32 place; /* among allowances */
	__u8 read;   /* enum of show.h */
	__u8 family;
	__u8 protocol;
	__u8 has_ports;
	__u16 ports[2]; /* in network order */
	__u32 src[4];
	__u32 dst[4];
	__u8 headers[2 * READ_BYTES];
};

#define LONGEST_LINK 22 /* an Ethernet header with two VLAN tags */

/* A packet that its sender is told of, on its way to become the answer: the stack has no room for it. And how many answers
 * the CPU may still give. */
struct rejection {
	__u64 renewed; /* jiffies */
	__u64 left;
	struct packet packet;
	struct local_key4 key4;
	struct local_key6 key6;
	__u32 quoted; /* bytes */
	__u32 keep;   /* of the frame */
	__u32 link_length;
	__u16 link[LONGEST_LINK / 2];
	__u16 unfinished; /* stands in the place of a checksum that is completed later; 0: none is */
	__u8 tos;
	__u8 way; /* enum xdp_action, or 0 */
	__u8 pad[6];
};

/* The steps of a packet that comes in. README.md tells of them. */
enum step {
	STEP_LINK = 1,
	STEP_PARSE,
	STEP_SOURCE,
	STEP_FORWARD,
	STEP_OPEN,
	STEP_FLOW,
	STEP_CONDITION,
	STEP_ICMP,
	STEP_REFUSE,
};

/* What a dry run has found out about a packet. User space clears it before. */
struct explanation {
	struct entry entry; /* that was found last: a flow that lets the packet in, or that does not */
	struct flow after;  /* what the packet would have made of it */
	struct ban ban;	    /* that drops it */
	__u64 debt;	    /* of a source that is over its limit: nanoseconds till it may come again */
	struct packet packet;
	__u32 reason;  /* under which it would be counted */
	__u32 refused; /* the same before its sender is told */
	__u32 seen;    /* the same of what is invalid about it, or 0 */
	__u32 place;   /* of entry, from 1 on; 0: no flow was found */
	__u32 list;    /* block list that drops it, or 0 */
	__u32 step;    /* enum step: the last one that was taken */
	__u32 trusted; /* its source is */
	__u32 limited; /* rule whose limit drops it, or 0 */
	__u32 generic; /* set by user space: XDP runs behind the driver */
};

/* Argument of portcullis_enter: a flow that user space knows of. */
struct seed {
	struct entry entry;
	__u32 replace; /* also where one is alive */
	__u32 entered;
};

/* Argument of the sweep: how many flows it saw, and took out. */
struct sweep {
	__u64 now; /* jiffies */
	__u32 flush;
	__u32 live;
	__u32 removed;
	__u32 pad;
};

#endif
