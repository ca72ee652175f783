/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* input: reject: a packet that nothing lets in becomes the answer to it, a RST or an ICMP error, as netfilter's
 * REJECT makes it (net/ipv4/netfilter/nf_reject_ipv4.c and its like for IPv6).
 *
 * Who sends chooses every byte of what is answered, so answers are few, go back the way the packet came, and are hardly
 * longer than it. Nothing is answered that may have come to many, or from nobody, or that may be an answer itself. */
#ifndef PORTCULLIS_REJECT_H
#define PORTCULLIS_REJECT_H

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "answer.h"
#include "config.h"
#include "explain.h"
#include "headers.h"
#include "maps.h"
#include "parse.h"
#include "policy.h"
#include "show.h"
#include "types.h"
#include "verdict.h"

/* A CPU gives that many answers in a twentieth of a second: 1,000 a second, with the kernel's own burst for ICMP
 * (net.ipv4.icmp_msgs_per_sec and icmp_msgs_burst). */
#define ANSWERS_AT_ONCE 50
#define ANSWERS_RENEWED (hz / 20)

/* Whether a packet to this host that is dropped for a reason is one that nothing lets in, and nothing is wrong with. Of
 * what is invalid, the kind stands beside the reason. */
static __always_inline bool is_rejectable(int result)
{
	return input_policy == POLICY_REJECT &&
	       (result == DROP_CLOSED_PORT || result == DROP_SOURCE || result == DROP_PROTOCOL);
}

static __always_inline bool answers_left(struct rejection *r, __u64 time)
{
	if (time >= r->renewed + ANSWERS_RENEWED) {
		r->renewed = time;
		r->left = ANSWERS_AT_ONCE;
	}
	return r->left;
}

/* Nobody has these addresses, or many have them, or the kernel takes them from no network (ip_route_input_slow in
 * net/ipv4/route.c, ip6_rcv_core in net/ipv6/ip6_input.c). */
static __always_inline bool is_nobody(__u8 family, const __u32 *addr)
{
	__u32 first = bpf_ntohl(addr[0]);

	if (family == 4)
		return first >> 24 == 0 || first >> 24 == 127 || first >> 28 >= 0xe;
	/* ::, ::1, and IPv4 addresses written as IPv6 */
	return first >> 24 == 0xff || (!first && !addr[1]);
}

/* LOCAL_OWN or LOCAL_SHARED of what was this host's when the map was filled, else 0. */
static __always_inline __u8 local_kind(struct rejection *r, const __u32 *addr)
{
	__u8 *kind;

	if (r->packet.family == 4) {
		r->key4 = (struct local_key4){.prefix_len = 32, .addr = addr[0]};
		kind = bpf_map_lookup_elem(&local4, &r->key4);
	} else {
		r->key6.prefix_len = 128;
		__builtin_memcpy(r->key6.addr, addr, sizeof(r->key6.addr));
		kind = bpf_map_lookup_elem(&local6, &r->key6);
	}
	return kind ? *kind : 0;
}

/* Copies the frame's link header into the answer's, turned round. False for one that may have come to many. */
static __always_inline bool turn_link(const struct frame *frame, struct rejection *r)
{
	struct ethernet_header *eth;
	__be16 type;

	r->link_length = 0;
	if (!ethernet)
		return true;
	eth = HEADER(frame, 0, struct ethernet_header);
	if (!eth || (eth->dst.bytes[0] | eth->src.bytes[0]) & 1)
		return false;
	for (int i = 0; i < 3; i++) {
		r->link[i] = eth->src.pairs[i];
		r->link[i + 3] = eth->dst.pairs[i];
	}
	r->link[6] = type = eth->type;
	r->link_length = sizeof(*eth);
	for (int i = 0; i < MAX_VLAN_TAGS; i++) {
		struct vlan_header *vlan;

		if (type != bpf_htons(ETHERTYPE_VLAN) && type != bpf_htons(ETHERTYPE_QINQ))
			break;
		vlan = HEADER(frame, sizeof(*eth) + i * sizeof(*vlan), struct vlan_header);
		if (!vlan)
			return false;
		r->link[7 + 2 * i] = vlan->tci;
		r->link[8 + 2 * i] = type = vlan->type;
		r->link_length += sizeof(*vlan);
	}
	return true;
}

static __always_inline bool read_ipv4(const struct frame *frame, struct rejection *r)
{
	struct ipv4_header *ip = HEADER(frame, r->link_length, struct ipv4_header);
	struct packet *packet = &r->packet;

	if (!ip || ip->fragment & bpf_htons(IPV4_FRAGMENT_OFFSET | IPV4_MORE_FRAGMENTS))
		return false;
	packet->family = 4;
	packet->protocol = ip->protocol;
	packet->src[0] = ip->src;
	packet->dst[0] = ip->dst;
	packet->transport = r->link_length + (ip->version_ihl & 0x0f) * 4;
	packet->end = ip->total_length ? r->link_length + bpf_ntohs(ip->total_length) : frame->length;
	return true;
}

