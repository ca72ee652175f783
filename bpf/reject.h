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

#include "config.h"
#include "headers.h"
#include "maps.h"
#include "parse.h"
#include "policy.h"
#include "types.h"
#include "verdict.h"

/* A CPU gives that many answers in a twentieth of a second: 1,000 a second, with the kernel's own burst for ICMP
 * (net.ipv4.icmp_msgs_per_sec and icmp_msgs_burst). */
#define ANSWERS_AT_ONCE 50
#define ANSWERS_RENEWED (hz / 20)

#define ANSWER_TTL 64

/* How long an ICMP error may be: RFC 1812, 4.3.2.3, and RFC 4443, 3.1. */
#define ICMP4_LONGEST 576
#define ICMP6_LONGEST 1280

/* linux/icmp.h, linux/icmpv6.h */
#define ICMP4_UNREACHABLE 3
#define ICMP4_PORT_UNREACHABLE 3
#define ICMP6_UNREACHABLE 1
#define ICMP6_PORT_UNREACHABLE 4
#define TOS_MASK 0x1e
#define TOS_INTERNETCONTROL 0xc0

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

static __always_inline __u32 ip_length(const struct packet *packet)
{
	return packet->family == 4 ? sizeof(struct ipv4_header) : sizeof(struct ipv6_header);
}

/* How many bytes of the frame, from its IP header on, an ICMP error quotes. */
static __always_inline __u32 quoted_length(const struct rejection *r)
{
	__u32 length = r->packet.end - r->link_length, most;

	most = (r->packet.family == 4 ? ICMP4_LONGEST : ICMP6_LONGEST) - ip_length(&r->packet) -
	       sizeof(struct icmp_header);
	return length < most ? length : most;
}

