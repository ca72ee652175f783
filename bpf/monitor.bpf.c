//go:build ignore

// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Shows packets to one reader: an object of its own, which every reader loads for himself and attaches to the programs of
 * the firewall, at shown_xdp and shown_skb (show.h). What he asks for is filtered here, so that one packet among millions
 * is found. Of each reason a CPU shows so many a second: a flood of one silences no other. What is not shown is counted. */
#include <linux/bpf.h>
#include <stdbool.h>

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#include "types.h"
#include "verdict.h"

/* What is asked for. Addresses are in network order, an IPv4 one in word 0, and already masked. */
volatile const __u64 reasons = ~0ULL; /* one bit each */
volatile const bool rules = true;     /* what rules let in */
volatile const __u32 rule = 0;	      /* only what this one does */
volatile const __s32 on = 0;	      /* index of the interface */
volatile const __u8 family = 0;	      /* 4 or 6 where there is an address */
volatile const __u32 from[4] = {};
volatile const __u32 from_mask[4] = {};
volatile const __u32 to[4] = {};
volatile const __u32 to_mask[4] = {};
volatile const __u16 port = 0; /* of either end */
volatile const __u8 protocol = 0;

volatile const __u32 snaplen = 128;
volatile const __u32 rate = 100; /* packets of a reason that a CPU shows a second; 0: all */
volatile const __u32 hz = 250;
volatile const bool outbound = false;
volatile const __u32 watched = 0; /* which of the programs that the reader watches this is */

/* What a reader is told of a packet. The first bytes of the frame follow. */
struct shown {
	__u64 time; /* ns since boot */
	__u32 ifindex;
	__u32 reason;
	__u32 length; /* bytes of the frame */
	__u32 captured;
	__u32 watched;
	__u8 ethernet; /* the frame begins with an Ethernet header */
	__u8 outbound;
	__u8 pad[2];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERF_EVENT_ARRAY);
	__type(key, __u32);
	__type(value, __u32);
} packets SEC(".maps");

/* By reason, and behind those what rules have let in. */
#define ALLOWANCES (RULE_ZERO + 1)
struct allowance {
	__u64 renewed; /* jiffies */
	__u64 left;
	__u64 missed; /* packets that were asked for and not shown */
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, ALLOWANCES);
	__type(key, __u32);
	__type(value, struct allowance);
} allowances SEC(".maps");

/* The headers of a packet. Twice as much room as is read, so that any place within the first half may be asked. */
#define READ_BYTES 256
struct headers {
	__u8 bytes[2 * READ_BYTES];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct headers);
} read_headers SEC(".maps");

#define KERNEL __attribute__((preserve_access_index))
#define ARPHRD_ETHER 1 /* linux/if_arp.h */

struct net_device {
	int ifindex;
	unsigned short type;
} KERNEL;

struct xdp_rxq_info {
	struct net_device *dev;
} KERNEL;

struct xdp_buff {
	void *data;
	void *data_end;
	struct xdp_rxq_info *rxq;
} KERNEL;

struct sk_buff {
	struct net_device *dev;
	unsigned int len;
	unsigned int data_len;
	unsigned char *data;
} KERNEL;

static __always_inline bool is_wanted(__u32 reason)
{
	if (reason < RULE_ZERO)
		return reasons >> reason & 1;
	return rules && (!rule || reason == RULE_REASON(rule));
}

static __always_inline bool asks_for_headers(void)
{
	return family || port || protocol;
}

/* What stands at a place among the headers that were read. */
#define AT(headers, place, type) ((type *)&(headers)->bytes[BOUNDED(place, READ_BYTES - 1)])

static __always_inline bool is_within(const __u32 *address, const volatile __u32 *prefix, const volatile __u32 *mask,
				      int words)
{
	for (int i = 0; i < words; i++)
		if ((address[i] & mask[i]) != prefix[i])
			return false;
	return true;
}

#define MOST_EXTENSIONS 10 /* as parse.h */

static __always_inline bool has_port(__u8 protocol)
{
	return protocol == PROTO_TCP || protocol == PROTO_UDP || protocol == PROTO_SCTP || protocol == PROTO_UDPLITE;
}