static __always_inline bool read_ipv6(const struct frame *frame, struct rejection *r)
{
	struct ipv6_header *ip = HEADER(frame, r->link_length, struct ipv6_header);
	struct packet *packet = &r->packet;
	struct ipv6_extension *extension;

	if (!ip)
		return false;
	packet->family = 6;
	packet->protocol = ip->next_header;
	__builtin_memcpy(packet->src, ip->src, sizeof(ip->src));
	__builtin_memcpy(packet->dst, ip->dst, sizeof(ip->dst));
	packet->transport = r->link_length + sizeof(*ip);
	packet->end = ip->payload_length ? packet->transport + bpf_ntohs(ip->payload_length) : frame->length;
	for (int i = 0; i < MAX_EXTENSIONS && is_extension(packet->protocol); i++) {
		extension = HEADER(frame, packet->transport, struct ipv6_extension);
		if (!extension || packet->protocol == PROTO_FRAGMENT)
			return false;
		packet->protocol = extension->next_header;
		packet->transport = forget_bounds(packet->transport + ((__u32)extension->length + 1) * 8);
	}
	return true;
}

/* Reads a packet that has been parsed and found whole once more: to hand it over would cost those that get no answer, and
 * the stack. False for a fragment. */
static __always_inline bool read_again(const struct frame *frame, struct rejection *r)
{
	__u8 *version = HEADER(frame, r->link_length, __u8);
	struct packet *packet = &r->packet;
	struct tcp_header *tcp;

	__builtin_memset(packet, 0, sizeof(*packet));
	if (!version || !(*version >> 4 == 4 ? read_ipv4(frame, r) : read_ipv6(frame, r)))
		return false;
	if (packet->protocol != PROTO_TCP)
		return true;
	tcp = HEADER(frame, packet->transport, struct tcp_header);
	if (!tcp)
		return false;
	packet->src_port = bpf_ntohs(tcp->src);
	packet->dst_port = bpf_ntohs(tcp->dst);
	packet->seq = bpf_ntohl(tcp->seq);
	packet->ack = bpf_ntohl(tcp->ack);
	packet->tcp_flags = tcp->flags;
	packet->payload = packet->end - packet->transport - (tcp->offset >> 4) * 4;
	return true;
}

/* Whether who sent a packet may be told that it was dropped. */
static __always_inline bool may_answer(const struct frame *frame, struct rejection *r)
{
	const struct packet *packet = &r->packet;

	if (!turn_link(frame, r) || !read_again(frame, r) || is_icmp(packet) ||
	    (packet->protocol == PROTO_TCP && packet->tcp_flags & TCP_RST))
		return false;
	/* An address that came after the map was filled, or that is nobody's here, gives no answer. */
	return !is_nobody(packet->family, packet->src) && !local_kind(r, packet->src) &&
	       local_kind(r, packet->dst) == LOCAL_OWN;
}

/* IPv4's type of service of the packet at the frame's beginning. */
static __always_inline __u8 tos_of(const struct frame *frame, const struct rejection *r)
{
	struct ipv4_header *ip = HEADER(frame, r->link_length, struct ipv4_header);

	return ip && r->packet.family == 4 ? ip->tos : 0;
}

/* Whether a packet that goes out of the interface by which it came is an answer of reject_skb's, or what is like one:
 * nobody else sends from an address of ours what has come in. */
static __always_inline bool is_answer(const struct packet *packet, __u64 time)
{
	if (input_policy != POLICY_REJECT)
		return false;
	if (packet->protocol == PROTO_TCP ? !(packet->tcp_flags & TCP_RST)
					  : !is_icmp(packet) || !icmp_is_error(packet->protocol, packet->type))
		return false;
	return is_own(packet->family, packet->src, time);
}

static __always_inline struct rejection *rejection(__u64 time)
{
	struct rejection *r = bpf_map_lookup_elem(&rejections, &state.zero);

	return r && answers_left(r, time) ? r : NULL;
}

/* Works out how much of the frame is kept, and of it quoted, where so many bytes are at hand. */
static __always_inline void measure(struct rejection *r, __u64 at_hand)
{
	if (r->packet.protocol == PROTO_TCP) {
		r->keep = r->link_length + ip_length(&r->packet) + sizeof(struct tcp_header);
		return;
	}
	r->quoted = quoted_length(r);
	if (r->quoted > at_hand - r->link_length)
		r->quoted = at_hand - r->link_length;
	r->keep = r->link_length + r->quoted;
}

struct vlan_info;

struct netdev_rx_queue {
	struct xdp_rxq_info xdp_rxq;
} KERNEL;

/* What else of a device matters for its answers. */
struct net_device___answers {
	__u64 features;
	struct netdev_rx_queue *_rx;
	unsigned int num_rx_queues;
	struct vlan_info *vlan_info;
} KERNEL;

#define NETIF_F_HW_VLAN_CTAG_RX (1ULL << 8) /* linux/netdev_features.h */

/* Whether the frame still is an skb, which keeps what the program does not see: behind the driver, the queue is one of the
 * kernel's own list. */
