// SPDX-License-Identifier: Apache-2.0

package host

import (
	"errors"
	"fmt"
	"net"

	"github.com/vishvananda/netlink"

	"github.com/portcullis-firewall/portcullis/policy"
)

// Interface is one of this host's.
type Interface struct {
	Name  string
	Index int
}

// Unfiltered returns the interfaces by which packets reach this host past a filter on the given ones, of which some may be
// patterns: those that are up and have an address. It leaves out the loopback, what stands on a filtered interface, and
// bridges of guests, as [FindGuests] lists them.
func Unfiltered(filtered []string) ([]Interface, error) {
	links, err := completeLinks()
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	addresses, err := completeAddresses(nil)
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	hasAddress := make(map[int]bool)
	for _, a := range addresses {
		hasAddress[a.LinkIndex] = true
	}
	s := newStack(links, filtered)
	var out []Interface
	for _, l := range links {
		a := l.Attrs()
		switch {
		case a.Flags&net.FlagLoopback != 0, a.Flags&net.FlagUp == 0, !hasAddress[a.Index]:
		case l.Type() == "dummy", l.Type() == "vrf": // nothing comes in by it
		case s.isPort(l), isGuestBridge(l, links), s.covers(l, len(links), true):
		default:
			out = append(out, Interface{a.Name, a.Index})
		}
	}
	return out, nil
}

// stack is how devices stand on one another.
type stack struct {
	links    []netlink.Link
	byIndex  map[int]netlink.Link
	filtered []string
}

func newStack(links []netlink.Link, filtered []string) *stack {
	s := &stack{links, make(map[int]netlink.Link), filtered}
	for _, l := range links {
		s.byIndex[l.Attrs().Index] = l
	}
	return s
}

// isPort reports whether what comes in goes on to a bridge or a bond, which has the addresses.
func (s *stack) isPort(l netlink.Link) bool {
	master := s.byIndex[l.Attrs().MasterIndex]
	return master != nil && master.Type() != "vrf"
}

// covers reports whether all that comes in by a device has met the filter: on itself, below it, or on each of its ports, but
// for what guests send where they are left out. Depth bounds how far down is looked.
func (s *stack) covers(l netlink.Link, depth int, butGuests bool) bool {
	a := l.Attrs()
	if policy.MatchAnyInterface(s.filtered, a.Name) {
		return true
	}
	if depth == 0 {
		return false
	}
	switch l.Type() {
	case "macvlan", "macvtap", "ipvlan":
		// A guest on the same parent hands over its frames past native XDP there.
		return butGuests && s.coversParent(a, depth, butGuests)
	case "vlan":
		return s.coversParent(a, depth, butGuests)
	case "bridge", "bond", "team":
		return s.coversPorts(l, depth, butGuests)
	}
	return false
}

func (s *stack) coversParent(a *netlink.LinkAttrs, depth int, butGuests bool) bool {
	parent := s.byIndex[a.ParentIndex]
	return a.NetNsID < 0 && parent != nil && s.covers(parent, depth-1, butGuests) // else the index is of another namespace
}

func (s *stack) coversPorts(l netlink.Link, depth int, butGuests bool) (covered bool) {
	for _, port := range s.links {
		if port.Attrs().MasterIndex != l.Attrs().Index || butGuests && l.Type() == "bridge" && isGuestPort(port) {
			continue
		}
		if !s.covers(port, depth-1, butGuests) {
			return false
		}
		covered = true
	}
	return covered
}

// Behind is what matters of an interface for packets that come in by it and are routed.
type Behind struct {
	Index  int
	Name   string
	Judged bool // all that comes in by it meets a filter
	Guests bool // containers or virtual machines of this host are behind it, see [FindGuests]
}

// ReadBehind returns the interfaces by which packets that are routed come in, where filters are on the given ones.
func ReadBehind(filtered []string) ([]Behind, error) {
	links, err := completeLinks()
	if err != nil {
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