/* Whether a packet is one that is asked for, by its headers. What cannot be read is not. */
static __always_inline bool matches(const void *data, __u32 linear, bool ethernet)
{
	__u32 zero = 0, place = 0, length = linear < READ_BYTES ? linear : READ_BYTES;
	struct headers *headers = bpf_map_lookup_elem(&read_headers, &zero);
	bool later = false;
	__u8 next;

	if (!headers || !length || bpf_probe_read_kernel(headers->bytes, BOUNDED(length - 1, READ_BYTES - 1) + 1, data))
		return false;
	if (ethernet) {
		place = 12;
		for (int i = 0; i < 2; i++) {
			__u16 kind = *AT(headers, place, __u16);

			if (kind == bpf_htons(0x8100) || kind == bpf_htons(0x88a8))
				place += 4;
		}
		place += 2;
	}
	switch (*AT(headers, place, __u8) >> 4) {
	case 4:
		if (family == 6 || place + 20 > length)
			return false;
		if (family && (!is_within(AT(headers, place + 12, __u32), from, from_mask, 1) ||
			       !is_within(AT(headers, place + 16, __u32), to, to_mask, 1)))
			return false;
		next = *AT(headers, place + 9, __u8);
		later = *AT(headers, place + 6, __u16) & bpf_htons(0x1fff);
		place += (*AT(headers, place, __u8) & 0xf) * 4;
		break;
	case 6:
		if (family == 4 || place + 40 > length)
			return false;
		if (family && (!is_within(AT(headers, place + 8, __u32), from, from_mask, 4) ||
			       !is_within(AT(headers, place + 24, __u32), to, to_mask, 4)))
			return false;
		next = *AT(headers, place + 6, __u8);
		place += 40;
		if (!port && !protocol)
			return true;
		for (int i = 0; i < MOST_EXTENSIONS; i++) {
			__u32 size;

			if (next != PROTO_HOP_BY_HOP && next != PROTO_ROUTING && next != PROTO_DEST_OPTIONS &&
			    next != PROTO_FRAGMENT)
				break;
			if (place + 8 > length)
				return false;
			size = 8;
			if (next == PROTO_FRAGMENT)
				later = *AT(headers, place + 2, __u16) & bpf_htons(0xfff8);
			else
				size += *AT(headers, place + 1, __u8) * 8;
			next = *AT(headers, place, __u8);
			place += size;
			if (later)
				break;
		}
		break;
	default:
		return false;
	}
	if (protocol && next != protocol)
		return false;
	if (!port)
		return true;
	return has_port(next) && !later && place + 4 <= length &&
	       (*AT(headers, place, __u16) == bpf_htons(port) || *AT(headers, place + 2, __u16) == bpf_htons(port));
}

/* The allowance of a reason, where it is to be shown now. */
static __always_inline struct allowance *allow(__u32 reason)
{
	__u32 place = reason < RULE_ZERO ? reason : RULE_ZERO;
	struct allowance *allowance = bpf_map_lookup_elem(&allowances, &place);
	__u64 time;

	if (!allowance || !rate)
		return allowance;
	time = bpf_jiffies64();
	if (time - allowance->renewed >= hz) {
		allowance->renewed = time;
		allowance->left = rate;
	}
	if (!allowance->left) {
		allowance->missed++;
		return NULL;
	}
	allowance->left--;
	return allowance;
}

static __always_inline struct shown shown_of(const struct net_device *dev, __u32 reason, __u32 length)
{
	return (struct shown){
		.time = bpf_ktime_get_boot_ns(),
		.ifindex = dev->ifindex,
		.reason = reason,
		.length = length,
		.captured = length < snaplen ? length : snaplen,
		.watched = watched,
		.ethernet = dev->type == ARPHRD_ETHER,
		.outbound = outbound,
	};
}

#define CAPTURED_SHIFT 32 /* BPF_F_CTXLEN_MASK */

SEC("fentry/shown_xdp")
int BPF_PROG(monitor_xdp, struct xdp_buff *xdp, __u32 reason)
{
	struct allowance *allowance;
	struct net_device *dev;
	struct shown shown;

	if (!is_wanted(reason))
		return 0;
	if (on && xdp->rxq->dev->ifindex != on)
		return 0;
	if (asks_for_headers() && !matches(xdp->data, xdp->data_end - xdp->data, xdp->rxq->dev->type == ARPHRD_ETHER))
		return 0;
	allowance = allow(reason);
	if (!allowance)
		return 0;
	dev = xdp->rxq->dev;
	shown = shown_of(dev, reason, bpf_xdp_get_buff_len((void *)xdp));
	if (bpf_xdp_output(xdp, &packets, (__u64)shown.captured << CAPTURED_SHIFT | BPF_F_CURRENT_CPU, &shown,
			   sizeof(shown)))
		allowance->missed++;
	return 0;
}

SEC("fentry/shown_skb")
int BPF_PROG(monitor_skb, struct sk_buff *skb, __u32 reason)
{
	struct allowance *allowance;
	struct shown shown;

	if (!is_wanted(reason))
		return 0;
	if (on && skb->dev->ifindex != on)
		return 0;
	if (asks_for_headers() && !matches(skb->data, skb->len - skb->data_len, skb->dev->type == ARPHRD_ETHER))
		return 0;
	allowance = allow(reason);
	if (!allowance)
		return 0;
	shown = shown_of(skb->dev, reason, skb->len);
	if (bpf_skb_output(skb, &packets, (__u64)shown.captured << CAPTURED_SHIFT | BPF_F_CURRENT_CPU, &shown,
			   sizeof(shown)))
		allowance->missed++;
	return 0;
}

/* Keeps the type in BTF for Go. */
struct shown *volatile const shown_type = NULL;

char __license[] SEC("license") = "Dual BSD/GPL";
