/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The device a frame came in on. */
#ifndef PORTCULLIS_DEVICE_H
#define PORTCULLIS_DEVICE_H

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

#include "config.h"
#include "types.h"

struct net_device {
	unsigned char *dev_addr;
} __attribute__((preserve_access_index));

struct xdp_rxq_info {
	struct net_device *dev;
} __attribute__((preserve_access_index));

struct xdp_buff {
	struct xdp_rxq_info *rxq;
} __attribute__((preserve_access_index));

struct sk_buff {
	struct net_device *dev;
} __attribute__((preserve_access_index));

/* A program's context is the kernel's own structure. */
static __always_inline struct net_device *device_of_xdp(struct xdp_md *ctx)
{
	struct xdp_rxq_info *rxq = NULL;
	struct net_device *dev = NULL;

	if (bpf_core_read(&rxq, sizeof(rxq), &((struct xdp_buff *)ctx)->rxq) ||
	    bpf_core_read(&dev, sizeof(dev), &rxq->dev))
		return NULL;
	return dev;
}

static __always_inline struct net_device *device_of_skb(struct __sk_buff *skb)
{
	struct net_device *dev = NULL;

	if (bpf_core_read(&dev, sizeof(dev), &((struct sk_buff *)skb)->dev))
		return NULL;
	return dev;
}

static __always_inline bool same_mac(const __u16 *a, const volatile __u16 *b)
{
	return a[0] == b[0] && a[1] == b[1] && a[2] == b[2];
}

/* Does `mac` belong to another host on the link? To be asked for a MAC that is not own_mac, the one known at load: a
 * MAC can change under a running filter, and that must not open it. When the kernel does not let us look, the answer
 * is no, and the frame is filtered. */
static __always_inline bool is_foreign(const __u16 *mac, struct net_device *dev)
{
	unsigned char *address = NULL;
	__u16 actual[3];

	if (!dev || bpf_core_read(&address, sizeof(address), &dev->dev_addr) ||
	    bpf_probe_read_kernel(actual, sizeof(actual), address))
		return false;
	return !same_mac(mac, actual);
}

#endif
