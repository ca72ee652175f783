// SPDX-License-Identifier: Apache-2.0

package bans

import (
	"encoding/binary"
	"net/netip"

	"github.com/portcullis-firewall/portcullis/policy/addrset"
)

// Index finds lines by their addresses. There may be half a million, mostly of single addresses of IPv4.
type Index struct {
	lines    []Line
	single   map[uint32]int32 // the places of the first lines about addresses of IPv4
	other    map[netip.Prefix]int32
	again    map[int32]int32 // the first lines by those that repeat them
	repeated map[int32]bool  // the first lines
	networks []addrset.Range // that are no single addresses of IPv4
}

// NewIndex returns the index of some lines.
func NewIndex(lines []Line) *Index {
	x := &Index{lines: lines}
	if len(lines) <= 1 {
		return x
	}
	x.single, x.other = make(map[uint32]int32, len(lines)), make(map[netip.Prefix]int32)
	x.again, x.repeated = make(map[int32]int32), make(map[int32]bool)
	var others []netip.Prefix
	for i := range lines {
		p := lines[i].Prefix
		var first int32
		var ok bool
		if is4(p) {
			key := word(p.Addr())
			if first, ok = x.single[key]; !ok {
				x.single[key] = int32(i)
			}
		} else if first, ok = x.other[p]; !ok {
			x.other[p] = int32(i)
			others = append(others, p)
		}
		if ok {
			x.again[int32(i)], x.repeated[first] = first, true
		}
	}
	x.networks = addrset.Of(others)
	return x
}

func is4(p netip.Prefix) bool { return p.Bits() == 32 && p.Addr().Is4() }

func word(addr netip.Addr) uint32 {
	b := addr.As4()
	return binary.NativeEndian.Uint32(b[:])
}

// First returns the place of the first line that is about the same address or network as the one at a place.
func (x *Index) First(place int) int {
	if first, ok := x.again[int32(place)]; ok {
		return int(first)
	}
	return place
}

// IsRepeated reports whether a later line is about the same address or network as the one at a place, which is the first.
func (x *Index) IsRepeated(place int) bool { return x.repeated[int32(place)] }

// Holds reports whether an address is in any of the lines.
func (x *Index) Holds(addr netip.Addr) bool {
	if x.single == nil {
		return len(x.lines) > 0 && x.lines[0].Prefix.Contains(addr)
	}
	if addr.Is4() {
		if _, ok := x.single[word(addr)]; ok {
			return true
		}
	}
	return addrset.Holds(x.networks, addr)
}
