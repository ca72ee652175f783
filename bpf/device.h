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

/* Reads a field of the kernel's. True when that fails. */
#define UNREADABLE(to, field) bpf_core_read(&(to), sizeof(to), &(field))

/* A program's context is the kernel's own structure. */
static __always_inline struct net_device *device_of_xdp(void *ctx)
{
	struct xdp_rxq_info *rxq = NULL;
	struct net_device *dev = NULL;

	if (UNREADABLE(rxq, ((struct xdp_buff *)ctx)->rxq) || UNREADABLE(dev, rxq->dev))
		return NULL;
	return dev;
}

static __always_inline struct net_device *device_of_skb(void *ctx)
{
	struct net_device *dev = NULL;

	if (UNREADABLE(dev, ((struct sk_buff *)ctx)->dev))
		return NULL;
	return dev;
}

static __always_inline bool same_mac(const __u16 *a, const volatile __u16 *b)
{
	return a[0] == b[0] && a[1] == b[1] && a[2] == b[2];
}

/* A MAC address in a register. */
static __always_inline __u64 mac_of(const union mac *mac)
{
	__u64 number = 0;

	__builtin_memcpy(&number, mac->bytes, sizeof(mac->bytes));
	return number;
}

#define NO_MAC (~0ULL) /* of a device that has none, or none that can be read */

/* A MAC that changes just now may be read half old and half new: its frames are then judged wrongly for a second. */
static __always_inline __u64 mac_of_device(const struct net_device *dev)
{
	unsigned char *address = NULL;
	__u64 mac = 0;

	if (UNREADABLE(address, dev->dev_addr) || bpf_probe_read_kernel(&mac, sizeof(union mac), address))
		return NO_MAC;
	return mac;
}

static __always_inline bool is_ethernet(const struct net_device *dev)
{
	unsigned short type = 0;
	unsigned char length = 0;

	return !UNREADABLE(type, dev->type) && !UNREADABLE(length, dev->addr_len) && type == ARPHRD_ETHER &&
	       length == sizeof(union mac);
}

/* A kind of link, as ip -d has it, in a register. */
#define KIND(name)                                            \
	({                                                    \
		__u64 kind_ = 0;                              \
		__builtin_memcpy(&kind_, name, sizeof(name)); \
		kind_;                                        \
	})

static __always_inline __u64 kind_of(const struct net_device *dev)
{
	const struct rtnl_link_ops *ops = NULL;
	const char *name = NULL;
	__u64 kind = 0;

	if (UNREADABLE(ops, dev->rtnl_link_ops) || !ops || UNREADABLE(name, ops->kind))
		return 0;
	bpf_probe_read_kernel_str(&kind, sizeof(kind), name);
	return kind;
}

/* How deep devices are stacked, such as a macvlan on a VLAN on a bond. */
#define MAX_STACKED 4

/* The device below, or NULL when there is none; `fork`: there are several, as below a bridge. */
static __always_inline const struct net_device *device_below(const struct net_device *dev, bool *fork)
{
	const struct list_head *head = &dev->adj_list.lower, *first = NULL, *second = NULL;
	struct netdev_adjacent *adjacent;
	const struct net_device *below = NULL;

	if (UNREADABLE(first, head->next) || first == head)
		return NULL;
	adjacent = (void *)first - bpf_core_field_offset(struct netdev_adjacent, list);
	*fork = UNREADABLE(second, first->next) || second != head;
	if (UNREADABLE(below, adjacent->dev))
		return NULL;
	return below;
}

/* Whether `dev` is a macvlan in passthru mode on top of `self`: it takes frames to every MAC. In that mode, and in no
 * other, it has the MAC of the device below. */
static __always_inline bool takes_all_of(const struct net_device *dev, __u64 mac, const struct net_device *self)
{
	bool fork = false;

	dev = device_below(dev, &fork);
	if (!dev || mac_of_device(dev) != mac)
		return false;
	for (int i = 0; i < MAX_STACKED && dev != self && !fork; i++) {
		dev = device_below(dev, &fork);
		if (!dev)
			return false;
	}
	return true;
}

/* The search for a MAC among the devices of a namespace. */
struct walk {
	const struct list_head *at, *end;
	const struct net_device *self;
	__u64 mac;
	bool finished; /* and not found */
};

/* Looks at one device. Its removal waits until the program has run; one that leaves the namespace just now leads the
 * walk astray at worst, and it then ends at its limit. */
