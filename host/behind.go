// SPDX-License-Identifier: Apache-2.0

package host

import (
	"errors"
	"fmt"
	"net"

	"github.com/vishvananda/netlink"
)

// Behind is what matters of an interface for packets that come in by it and are routed.
type Behind struct {
	Index  int
	Name   string
	Judged bool // all that comes in by it meets a filter
	Guests bool // containers or virtual machines of this host are behind it, see [FindGuests]
}

// ReadBehind returns the interfaces by which packets that are routed come in, where filters are on the given ones.
func ReadBehind(filtered []string) ([]Behind, error) {
	links, err := netlink.LinkList()
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	return behindAmong(links, filtered), nil
}

func behindAmong(links []netlink.Link, filtered []string) (out []Behind) {
	guests := make(map[string]bool)
	for _, g := range guestsAmong(links) {
		guests[g.Device] = true
	}
	s := newStack(links, filtered)
	for _, l := range links {
		a := l.Attrs()
		// What comes in by a port comes in by its bridge or bond.
		if a.Flags&net.FlagLoopback == 0 && !s.isPort(l) {
			out = append(out, Behind{a.Index, a.Name, s.meets(l, len(links)), guests[a.Name]})
		}
	}
	return out
}

// meets reports whether all that comes in by a device meets a filter: on itself or below it, on each of its ports.
func (s *stack) meets(l netlink.Link, depth int) bool {
	if l.Type() != "vrf" { // by which nothing comes in, but in the name of which packets are routed
		return s.covers(l, depth, false)
	}
	return s.coversPorts(l, depth, false)
}

// MayHaveGuests reports whether a device is of a kind, or has a name, as those of guests do.
func MayHaveGuests(l netlink.Link) bool {
	return l.Type() == "bridge" || managerOf(l.Attrs().Name) != ""
}
