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
#include "event.h"
#include "flow.h"
#include "limit.h"
#include "maps.h"
#include "parse.h"
#include "policy.h"
#include "reject.h"
#include "related.h"
#include "sweep.h"
#include "types.h"
#include "verdict.h"

#define PACKET_OTHERHOST 3 /* linux/if_packet.h */

/* What an entry point knows and the core needs. */
struct input {
	void *ctx;
	bool skb; /* what ctx is: struct __sk_buff or xdp_md */
	struct frame frame;
	__u32 ifindex;
	__u64 time;
};

/* Tells user space that the driver runs the program. CPUs that write at once write the same, or a jiffy less. */
static __always_inline void note_run(__u64 time)
{
	__u32 *last = &last_run[BOUNDED(run_slot, RUN_SLOTS - 1)];

	if (*last != (__u32)time)
		*last = (__u32)time;
}

/* Under `log` an invalid packet is told of, and the rest of the policy decides. */
static __always_inline bool invalid_decides(const struct packet *packet)
{
	return packet->invalid && invalid_policy != POLICY_LOG;
}

static __always_inline int invalid_verdict(void)
{
	return invalid_policy == POLICY_ACCEPT ? PASS_INVALID : DROP_INVALID;
}

/* A packet that belongs to no flow. Where all input is accepted, connections that came in have none, and their FIN
 * and RST are none the worse for it. */
static __always_inline enum invalid invalid_without_flow(const struct packet *packet)
{
	if (packet->invalid || input_policy == POLICY_ACCEPT)
		return packet->invalid;
	if (packet->protocol == PROTO_TCP && !is_tcp_syn(packet) &&
	    (packet->tcp_flags & (TCP_ACK | TCP_RST | TCP_SYN | TCP_FIN)) != TCP_ACK)
		return INVALID_STATE;
	if (is_icmp(packet) && icmp_needs_flow(packet->protocol, packet->type))
		return INVALID_ICMP;
	return INVALID_NONE;
}

/* Nothing open, no flow, no exception: the name says what it was. `condition`: why a rule for this port does not let it
 * in, or 0. */
static __always_inline __u32 refuse(struct packet *packet, __u32 condition)
{
	packet->invalid = invalid_without_flow(packet);
	if (invalid_decides(packet))
		return invalid_verdict();
	if (input_policy == POLICY_ACCEPT)
		return PASS_INPUT;
	if (packet->invalid)
		return DROP_INVALID;
	if (condition)
		return condition;
	if (class_of(packet->protocol) != CLASS_NONE)
		return DROP_CLOSED_PORT;
	return DROP_PROTOCOL;
}

/* PASS_ESTABLISHED or PASS_RELATED for an answer, an error or another packet of a flow of ours, PARSED when it is
 * none, or PARSE_MORE. */
static __always_inline int answers(const struct input *input, struct packet *packet, bool local)
{
	int related;

	if (is_icmp(packet) && icmp_is_error(packet->protocol, packet->type)) {
		related = is_related(&input->frame, packet, local, input->time);
		return related == true ? PASS_RELATED : related == PARSE_MORE ? PARSE_MORE : PARSED;
	}
	if (is_icmp(packet) && !icmp_query_of_reply(packet->protocol, packet->type))
		return PARSED;
	return flow_admits(packet, class_of(packet->protocol), input->time) ? PASS_ESTABLISHED : PARSED;
}

/* The reason for which a restricted port lets a packet in or not. */
static __always_inline __u32 by_condition(const struct input *input, struct packet *packet, __u32 set)
{
	struct decision decision = decide(packet, set, INBOUND);

	if (!decision.number)
		return DROP_SOURCE;
	if (uses_limits && decision.kind == LIMITED && begins_something(packet) &&
	    !limit_admits(packet, decision.number, input->time))
		return DROP_LIMIT;
	return RULE_REASON(decision.number);
}

static __always_inline int icmp(const struct input *input, struct packet *packet)
{
	int answer = answers(input, packet, true);
	__u32 condition = DROP_ICMP;
	struct port port;

	if (answer != PARSED)
		return answer;
	packet->invalid = invalid_without_flow(packet);
	if (invalid_decides(packet))
		return invalid_verdict();
	if (is_neighbor_discovery(packet))
		return PASS_NEIGHBOR_DISCOVERY;
	if (icmp_accepted(packet))
		return PASS_ICMP;
	/* A rule for all protocols. */
	port = protocol_entry(packet->protocol);
	if (port.rule)
		return RULE_REASON(port.rule);
	if (port.set) {
		condition = by_condition(input, packet, port.set);
		if (!is_drop(condition))
			return condition;
		if (condition == DROP_SOURCE)
			condition = DROP_ICMP;
	}
	return input_policy == POLICY_ACCEPT ? PASS_INPUT : condition;
}