static long visit(__u32 number, void *context)
{
	struct walk *walk = context;
	const struct list_head *at = walk->at;
	const struct net_device *dev;
	__u64 mac, kind;

	if (at == walk->end) {
		walk->finished = true;
		return 1;
	}
	dev = (void *)at - bpf_core_field_offset(struct net_device, dev_list);
	mac = mac_of_device(dev);
	kind = kind_of(dev);
	if (kind == KIND("macvlan") && takes_all_of(dev, mac, walk->self))
		return 1;
	/* Behind a macvtap or ipvtap is a virtual machine, which has the MAC. */
	if (mac == walk->mac && kind != KIND("macvtap") && kind != KIND("ipvtap") && is_ethernet(dev))
		return 1;
	return UNREADABLE(walk->at, at->next) != 0;
}

#define MAX_DEVICES 16384

/* Whether the stack takes frames to `mac` that come in on `dev`. What the kernel does not let us see is ours, so that
 * it is filtered. A macvlan gets no frames but its own, or all that there are. */
static __always_inline bool ask_devices(const struct net_device *dev, __u64 mac, __u64 *asked)
{
	struct walk walk = {.self = dev, .mac = mac};
	struct net *net = NULL;
	long visited;

	if (!dev || mac_of_device(dev) == mac)
		return true;
	if (kind_of(dev) == KIND("macvlan") || kind_of(dev) == KIND("macvtap"))
		return true;
	if (UNREADABLE(net, dev->nd_net.net) || UNREADABLE(walk.at, net->dev_base_head.next))
		return true;
	walk.end = &net->dev_base_head;
	visited = bpf_loop(MAX_DEVICES, visit, &walk, 0);
	*asked = visited > 0 ? visited : 0;
	return !walk.finished;
}

/* How long the verdict about a MAC holds, and how many devices a CPU may look at in a second. */
#define STATION_TIME hz
#define DEVICES_A_SECOND 100000

static __always_inline bool walk_allowed(struct walk_budget *budget, __u64 time)
{
	if (time >= budget->renewed + hz) {
		budget->renewed = time;
		budget->left = DEVICES_A_SECOND;
	}
	return budget->left > 0;
}

/* Whether the stack of this network namespace takes frames to `mac` that come in on a device, or sends those from it.
 * To be asked for a MAC that is not own_mac.
 *
 * A flood of random MACs must not make a walk each: who is over the budget keeps the verdict that he had, and is
 * filtered when he had none. */
static __always_inline bool is_station(void *ctx, bool skb, __u32 ifindex, __u64 mac, __u64 time)
{
	struct station_key key = {.mac = mac, .ifindex = ifindex};
	struct station *known = bpf_map_lookup_elem(&stations, &key);
	struct walk_budget *budget;
	struct station fresh;
	__u64 asked = 0;
	__u32 zero = 0;
	bool ours;

	if (known && known->verdict >> 1 > time)
		return known->verdict & 1;
	budget = bpf_map_lookup_elem(&walk_budgets, &zero);
	if (!budget)
		return true;
	if (!walk_allowed(budget, time))
		return known ? known->verdict & 1 : true;
	ours = ask_devices(skb ? device_of_skb(ctx) : device_of_xdp(ctx), mac, &asked);
	budget->left -= asked < budget->left ? asked : budget->left;
	fresh.verdict = (time + STATION_TIME) << 1 | ours;
	/* One word, so that no CPU reads half of it; the last of two that ask at the same time is as right as the first. */
	if (known)
		known->verdict = fresh.verdict;
	else
		bpf_map_update_elem(&stations, &key, &fresh, BPF_ANY);
	return ours;
}

/* Whether the kernel would route an IPv6 packet that came in on a device. What cannot be read, says yes. */
static __always_inline bool routes_ipv6(const struct net_device *dev)
{
	struct ipv6_devconf *all = NULL;
	struct inet6_dev *own = NULL;
	struct net *net = NULL;
	__s32 on = 0;

	if (!bpf_core_field_exists(((struct netns_ipv6 *)0)->devconf_all) || !dev || UNREADABLE(net, dev->nd_net.net) ||
	    UNREADABLE(all, net->ipv6.devconf_all) || UNREADABLE(on, all->forwarding) || on)
		return true;
	if (!bpf_core_field_exists(own->cnf.force_forwarding))
		return false;
	return UNREADABLE(own, dev->ip6_ptr) || (own && (UNREADABLE(on, own->cnf.force_forwarding) || on));
}

#endif
