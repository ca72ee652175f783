/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The device a frame came in on, and the MAC addresses that the stack of its network namespace takes frames to.
 *
 * A frame to another MAC than its device's may still be for this host: a VLAN device, a port of a bridge, a slave of a
 * bond or a macvlan can have an address of its own. So whoever is not known is looked for among the kernel's own list
 * of devices, which holds without any process and for devices that come later. What only a virtual machine takes
 * (macvtap), or a device in another namespace, is not ours. */
#ifndef PORTCULLIS_DEVICE_H
#define PORTCULLIS_DEVICE_H

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

#include "config.h"
#include "headers.h"
#include "maps.h"
#include "types.h"

#define ARPHRD_ETHER 1 /* linux/if_arp.h */

#define KERNEL __attribute__((preserve_access_index))

struct list_head {
	struct list_head *next;
} KERNEL;

struct ipv6_devconf {
	__s32 forwarding;
	__s32 force_forwarding; /* since Linux 6.17 */
} KERNEL;

struct inet6_dev {
	struct ipv6_devconf cnf;
} KERNEL;

struct netns_ipv6 {
	struct ipv6_devconf *devconf_all;
} KERNEL;

struct net {
	struct list_head dev_base_head;
	struct netns_ipv6 ipv6;
} KERNEL;

struct rtnl_link_ops {
	const char *kind;
} KERNEL;

struct net_device {
	unsigned char *dev_addr;
	unsigned short type;
	unsigned char addr_len;
	struct list_head dev_list;
	struct inet6_dev *ip6_ptr;
	const struct rtnl_link_ops *rtnl_link_ops;
	struct {
		struct net *net;
	} nd_net;
	struct {
		struct list_head lower;
	} adj_list;
} KERNEL;

struct netdev_adjacent {
	struct net_device *dev;
	struct list_head list;
} KERNEL;

struct xdp_rxq_info {
	struct net_device *dev;
} KERNEL;

struct xdp_buff {
	struct xdp_rxq_info *rxq;
} KERNEL;

struct sk_buff {
	struct net_device *dev;
} KERNEL;

#define ADJACENT_LIST bpf_core_field_offset(struct netdev_adjacent, list)

/* Reads a field of the kernel's into one of struct search. True when that fails. */
#define UNREADABLE(to, field) bpf_probe_read_kernel(&(to), sizeof(to), ADDRESS(field))

/* Keeps the compiler from holding on the stack what is in struct search. */
#define FORGET_REGISTERS asm volatile("" ::: "memory")

static __always_inline bool same_mac(const __u16 *a, const volatile __u16 *b)
{
	return a[0] == b[0] && a[1] == b[1] && a[2] == b[2];
}

/* The place of a device in `last_run` and `devices`. */
static __always_inline __u64 slot_of(__u32 ifindex)
{
	return BOUNDED(many_devices ? ifindex % (RUN_SLOTS - 1) + 1 : run_slot, RUN_SLOTS - 1);
}

/* Whether a MAC address is known for that of the device itself. */
static __always_inline bool is_own_mac(const union mac *mac, __u32 ifindex)
{
	const volatile struct device *device;

	if (!many_devices)
		return same_mac(mac->pairs, own_mac);
	device = &devices[slot_of(ifindex)];
	return device->ifindex == ifindex && same_mac(mac->pairs, device->mac);
}

/* A MAC address in a register. */
static __always_inline __u64 mac_of(const union mac *mac)
{
	__u64 number = 0;

	__builtin_memcpy(&number, mac->bytes, sizeof(mac->bytes));
	return number;
}

/* Reads a pointer of the kernel's that stands at an address: NULL when it is that, or cannot be read. What a search
 * knows stands in its struct, not on the stack, where XDP leaves 96 bytes for it and its callback. */
static __always_inline void *pointer_at(struct search *search, const void *address)
{
	search->pointer = 0;
	if (bpf_probe_read_kernel(&search->pointer, sizeof(search->pointer), address))
		return NULL;
	return (void *)search->pointer;
}

/* pointer_at for a field of a structure of the kernel's, and the field's own address. */
#define ADDRESS(field) ((void *)__builtin_preserve_access_index(&(field)))
#define POINTER(search, field) pointer_at(search, ADDRESS(field))

