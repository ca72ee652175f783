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

static __always_inline bool same_mac(const __u16 *a, const volatile __u16 *b)
{
	return a[0] == b[0] && a[1] == b[1] && a[2] == b[2];
}

/* Is a frame to `mac` for another host on the link? The MAC known at load answers almost always. One that differs is
 * compared with the device itself, since a MAC can change under a running filter and must not open it; when the
 * kernel does not let us look, the frame is taken for ours and filtered. */
static __always_inline bool is_other_mac(struct xdp_md *ctx, const __u16 *mac)
{
	struct xdp_rxq_info *rxq = NULL;
	struct net_device *dev = NULL;
	unsigned char *address = NULL;
	__u16 actual[3];

	if (*(const __u8 *)mac & 1 || same_mac(mac, own_mac))
		return false;
	/* The program's context is the kernel's struct xdp_buff. */
	if (bpf_core_read(&rxq, sizeof(rxq), &((struct xdp_buff *)ctx)->rxq) ||
	    bpf_core_read(&dev, sizeof(dev), &rxq->dev) || bpf_core_read(&address, sizeof(address), &dev->dev_addr) ||
	    bpf_probe_read_kernel(actual, sizeof(actual), address))
		return false;
	return !same_mac(mac, actual);
}

#endif
