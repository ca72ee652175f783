//go:build ignore

// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Portcullis: the story of a packet. The entry points gather what the context knows and call one core, for XDP and
 * TC, IPv4 and IPv6. The core returns a reason (verdict.h), which is counted once and decides. */
#include <linux/bpf.h>
#include <linux/pkt_cls.h>

#include <bpf/bpf_helpers.h>

#include "config.h"
#include "count.h"
#include "device.h"
#include "egress.h"
#include "event.h"
#include "explain.h"
#include "flow.h"
#include "forward.h"
#include "ingress.h"
#include "maps.h"
#include "parse.h"
#include "policy.h"
#include "reject.h"
#include "show.h"
#include "sweep.h"
#include "types.h"
#include "verdict.h"

#define PACKET_OTHERHOST 3 /* linux/if_packet.h */

/* Tells user space that the driver runs the program. CPUs that write at once write the same, or a jiffy less. */
static __always_inline void note_run(__u32 ifindex, __u64 time)
{
	__u32 *last = &last_run[slot_of(ifindex)];

	if (dry_run)
		return;
	if (*last != (__u32)time)
		*last = (__u32)time;
}

/* Global functions, so that the verifier walks them once and not behind every path of the packet. */
__noinline int invalid_xdp(struct xdp_md *ctx, __u32 kind)
{
	count_seen(SEEN_INVALID(kind));
	if (invalid_policy == POLICY_LOG)
		log_frame(&events, 0, ctx, false, ctx->ingress_ifindex,
			  multi_buffer ? bpf_xdp_get_buff_len(ctx) : ctx->data_end - ctx->data, SEEN_INVALID(kind),
			  now());
	if (is_logged(SEEN_INVALID(kind)))
		logged_xdp(ctx, SEEN_INVALID(kind));
	return 0;
}

__noinline int invalid_skb(struct __sk_buff *skb, __u32 kind)
{
	count_seen(SEEN_INVALID(kind));
	if (invalid_policy == POLICY_LOG)
		log_frame(&events, 0, skb, true, skb->ifindex, skb->len, SEEN_INVALID(kind), now());
	if (is_logged(SEEN_INVALID(kind)))
		logged_skb(skb, SEEN_INVALID(kind));
	return 0;
}

/* The frame's Ethernet header, or NULL on a device that has none. */
static __always_inline struct ethernet_header *ethernet_of(const struct frame *frame)
{
	return ethernet ? HEADER(frame, 0, struct ethernet_header) : NULL;
}

/* Whether this host's stack takes the frames of a MAC, see is_station. Global functions, as above. */
__noinline int station_xdp(struct xdp_md *ctx, __u64 mac, __u64 time)
{
	return is_station(ctx, false, ctx->ingress_ifindex, mac, time);
}

__noinline int station_skb(struct __sk_buff *skb, __u64 mac, __u64 time)
{
	return is_station(skb, true, skb->ifindex, mac, time);
}

static __always_inline struct input input_of_xdp(struct xdp_md *ctx)
{
	return (struct input){
		.ctx = ctx,
		.frame.begin = (void *)(long)ctx->data,
		.frame.end = (void *)(long)ctx->data_end,
		.frame.length = multi_buffer ? bpf_xdp_get_buff_len(ctx) : ctx->data_end - ctx->data,
		.ifindex = ctx->ingress_ifindex,
		.time = now(),
	};
}

/* Whether a frame is to become the answer to itself, and what becomes of it then, or 0, see reject.h. Global functions, as
 * above; where nobody says reject they are empty. */
__noinline int reject_xdp(struct xdp_md *ctx, __u64 time)
{
	struct frame frame;

	if (input_policy != POLICY_REJECT)
		return false;
	frame = input_of_xdp(ctx).frame;
	return begin_answer_xdp(ctx, &frame, time);
}