/* A program's context is the kernel's own structure. */
static __always_inline const struct net_device *device_of_xdp(struct search *search, void *ctx)
{
	const struct xdp_rxq_info *rxq = POINTER(search, ((struct xdp_buff *)ctx)->rxq);

	return rxq ? POINTER(search, rxq->dev) : NULL;
}

static __always_inline const struct net_device *device_of_skb(struct search *search, void *ctx)
{
	return POINTER(search, ((struct sk_buff *)ctx)->dev);
}

#define NO_MAC (~0ULL) /* of a device that has none, or none that can be read */

/* A MAC that changes just now may be read half old and half new: its frames are then judged wrongly for a second. */
static __always_inline __u64 mac_of_device(struct search *search, const struct net_device *dev)
{
	const void *address = POINTER(search, dev->dev_addr);

	search->number = 0;
	if (!address || bpf_probe_read_kernel(&search->number, sizeof(union mac), address))
		return NO_MAC;
	return search->number;
}

static __always_inline bool is_ethernet(struct search *search, const struct net_device *dev)
{
	return !UNREADABLE(search->type, dev->type) && !UNREADABLE(search->length, dev->addr_len) &&
	       search->type == ARPHRD_ETHER && search->length == sizeof(union mac);
}

/* A kind of link, as ip -d has it, in a register. */
#define KIND(name)                                            \
	({                                                    \
		__u64 kind_ = 0;                              \
		__builtin_memcpy(&kind_, name, sizeof(name)); \
		kind_;                                        \
	})

/* Into search->kind. Of many devices in a row most are of one kind: its name is read once. */
static __always_inline void read_kind(struct search *search, const struct net_device *dev)
{
	const struct rtnl_link_ops *ops = POINTER(search, dev->rtnl_link_ops);
	const void *name;

	if ((__u64)ops == search->ops)
		return;
	search->ops = (__u64)ops;
	search->kind = 0;
	name = ops ? POINTER(search, ops->kind) : NULL;
	if (name)
		bpf_probe_read_kernel_str(&search->kind, sizeof(search->kind), name);
}

/* How deep devices are stacked, such as a macvlan on a VLAN on a bond. */
#define MAX_STACKED 4

/* Whether search->dev is a macvlan in passthru mode on top of search->self: it takes frames to every MAC. In that mode,
 * and in no other, it has the MAC of the device below. Where that has several below it, as a bond does, one of them may
 * be the one. */
static __always_inline bool takes_all(struct search *search)
{
	const struct net_device *dev = (void *)search->dev;
	const struct list_head *first;

	for (int i = 0; i < MAX_STACKED; i++) {
		first = POINTER(search, dev->adj_list.lower.next);
		if (!first || first == ADDRESS(dev->adj_list.lower))
			return false;
		if (i && POINTER(search, first->next) != ADDRESS(dev->adj_list.lower))
			return true;
		dev = POINTER(search, ((struct netdev_adjacent *)((void *)first - ADJACENT_LIST))->dev);
		if (!dev || (!i && mac_of_device(search, dev) != search->mac))
			return false;
		if (dev == (void *)search->self)
			return true;
	}
	return true;
}

/* Looks at one device. Its removal waits until the program has run; one that leaves the namespace just now leads the
 * search astray at worst, and it then ends at its limit. */
static long visit(__u32 number, void *context)
{
	struct search *search = *(struct search **)context;
	const struct list_head *at;

	if (search->at == search->end) {
		search->finished = true;
		return 1;
	}
	search->dev = search->at - bpf_core_field_offset(struct net_device, dev_list);
	read_kind(search, (void *)search->dev);
	search->mac = mac_of_device(search, (void *)search->dev);
	FORGET_REGISTERS;
	if (search->kind == KIND("macvlan") && takes_all(search))
		return 1;
	FORGET_REGISTERS;
	/* Behind a macvtap or ipvtap is a virtual machine, which has the MAC. */
	if (search->mac == search->key.mac && search->kind != KIND("macvtap") && search->kind != KIND("ipvtap") &&
	    is_ethernet(search, (void *)search->dev))
		return 1;
	FORGET_REGISTERS;
	at = (void *)search->at;
	search->at = (__u64)POINTER(search, at->next);
	return !search->at;
}

