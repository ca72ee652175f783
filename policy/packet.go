// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"net/netip"
	"slices"
)

// Packet is what rules ask of a packet.
type Packet struct {
	Interface           string
	Protocol            Protocol
	Port                uint16 // 0 for a protocol without ports
	Source, Destination netip.Addr
}

// Admits reports whether the rule lets a packet in, unless its limit is
// exceeded.
func (r Rule) Admits(p Packet) bool {
	within := func(list []netip.Prefix, addr netip.Addr) bool {
		return slices.ContainsFunc(list, func(p netip.Prefix) bool { return p.Contains(addr.Unmap()) })
	}
	return r.AppliesOn(p.Interface) && r.Allows(p.Protocol, p.Port, p.Source) && !within(r.Except, p.Source) &&
		(len(r.To) == 0 || within(r.To, p.Destination))
}