static __always_inline __u16 folded(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

/* Both ways it is the same. */
static __always_inline __u64 pseudo_header(const struct packet *packet, __u8 protocol, __u32 length)
{
	__u64 sum = bpf_htonl(length) + (__u64)bpf_htonl(protocol);

	for (int i = 0; i < 4; i++)
		sum += (__u64)packet->src[i] + packet->dst[i];
	return sum;
}

/* What stands in the checksum's place as long as the sum is left to a network card. Whoever hands such a packet to its
 * device completes it on the way, and the answer's in the same place. A whole checksum that happens to look so costs
 * an answer. */
static __always_inline __u16 unfinished_sum(const struct frame *frame, const struct packet *packet)
{
	__u16 sum;

	if (packet->protocol == PROTO_TCP) {
		struct tcp_header *tcp = HEADER(frame, packet->transport, struct tcp_header);

		sum = tcp ? tcp->checksum : 0;
	} else if (packet->protocol == PROTO_UDP) {
		struct udp_header *udp = HEADER(frame, packet->transport, struct udp_header);

		sum = udp ? udp->checksum : 0;
	} else {
		return 0;
	}
	return sum == folded(pseudo_header(packet, packet->protocol, packet->end - packet->transport)) ? sum : 0;
}

/* Writes the answer's link and IP headers over the beginning of the frame. `length` is what follows them. */
static __always_inline bool write_headers(const struct frame *frame, const struct rejection *r, __u8 protocol,
					  __u32 length, __u8 tos, bool whole)
{
	const struct packet *packet = &r->packet;

	for (__u32 i = 0; i < LONGEST_LINK / 2; i++) {
		__u16 *pair;

		if (i * 2 >= r->link_length)
			break;
		pair = HEADER(frame, i * 2, __u16);
		if (!pair)
			return false;
		*pair = r->link[i];
	}
	if (packet->family == 4) {
		struct ipv4_header *ip = HEADER(frame, r->link_length, struct ipv4_header);
		__u32 *words = (void *)ip;
		__u64 sum = 0;

		if (!ip)
			return false;
		ip->version_ihl = 0x45;
		ip->tos = tos;
		ip->total_length = bpf_htons(sizeof(*ip) + length);
		ip->id = 0;
		ip->fragment = whole ? bpf_htons(IPV4_DONT_FRAGMENT) : 0;
		ip->ttl = ANSWER_TTL;
		ip->protocol = protocol;
		ip->checksum = 0;
		ip->src = packet->dst[0];
		ip->dst = packet->src[0];
		for (__u32 i = 0; i < sizeof(*ip) / sizeof(*words); i++)
			sum += words[i];
		ip->checksum = ~folded(sum);
	} else {
		struct ipv6_header *ip = HEADER(frame, r->link_length, struct ipv6_header);

		if (!ip)
			return false;
		ip->version_class_flow = bpf_htonl(6 << 28);
		ip->payload_length = bpf_htons(length);
		ip->next_header = protocol;
		ip->hop_limit = ANSWER_TTL;
		__builtin_memcpy(ip->src, packet->dst, sizeof(ip->src));
		__builtin_memcpy(ip->dst, packet->src, sizeof(ip->dst));
	}
	return true;
}

/* The frame becomes a RST (RFC 9293, 3.10.7.1). Behind the headers it has its new length already. */
static __always_inline bool write_reset(const struct frame *frame, const struct rejection *r)
{
	const struct packet *packet = &r->packet;
	struct tcp_header *tcp = HEADER(frame, r->link_length + ip_length(packet), struct tcp_header);
	__u32 *words = (void *)tcp;
	__u64 sum;

	if (!tcp || !write_headers(frame, r, PROTO_TCP, sizeof(*tcp), 0, true))
		return false;
	__builtin_memset(tcp, 0, sizeof(*tcp));
	tcp->src = bpf_htons(packet->dst_port);
	tcp->dst = bpf_htons(packet->src_port);
	tcp->offset = sizeof(*tcp) / 4 << 4;
	if (packet->tcp_flags & TCP_ACK) {
		tcp->seq = bpf_htonl(packet->ack);
		tcp->flags = TCP_RST;
	} else {
		tcp->ack = bpf_htonl(packet->seq + packet->payload + !!(packet->tcp_flags & TCP_SYN) +
				     !!(packet->tcp_flags & TCP_FIN));
		tcp->flags = TCP_RST | TCP_ACK;
	}
	sum = pseudo_header(packet, PROTO_TCP, sizeof(*tcp));
	if (r->unfinished) {
		tcp->checksum = folded(sum);
		return true;
	}
	for (__u32 i = 0; i < sizeof(*tcp) / sizeof(*words); i++)
		sum += words[i];
	tcp->checksum = ~folded(sum);
	return true;
}

/* The sum of the frame's bytes from one offset to another, eight at a time: the verifier walks each turn. */
static __always_inline __u64 sum_of(const struct frame *frame, __u32 at, __u32 to)
{
	struct eight {
		__u32 words[2];
	} *eight;
	__u64 sum = 0;
	__u16 *pair;
	__u8 *last;

	for (int i = 0; i < ICMP6_LONGEST / 8 && at + sizeof(*eight) <= to; i++, at += sizeof(*eight)) {
		eight = HEADER(frame, at, struct eight);
		if (!eight)
			return 0;
		sum += (__u64)eight->words[0] + eight->words[1];
	}
	for (int i = 0; i < 3 && at + sizeof(*pair) <= to; i++, at += sizeof(*pair)) {
		pair = HEADER(frame, at, __u16);
		if (!pair)
			return 0;
		sum += *pair;
	}
	last = at < to ? HEADER(frame, at, __u8) : NULL;
	return last ? sum + bpf_htons(*last << 8) : sum;
}

/* The frame becomes an ICMP error. It has grown at its beginning by the headers, and what is quoted follows. */
static __always_inline bool write_unreachable(const struct frame *frame, const struct rejection *r)
{
	const struct packet *packet = &r->packet;
	bool six = packet->family == 6;
	__u32 start = r->link_length + ip_length(packet);
	__u32 header = packet->transport - r->link_length, length = sizeof(struct icmp_header) + r->quoted;
	struct icmp_header *icmp;
	__u64 sum = 0;

	if (!write_headers(frame, r, six ? PROTO_ICMPV6 : PROTO_ICMP, length, (r->tos & TOS_MASK) | TOS_INTERNETCONTROL,
			   false))
		return false;
	icmp = HEADER(frame, start, struct icmp_header);
	if (!icmp)
		return false;
	icmp->type = six ? ICMP6_UNREACHABLE : ICMP4_UNREACHABLE;
	icmp->code = six ? ICMP6_PORT_UNREACHABLE : ICMP4_PORT_UNREACHABLE;
	icmp->checksum = icmp->id = icmp->sequence = 0;
	if (six)
		sum = pseudo_header(packet, PROTO_ICMPV6, length);
	/* A completed segment's sum is the complement of what stood in its checksum's place. */
	if (r->unfinished)
		sum += (__u16)~r->unfinished;
	sum += sum_of(frame, start, start + sizeof(*icmp) + (r->unfinished ? header : r->quoted));
	icmp = HEADER(frame, start, struct icmp_header);
	if (!icmp)
		return false;
	icmp->checksum = ~folded(sum);
	return true;
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
