// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"encoding/binary"
	"math/bits"
	"net/netip"
	"slices"
)

// compileForward makes the sets of the rules about what is routed. The datapath
// asks one in place of a table, which would take a megabyte for each group.
func (b *setBuilder) compileForward(c *Compiled, groups []Group, slots [][]SlotRange, keys []string) error {
	c.Forward = map[Group]uint16{"": 0}
	if !slices.ContainsFunc(b.rules, func(r NumberedRule) bool { return r.Rule.Forward }) {
		for _, g := range groups {
			c.Forward[g] = 0
		}
		return nil
	}
	for _, g := range append([]Group{""}, groups...) {
		table := &Table{}
		if err := b.fill(table, g, slots, keys, true); err != nil {
			return err
		}
		set, err := b.number(slotNodes(table))
		if err != nil {
			return err
		}
		c.Forward[g] = set
	}
	return nil
}

// slotNodes returns what a table says, as prefixes of places that say the same.
func slotNodes(table *Table) (nodes []node) {
	for first := 0; first < len(table); {
		entry, end := table[first], first+1
		for end < len(table) && table[end] == entry {
			end++
		}
		if entry == (PortEntry{}) {
			first = end
			continue
		}
		d := Decision{To: entry.Set}
		if entry.Rule != 0 {
			d = Decision{Rule: entry.Rule}
		}
		for first < end {
			size := slotPrefix(first, end)
			nodes = append(nodes, node{netip.PrefixFrom(SlotAddress(first), 32-size), d})
			first += 1 << size
		}
	}
	return nodes
}

// slotPrefix returns how many bits the largest prefix leaves open that begins at
// first and ends before end, or there.
func slotPrefix(first, end int) int {
	size := bits.Len(uint(end-first)) - 1
	if first > 0 {
		size = min(size, bits.TrailingZeros(uint(first)))
	}
	return size
}

// SlotAddress returns the address that stands for a place of a [Table] in the
// sets of [Compiled.Forward].
func SlotAddress(slot int) netip.Addr {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], uint32(slot))
	return netip.AddrFrom4(b)
}