#define MAX_DEVICES 16384

/* Whether the stack takes frames to search->key.mac that come in on search->self. What the kernel does not let us see
 * is ours, so that it is filtered. A macvlan gets no frames but its own, or all that there are. */
static __always_inline bool ask_devices(struct search *search)
{
	const struct net_device *dev = (void *)search->self;
	const struct net *net;
	long visited;

	if (!dev || mac_of_device(search, dev) == search->key.mac)
		return true;
	search->ops = search->kind = 0;
	read_kind(search, dev);
	if (search->kind == KIND("macvlan") || search->kind == KIND("macvtap"))
		return true;
	net = POINTER(search, dev->nd_net.net);
	if (!net)
		return true;
	search->end = (__u64)ADDRESS(net->dev_base_head);
	search->at = (__u64)POINTER(search, net->dev_base_head.next);
	if (!search->at)
		return true;
	search->finished = false;
	visited = bpf_loop(MAX_DEVICES, visit, &search, 0);
	if (visited > 0)
		search->left -= (__u64)visited < search->left ? (__u64)visited : search->left;
	return !search->finished;
}

/* How long the verdict about a MAC holds, and how many devices a CPU may look at in a second. */
#define STATION_TIME hz
#define DEVICES_A_SECOND 100000

/* Whether the stack of this network namespace takes frames to `mac` that come in on a device, or sends those from it.
 * To be asked for a MAC that is not own_mac.
 *
 * A flood of random MACs must not make a search each: who is over the budget keeps the verdict that he had, and is
 * filtered when he had none. A CPU has one struct search: XDP and TC run with softirqs off, so none interrupts
 * another. */
static __always_inline bool is_station(void *ctx, bool skb, __u32 ifindex, __u64 mac, __u64 time)
{
	struct search *search;
	struct station *known;

	/* The key stands in the state: Linux 6.1 has 32 bytes of stack left for this one. */
	search = bpf_map_lookup_elem(&searches, &state.zero);
	if (!search)
		return true;
	search->key.mac = mac;
	search->key.ifindex = ifindex;
	search->time = time;
	known = bpf_map_lookup_elem(&stations, &search->key);
	if (known && known->verdict >> 1 > time)
		return known->verdict & 1;
	if (time >= search->renewed + hz) {
		search->renewed = time;
		search->left = DEVICES_A_SECOND;
	}
	if (!search->left)
		return known ? known->verdict & 1 : true;
	search->self = (__u64)(skb ? device_of_skb(search, ctx) : device_of_xdp(search, ctx));
	search->fresh.verdict = ask_devices(search);
	if (dry_run)
		return search->fresh.verdict & 1;
	FORGET_REGISTERS;
	search->fresh.verdict |= (search->time + STATION_TIME) << 1;
	/* One word, so that no CPU reads half of it; the last of two that ask at the same time is as right as the first. */
	if (known)
		known->verdict = search->fresh.verdict;
	else
		bpf_map_update_elem(&stations, &search->key, &search->fresh, BPF_ANY);
	return search->fresh.verdict & 1;
}

/* Whether the kernel would route an IPv6 packet that came in on a device. What cannot be read, says yes. */
static __always_inline bool routes_ipv6(void *ctx, bool skb)
{
	const struct net_device *dev;
	const struct inet6_dev *own;
	const void *at;
	struct search *search;
	__u32 zero = 0;

	search = bpf_map_lookup_elem(&searches, &zero);
	if (!search)
		return true;
	dev = skb ? device_of_skb(search, ctx) : device_of_xdp(search, ctx);
	at = dev ? POINTER(search, dev->nd_net.net) : NULL;
	at = at ? POINTER(search, ((struct net *)at)->ipv6.devconf_all) : NULL;
	if (!at || UNREADABLE(search->on, ((struct ipv6_devconf *)at)->forwarding) || search->on)
		return true;
	if (!bpf_core_field_exists(((struct inet6_dev *)0)->cnf.force_forwarding))
		return false;
	own = POINTER(search, dev->ip6_ptr);
	return !own || UNREADABLE(search->on, own->cnf.force_forwarding) || search->on;
}

#endif