__noinline int turn_xdp(struct xdp_md *ctx)
{
	return input_policy != POLICY_REJECT ? 0 : answer_xdp(ctx, input_of_xdp(ctx).frame);
}

/* WATCHED_SHIFT for a drop that the filter only watches, else 0. It is asked once for a packet: somebody may end it. */
static __always_inline __u32 watched_shift(__u32 reason)
{
	return is_drop(reason) && state.watching ? WATCHED_SHIFT : 0;
}

static __always_inline int end_xdp(struct xdp_md *ctx, __u32 reason, __u32 length)
{
	__u32 watched = watched_shift(reason);

	count(ctx->ingress_ifindex, reason + watched, length);
	tell_xdp(ctx, reason, watched);
	if (is_drop(reason + watched))
		return XDP_DROP;
	hand_over(ctx);
	return XDP_PASS;
}

SEC("xdp")
int portcullis_xdp(struct xdp_md *ctx)
{
	struct input input = input_of_xdp(ctx);
	struct ethernet_header *eth = ethernet_of(&input.frame);
	__u32 length = input.frame.length;
	int result;

	note_run(input.ifindex, input.time);
	if (eth && !(eth->dst.bytes[0] & 1) && !is_own_mac(&eth->dst, input.ifindex) &&
	    !station_xdp(ctx, mac_of(&eth->dst), input.time))
		return end_xdp(ctx, PASS_OTHER_HOST, length);
	result = ingress(&input);
	/* The driver's first buffer ends inside the headers: no real one does. */
	if (result < 0)
		result = DROP_BAD_TRANSPORT;
	if (result >> KIND_SHIFT)
		invalid_xdp(ctx, result >> KIND_SHIFT);
	EXPLAIN(refused, result & REASON_MASK);
	if (is_rejectable(result) && !state.watching && reject_xdp(ctx, input.time)) {
		int action;

		tell_xdp(ctx, DROP_REJECTED, 0); /* before it is the answer */
		action = turn_xdp(ctx);
		count(ctx->ingress_ifindex, action ? DROP_REJECTED : result & REASON_MASK, length);
		return action ? action : XDP_DROP;
	}
	return end_xdp(ctx, result & REASON_MASK, length);
}

static __always_inline struct input input_of_skb(struct __sk_buff *skb)
{
	return (struct input){
		.ctx = skb,
		.skb = true,
		.frame.begin = (void *)(long)skb->data,
		.frame.end = (void *)(long)skb->data_end,
		.frame.length = skb->len,
		.frame.merged = skb->gso_segs > 1,
		.ifindex = skb->ifindex,
		.time = now(),
	};
}

/* Headers are seldom outside the linear part; then they are pulled in and read once more. */
#define PULL_BYTES 2048

static __always_inline bool pull(struct __sk_buff *skb)
{
	return !bpf_skb_pull_data(skb, skb->len < PULL_BYTES ? skb->len : PULL_BYTES);
}

/* Global functions, so that the verifier walks them once for both calls. */
__noinline int tc_ingress(struct __sk_buff *skb)
{
	struct input input = input_of_skb(skb);

	return ingress(&input);
}

/* Whether what was routed may leave. */
__noinline int routed_skb(struct __sk_buff *skb, struct packet *packet)
{
	struct input input = input_of_skb(skb);

	return packet ? may_leave(&input, skb->ingress_ifindex, packet) : DROP_FORWARD;
}

/* The flow is kept by its caller: Linux 6.1 has no stack for that below the parser. */
__noinline int tc_egress(struct __sk_buff *skb, struct packet *packet)
{
	struct input input = input_of_skb(skb);
	struct ethernet_header *eth = ethernet_of(&input.frame);

	if (!packet)
		return PARSED;

	/* What a bridge sends on for a virtual machine, or a macvlan for another namespace, has their MAC: it is neither
	 * routed nor ours. */
	if (eth && !is_own_mac(&eth->src, input.ifindex) && !station_skb(skb, mac_of(&eth->src), input.time))
		return PARSED;
	return egress(&input, skb->ingress_ifindex, packet);
}