static __always_inline bool is_generic(struct search *search, const struct net_device___answers *dev, void *ctx)
{
	__u64 own = (__u64)POINTER(search, ((struct xdp_buff *)ctx)->rxq), first = (__u64)POINTER(search, dev->_rx);

	if (dry_run) /* a test run's queue is of that list in any case */
		return explained.generic;
	search->on = 0;
	return !UNREADABLE(search->on, dev->num_rx_queues) && own >= first &&
	       own - first < (__u64)search->on * bpf_core_type_size(struct netdev_rx_queue);
}

/* Whether the network card may have taken a VLAN tag off the frame, of which the driver tells nobody. The answer would go
 * into another network. */
static __always_inline bool tag_is_lost(struct search *search, const struct net_device___answers *dev, void *ctx,
					const struct rejection *r)
{
	if (r->link_length != sizeof(struct ethernet_header) || !bpf_core_field_exists(dev->vlan_info) ||
	    !POINTER(search, dev->vlan_info))
		return false;
	search->number = 0;
	return !UNREADABLE(search->number, dev->features) && search->number & NETIF_F_HW_VLAN_CTAG_RX &&
	       !is_generic(search, dev, ctx);
}

/* How an answer leaves the device by which the packet came: XDP_TX, or XDP_REDIRECT to the same device, or 0. What XDP_TX
 * puts into the queue of a veth's other end lies there until something else comes, unless there is an XDP program, too;
 * redirected, it is handed over (veth_xdp_flush in drivers/net/veth.c). */
static __always_inline int way_back(struct xdp_md *ctx, const struct rejection *r)
{
	struct search *search = bpf_map_lookup_elem(&searches, &state.zero);
	const struct net_device *dev;

	dev = search ? device_of_xdp(search, ctx) : NULL;
	if (!dev || tag_is_lost(search, (void *)dev, ctx, r))
		return 0;
	search->ops = search->kind = 0;
	read_kind(search, dev);
	return search->kind == KIND("veth") ? XDP_REDIRECT : XDP_TX;
}

/* Whether a frame is to be answered, and how. Apart from answer_xdp, as Linux 6.1 has no stack for both. */
static __always_inline bool begin_answer_xdp(struct xdp_md *ctx, const struct frame *frame, __u64 time)
{
	struct rejection *r = rejection(time);

	if (!r || !may_answer(frame, r))
		return false;
	r->way = way_back(ctx, r);
	return r->way;
}

/* Makes a frame the answer to itself, and says what is to become of it. 0 where the driver leaves no room for that: the
 * frame may then be no more what it was, and is dropped. */
static __always_inline int answer_xdp(struct xdp_md *ctx, struct frame frame)
{
	struct rejection *r = bpf_map_lookup_elem(&rejections, &state.zero);
	__u64 at_hand;

	if (!r)
		return 0;
	r->tos = tos_of(&frame, r);
	at_hand = frame.end - frame.begin;
	asm volatile("" : "+r"(at_hand)); /* or the compiler moves the pointers */
	measure(r, at_hand);		  /* what stands behind the driver's first buffer is not quoted */
	if (r->keep > frame.length || bpf_xdp_adjust_tail(ctx, (int)r->keep - (int)frame.length))
		return 0;
	if (r->packet.protocol != PROTO_TCP &&
	    bpf_xdp_adjust_head(ctx, -(int)(ip_length(&r->packet) + sizeof(struct icmp_header))))
		return 0;
	frame.begin = (void *)(long)ctx->data;
	frame.end = (void *)(long)ctx->data_end;
	if (!(r->packet.protocol == PROTO_TCP ? write_reset(&frame, r) : write_unreachable(&frame, r)))
		return 0;
	r->left--;
	return r->way == XDP_REDIRECT ? bpf_redirect(ctx->ingress_ifindex, 0) : XDP_TX;
}

/* Both for TC. False where there is to be no answer, or no room for it. */
static __always_inline bool answer_skb(struct __sk_buff *skb, struct frame frame, __u64 time)
{
	struct rejection *r = rejection(time);
	bool tcp;

	if (!r || !may_answer(&frame, r))
		return false;
	tcp = r->packet.protocol == PROTO_TCP;
	r->tos = tos_of(&frame, r);
	r->unfinished = unfinished_sum(&frame, &r->packet);
	/* Behind options, a sum would be completed in another place than the answer's. */
	if (tcp && r->unfinished && r->packet.transport != r->link_length + ip_length(&r->packet))
		return false;
	measure(r, skb->len);
	tell_skb(skb, DROP_REJECTED, 0, false); /* before it is the answer */
	/* Even where the length stays: segments that were merged are no longer. */
	if (r->keep > skb->len || bpf_skb_change_tail(skb, r->keep, 0))
		return false;
	if (!tcp && bpf_skb_adjust_room(skb, ip_length(&r->packet) + sizeof(struct icmp_header), BPF_ADJ_ROOM_MAC, 0))
		return false;
	if (bpf_skb_pull_data(skb, skb->len))
		return false;
	frame.begin = (void *)(long)skb->data;
	frame.end = (void *)(long)skb->data_end;
	if (!(tcp ? write_reset(&frame, r) : write_unreachable(&frame, r)))
		return false;
	r->left--;
	return true;
}

#endif