/* For somebody else: the forward policy decides alone. */
static __always_inline int forward(const struct input *input, struct packet *packet)
{
	int answer;

	if (forward_policy == POLICY_ACCEPT)
		return PASS_FORWARD;
	if (forward_policy == POLICY_ESTABLISHED) {
		if (packet->fragment == FRAGMENT_LATER)
			return PASS_FRAGMENT;
		answer = answers(input, packet, false);
		if (answer != PARSED)
			return answer;
	}
	return DROP_FORWARD;
}

/* The reason for which a packet to this host passes or not, or PARSE_MORE. */
static __always_inline int input_verdict(const struct input *input, struct packet *packet)
{
	enum port_class class = class_of(packet->protocol);
	__u32 condition = 0;
	struct port port;

	if (invalid_decides(packet))
		return invalid_verdict();
	if (class != CLASS_NONE)
		port = port_entry(class, packet->dst_port);
	else if (is_icmp(packet))
		return icmp(input, packet);
	else
		port = protocol_entry(packet->protocol);
	/* Open to everybody: no state at all, so a flood of SYNs allocates nothing. */
	if (port.rule)
		return RULE_REASON(port.rule);
	if (flow_admits(packet, class, input->time))
		return PASS_ESTABLISHED;
	if (port.set) {
		condition = by_condition(input, packet, port.set);
		if (!is_drop(condition))
			return condition;
	}
	if (is_dhcp_answer(packet))
		return PASS_DHCP;
	return refuse(packet, condition);
}

/* The kind of enum invalid stands above the reason. */
#define KIND_SHIFT 24
#define REASON_MASK 0xffffff

/* The reason for which an inbound frame passes or not, with what is invalid about it, or PARSE_MORE. */
static __always_inline int ingress(const struct input *input)
{
	struct packet packet = {};
	int result;

	result = parse(&input->frame, &packet);
	if (result != PARSED)
		return result;
	if (is_for_other_host(input->ctx, input->skb, input->ifindex, &packet, input->time))
		return forward(input, &packet);
	if (packet.fragment == FRAGMENT_LATER)
		return PASS_FRAGMENT;
	result = input_verdict(input, &packet);
	return result < 0 ? result : result | packet.invalid << KIND_SHIFT;
}

/* Global functions, so that the verifier walks them once and not behind every path of the packet. */
__noinline int invalid_xdp(struct xdp_md *ctx, __u32 kind)
{
	count(SEEN_INVALID(kind));
	if (invalid_policy == POLICY_LOG)
		log_frame(ctx, false, ctx->ingress_ifindex,
			  multi_buffer ? bpf_xdp_get_buff_len(ctx) : ctx->data_end - ctx->data, SEEN_INVALID(kind),
			  now());
	return 0;
}

__noinline int invalid_skb(struct __sk_buff *skb, __u32 kind)
{
	count(SEEN_INVALID(kind));
	if (invalid_policy == POLICY_LOG)
		log_frame(skb, true, skb->ifindex, skb->len, SEEN_INVALID(kind), now());
	return 0;
}

/* Whether who answers to this packet comes in through its port, or by its protocol, open to everybody or to him. A limit
 * does not count: it is for those who begin. Answers to ICMP are invalid without a flow. */
static __always_inline bool comes_in_anyway(struct packet *packet, enum port_class class)
{
	struct port port;

	if (class != CLASS_NONE)
		port = port_entry(class, packet->src_port);
	else if (is_icmp(packet))
		return false;
	else
		port = protocol_entry(packet->protocol);
	return port.rule || (port.set && decide(packet, port.set, OUTBOUND).number);
}

/* The reason for which a routed packet may not leave, TRACK, PARSED when there is nothing to do, or PARSE_MORE. `came_by`
 * is the interface that it came in on, or 0. */
static __always_inline int egress(const struct input *input, __u32 came_by, struct packet *packet)
{
	enum port_class class;
	bool open, ours;
	int result;

	*packet = (struct packet){};
	result = parse(&input->frame, packet);
	if (result != PARSED)
		return result == PARSE_MORE ? PARSE_MORE : PARSED;
	if (came_by == input->ifindex && is_answer(packet, input->time))
		return PARSED;
	if (came_by && forward_policy == POLICY_DROP)
		return DROP_FORWARD;
	if (packet->fragment == FRAGMENT_LATER)
		return PARSED;

	class = class_of(packet->protocol);
	open = comes_in_anyway(packet, class);
	ours = !came_by ||
	       ((open || forward_policy == POLICY_ACCEPT) && is_from_us(input->ctx, came_by, packet, input->time));
	/* Whoever answers comes in through the port, or, where everything is let through, needs no flow. Were these
	 * flows, the outside could make us allocate. Routed, it is an answer of ours when a container gave it and the
	 * address was translated back. */
	return (ours ? open : forward_policy == POLICY_ACCEPT) ? PARSED : TRACK;
}

