// SPDX-License-Identifier: Apache-2.0

package host

import (
	"errors"
	"time"

	"github.com/vishvananda/netlink"
)

const (
	mostLists = 10          // that are asked for until one is complete
	listTime  = time.Second // and for how long: a router's routes may never stand still
)

// CompleteList returns what list does. While the host changes, a list may lack entries that were there all the time: it is
// asked for again then, a few times. The last one comes with [netlink.ErrDumpInterrupted] if none was complete.
func CompleteList[T any](list func() ([]T, error)) (entries []T, err error) {
	start := time.Now()
	for range mostLists {
		entries, err = list()
		if !errors.Is(err, netlink.ErrDumpInterrupted) || time.Since(start) > listTime {
			break
		}
	}
	return entries, err
}

func completeLinks() ([]netlink.Link, error) { return CompleteList(netlink.LinkList) }

func completeAddresses(l netlink.Link) ([]netlink.Addr, error) {
	return CompleteList(func() ([]netlink.Addr, error) { return netlink.AddrList(l, netlink.FAMILY_ALL) })
}

func completeRoutes(family int, filter *netlink.Route, mask uint64) ([]netlink.Route, error) {
	return CompleteList(func() ([]netlink.Route, error) { return netlink.RouteListFiltered(family, filter, mask) })
}

func completeNeighbours(link, family int) ([]netlink.Neigh, error) {
	return CompleteList(func() ([]netlink.Neigh, error) { return netlink.NeighList(link, family) })
}
