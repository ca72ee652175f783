//go:build ignore

// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* What the benchmark sends and what takes it in. No part of the firewall: an object of its own.
 *
 * bench_send is run with BPF_F_TEST_XDP_LIVE_FRAMES. It completes the frame that user space made, whose pages come
 * back with what the last turn wrote, and sends it. Behind the filter one socket with a filter that keeps nothing takes
 * every port, so that what a firewall accepts costs each of them the same. */
#include <linux/bpf.h>
#include <stdbool.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "headers.h"
#include "types.h"

/* Addresses, ports and sums are in host order. The sums are those of what never changes: no packet's bytes count twice. */
volatile const __u8 protocol = PROTO_TCP;
volatile const __u32 first_source = 0;
volatile const __u32 source_mask = 0; /* of the random bits of the source */
volatile const bool anywhere = false; /* the source is any ordinary address */
volatile const __u32 scattered = 0;   /* it is one of so many of those; user space knows which */
volatile const bool random_ports = false;
volatile const __u16 source_port = 0;
volatile const __u16 port = 0;	      /* destination, where it is not random */
volatile const __u16 spared_port = 0; /* that no random one hits */
volatile const __u32 flows = 0;	      /* answers of so many flows: the source then is the flow's number */
volatile const __u16 first_flow_port = 0;
volatile const __u16 flow_ports = 0;
volatile const bool in_order = false; /* the flows one after the other, and not at random */
volatile const __u32 ip_sum = 0;
volatile const __u32 transport_sum = 0;

__u64 sent;
__u64 received;
bool catching; /* every port leads to the sink */

/* A 64-bit mixer (the finalizer of MurmurHash3): random enough, and half the price of the helper. */
static __always_inline __u64 mix(__u64 number)
{
	number ^= number >> 33;
	number *= 0xff51afd7ed558ccd;
	number ^= number >> 33;
	number *= 0xc4ceb9fe1a85ec53;
	return number ^ number >> 33;
}

static __always_inline __u32 add_words(__u32 sum, __u32 address)
{
	return sum + (address >> 16) + (address & 0xffff);
}

static __always_inline __be16 checksum(__u32 sum)
{
	sum = (sum >> 16) + (sum & 0xffff);
	sum += sum >> 16;
	return bpf_htons(~sum);
}

/* The local port of a flow; user space computes the same. */
static __always_inline __u16 flow_port(__u32 number)
{
	return first_flow_port + ((number * 40503 & 0xffff) * flow_ports >> 16);
}

#define SCATTERED (1ULL << 40) /* a number that is not sent: other addresses than those that are drawn anywhere */

/* One of the ordinary addresses, which are all from 1.0.0.0 to 223.255.255.255 but for 127.0.0.0/8. User space computes
 * the same. */
static __always_inline __u32 ordinary(__u32 dice)
{
	__u32 address = (__u32)((__u64)dice * (222u << 24) >> 32) + (1 << 24);

	return address < 127u << 24 ? address : address + (1 << 24);
}

SEC("xdp")
int bench_send(struct xdp_md *ctx)
{
	struct ethernet_header *eth = (void *)(long)ctx->data;
	struct ipv4_header *ip = (void *)(eth + 1);
	struct tcp_header *tcp = (void *)(ip + 1);
	struct udp_header *udp = (void *)(ip + 1);
	__u64 number = sent++;
	__u32 source = first_source;
	__u16 from = source_port, to = port;

	if ((void *)(tcp + 1) > (void *)(long)ctx->data_end)
		return XDP_ABORTED;

	if (flows) {
		__u32 flow = in_order ? number : (mix(number) >> 32) * flows >> 32;

		source += flow;
		to = flow_port(flow);
	} else if (scattered) {
		source = ordinary(mix(SCATTERED + ((mix(number) >> 32) * scattered >> 32)) >> 32);
	} else if (anywhere) {
		source = ordinary(mix(number) >> 32);
	} else if (source_mask || random_ports) {
		__u64 dice = mix(number);

		source += dice & source_mask;
		if (random_ports) {
			from = dice >> 48;
			to = dice >> 32;
			to ^= to == spared_port;
		}
	}

	ip->src = bpf_htonl(source);
	ip->checksum = checksum(add_words(ip_sum, source));
	tcp->src = bpf_htons(from);
	tcp->dst = bpf_htons(to);
	if (protocol == PROTO_TCP)
		tcp->checksum = checksum(add_words(transport_sum, source) + from + to);
	else
		udp->checksum = checksum(add_words(transport_sum, source) + from + to);
	return XDP_TX;
}

struct {
	__uint(type, BPF_MAP_TYPE_SOCKMAP);
	__uint(max_entries, 2);
	__type(key, __u32); /* 0 the TCP listener, 1 the UDP socket */
	__type(value, __u64);
} sinks SEC(".maps");

SEC("sk_lookup")
int bench_catch(struct bpf_sk_lookup *ctx)
{
	__u32 key = ctx->protocol != PROTO_TCP;
	struct bpf_sock *socket;
	long failed;

	if (!catching)
		return SK_PASS;
	socket = bpf_map_lookup_elem(&sinks, &key);
	if (!socket)
		return SK_DROP;
	failed = bpf_sk_assign(ctx, socket, 0);
	bpf_sk_release(socket);
	return failed ? SK_DROP : SK_PASS;
}

SEC("socket")
int bench_sink(struct __sk_buff *skb)
{
	__sync_fetch_and_add(&received, 1);
	return 0;
}

char __license[] SEC("license") = "Dual BSD/GPL";