/* Keeps the flow of a packet that goes out, and marks its port: after the flow is there, and before the packet leaves. */
static __always_inline void track(struct packet *packet)
{
	enum port_class class = class_of(packet->protocol);

	if (!flow_track(packet, now()))
		count(SEEN_FLOWS_FULL);
	if (class != CLASS_NONE && used[port_slot(class, packet->src_port)] != state.sweep)
		used[port_slot(class, packet->src_port)] = state.sweep;
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

SEC("xdp")
int portcullis_xdp(struct xdp_md *ctx)
{
	struct input input = input_of_xdp(ctx);
	struct ethernet_header *eth = ethernet_of(&input.frame);
	int result;

	note_run(input.time);
	if (eth && !(eth->dst.bytes[0] & 1) && !same_mac(eth->dst.pairs, own_mac) &&
	    !station_xdp(ctx, mac_of(&eth->dst), input.time)) {
		count(PASS_OTHER_HOST);
		return XDP_PASS;
	}
	result = ingress(&input);
	/* The driver's first buffer ends inside the headers: no real one does. */
	if (result < 0)
		result = DROP_BAD_TRANSPORT;
	if (result >> KIND_SHIFT)
		invalid_xdp(ctx, result >> KIND_SHIFT);
	if (is_rejectable(result) && reject_xdp(ctx, input.time)) {
		int action = turn_xdp(ctx);

		if (action) {
			count(DROP_REJECTED);
			return action;
		}
	}
	count(result & REASON_MASK);
	return is_drop(result & REASON_MASK) ? XDP_DROP : XDP_PASS;
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

/* The flow is kept by its caller: Linux 6.1 has no stack for that below the parser. */
__noinline int tc_egress(struct __sk_buff *skb, struct packet *packet)
{
	struct input input = input_of_skb(skb);
	struct ethernet_header *eth = ethernet_of(&input.frame);

	if (!packet)
		return PARSED;

	/* What a bridge sends on for a virtual machine, or a macvlan for another namespace, has their MAC: it is neither
	 * routed nor ours. */
	if (eth && !same_mac(eth->src.pairs, own_mac) && !station_skb(skb, mac_of(&eth->src), input.time))
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

SEC("tc")
int portcullis_in(struct __sk_buff *skb)
{
	int result;

	note_run(now());
	if (is_other_host(skb)) {
		count(PASS_OTHER_HOST);
		return TC_ACT_UNSPEC;
	}
	result = tc_ingress(skb);
	if (result == PARSE_MORE && pull(skb))
		result = tc_ingress(skb);
	if (result < 0)
		result = DROP_BAD_TRANSPORT;
	if (result >> KIND_SHIFT)
		invalid_skb(skb, result >> KIND_SHIFT);
	if (is_rejectable(result) && reject_skb(skb, now())) {
		count(DROP_REJECTED);
		return bpf_redirect(skb->ifindex, 0);
	}
	count(result & REASON_MASK);
	return is_drop(result & REASON_MASK) ? TC_ACT_SHOT : TC_ACT_UNSPEC;
}

SEC("tc")
int portcullis_out(struct __sk_buff *skb)
{
	struct packet packet = {};
	int reason = tc_egress(skb, &packet);

	if (reason == PARSE_MORE && pull(skb))
		reason = tc_egress(skb, &packet);
	if (reason == TRACK)
		track(&packet);
	if (reason < 0)
		return TC_ACT_UNSPEC;
	count(reason);
	return TC_ACT_SHOT;
}

/* Keeps the names and types in BTF for Go. In .rodata: .bss holds the ports and nothing else. */
volatile const enum reason reason_names = 0;
volatile const enum flow_state flow_state_names = 0;
volatile const enum policy policy_names = 0;
volatile const enum mark mark_names = 0;
volatile const enum decision_kind decision_kind_names = 0;
volatile const enum range_set_state range_set_state_names = 0;
struct event *volatile const event_type = NULL;
struct decision *volatile const decision_type = NULL;

char __license[] SEC("license") = "Dual BSD/GPL";