/* The kernel calls a frame another host's that is not for the device's own MAC, but a device on top of it may take it. */
static __always_inline bool is_other_host(struct __sk_buff *skb)
{
	struct ethernet_header *eth;
	struct frame frame;

	if (skb->pkt_type != PACKET_OTHERHOST)
		return false;
	frame = input_of_skb(skb).frame;
	eth = ethernet_of(&frame);
	return !eth || !station_skb(skb, mac_of(&eth->dst), now());
}

__noinline int reject_skb(struct __sk_buff *skb, __u64 time)
{
	return input_policy == POLICY_REJECT && answer_skb(skb, input_of_skb(skb).frame, time);
}

static __always_inline int end_skb(struct __sk_buff *skb, __u32 reason, __u32 length)
{
	__u32 watched = watched_shift(reason);

	count_skb(skb, reason + watched, length);
	tell_skb(skb, reason, watched, false);
	return is_drop(reason + watched) ? TC_ACT_SHOT : TC_ACT_UNSPEC;
}

SEC("tc")
int portcullis_in(struct __sk_buff *skb)
{
	__u32 length = skb->len;
	int result;

	note_run(skb->ifindex, now());
	if (is_other_host(skb))
		return end_skb(skb, PASS_OTHER_HOST, length);
	result = tc_ingress(skb);
	if (result == PARSE_MORE && pull(skb))
		result = tc_ingress(skb);
	if (result < 0)
		result = DROP_BAD_TRANSPORT;
	if (result >> KIND_SHIFT)
		invalid_skb(skb, result >> KIND_SHIFT);
	EXPLAIN(refused, result & REASON_MASK);
	if (is_rejectable(result) && !state.watching && reject_skb(skb, now())) {
		count_skb(skb, DROP_REJECTED, length); /* it was shown before it was the answer */
		return bpf_redirect(skb->ifindex, 0);
	}
	return end_skb(skb, result & REASON_MASK, length);
}

SEC("tc")
int portcullis_out(struct __sk_buff *skb)
{
	struct packet packet = {};
	int reason = tc_egress(skb, &packet);
	__u32 watched, unsent;

	if (reason == PARSE_MORE && pull(skb))
		reason = tc_egress(skb, &packet);
	if (reason == TRACK || (reason == FOLLOW && is_followed(&packet, now())))
		track(&packet);
	if (reason < 0)
		return TC_ACT_UNSPEC;
	watched = watched_shift(reason);
	unsent = watched ? UNSENT_LIMIT_WATCHED : UNSENT_LIMIT;
	count(skb->ifindex, reason == DROP_LIMIT ? unsent : unsent + 1, skb->len);
	tell_skb(skb, reason, watched, true);
	return watched ? TC_ACT_UNSPEC : TC_ACT_SHOT;
}

/* Keeps the names and types in BTF for Go. In .rodata: .bss holds the ports and nothing else. */
volatile const enum reason reason_names = 0;
volatile const enum flow_state flow_state_names = 0;
volatile const enum policy policy_names = 0;
volatile const enum mark mark_names = 0;
volatile const enum decision_kind decision_kind_names = 0;
volatile const enum range_set_state range_set_state_names = 0;
volatile const enum forwarder_flag forwarder_flag_names = 0;
volatile const enum ask ask_names = 0;
struct event *volatile const event_type = NULL;
struct reader *volatile const reader_type = NULL;
struct shown *volatile const shown_type = NULL;
struct decision *volatile const decision_type = NULL;
/* Of structures that are named and not described, clang 19 writes the names in another order each time. */
struct bpf_sock *volatile const bpf_sock_type = NULL;
struct bpf_flow_keys *volatile const bpf_flow_keys_type = NULL;

char __license[] SEC("license") = "Dual BSD/GPL";
