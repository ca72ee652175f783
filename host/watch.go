// SPDX-License-Identifier: Apache-2.0

package host

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Change says that something changed in the network of this host that a filter has to follow.
type Change struct {
	Link string // the name of an interface that appeared or changed, or ""
	Lost bool   // some changes were lost: anything may be different
}

const (
	watchBuffer = 1 << 20 // bytes of notices that wait while a policy is applied
	watchQueue  = 256     // changes
)

// Watch returns a channel of changes of interfaces, addresses, local and default routes, until ctx ends. It is closed
// when the subscription ends.
func Watch(ctx context.Context) (<-chan Change, error) {
	s, err := nl.Subscribe(unix.NETLINK_ROUTE, unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR,
		unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("watch the network: %w", err)
	}
	if err := s.SetReceiveBufferSize(watchBuffer, true); err != nil {
		_ = s.SetReceiveBufferSize(watchBuffer, false) // without CAP_NET_ADMIN over the first namespace
	}
	context.AfterFunc(ctx, s.Close)
	changes := make(chan Change, watchQueue)
	go func() {
		defer close(changes)
		tell := func(c Change) {
			select {
			case changes <- c:
			case <-ctx.Done(): // nobody reads any more
			}
		}
		for {
			messages, from, err := s.Receive()
			switch {
			case errors.Is(err, unix.ENOBUFS):
				tell(Change{Lost: true})
			case err != nil:
				return
			case from.Pid == nl.PidKernel:
				for _, m := range messages {
					if c, matters := changeOf(m); matters {
						tell(c)
					}
				}
			}
		}
	}()
	return changes, nil
}

// changeOf returns the change that a notice is about, and whether it matters.
func changeOf(m syscall.NetlinkMessage) (c Change, matters bool) {
	switch m.Header.Type {
	case unix.RTM_NEWLINK:
		header := unix.NlMsghdr(m.Header)
		if link, err := netlink.LinkDeserialize(&header, m.Data); err == nil {
			c.Link = link.Attrs().Name
		}
		return c, true
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
		// A router of the internet has a million others.
		route := nl.DeserializeRtMsg(m.Data)
		return c, isLocalType(int(route.Type)) || route.Dst_len == 0
	}
	return c, true
}
