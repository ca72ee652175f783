// SPDX-License-Identifier: Apache-2.0

package maps

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
)

// MaxBlockLists is the most block lists that a policy may have.
const MaxBlockLists = maxBlockLists/2 - 1

// BlockList is a list of sources to block.
type BlockList struct {
	Name     string   // at most MaxBlockListName bytes
	Digest   [32]byte // of its text, for the commands that come after
	Prefixes []netip.Prefix
}

// MaxBlockListName is how many bytes the name of a block list may have.
const MaxBlockListName = 63

// Blocking is block lists and trusted sources in the form in which the datapath looks them up. The value of an address is
// the place of its list, from 1 on.
type Blocking struct {
	lists        []BlockListInForce // without numbers
	block, trust *rangeImage        // nil: none
}

// NewBlocking returns lists, of which the first that has a source is the one that blocks it, and the sources that none
// blocks.
func NewBlocking(lists []BlockList, trust []netip.Prefix) (*Blocking, error) {
	if len(lists) > MaxBlockLists {
		return nil, fmt.Errorf("%d block lists are too many: %d is the most", len(lists), MaxBlockLists)
	}
	b := &Blocking{}
	n := 0
	for _, l := range lists {
		n += len(l.Prefixes)
	}
	blocked := make([]ordered, 0, n)
	seen := make(map[string]bool, len(lists))
	for i, l := range lists {
		if len(l.Name) > MaxBlockListName {
			return nil, fmt.Errorf("the name of block list %q is longer than %d bytes", l.Name, MaxBlockListName)
		}
		if seen[l.Name] {
			return nil, fmt.Errorf("block list %q is there twice", l.Name)
		}
		seen[l.Name] = true
		info := BlockListInForce{Name: l.Name, Digest: l.Digest}
		for _, p := range l.Prefixes {
			if p.Addr().Is4() {
				info.Networks4++
			} else {
				info.Networks6++
			}
			blocked = append(blocked, newOrdered(p, uint32(i+1)))
		}
		b.lists = append(b.lists, info)
	}
	b.block = imageOfOrdered(blocked)
	trusted := make([]ordered, len(trust))
	for i, p := range trust {
		trusted[i] = newOrdered(p, 1)
	}
	b.trust = imageOfOrdered(trusted)
	return b, nil
}

// ordered is a prefix of a list: of those that hold an address the one whose list comes first counts, and not the longest.
type ordered struct {
	first address
	is4   bool
	bits  uint8
	order uint32
}

func newOrdered(p netip.Prefix, order uint32) ordered {
	p = p.Masked()
	return ordered{addressOf(p.Addr()), p.Addr().Is4(), uint8(p.Bits()), order}
}

func compareOrdered(a, b ordered) int {
	if a.is4 != b.is4 {
		if a.is4 {
			return -1
		}
		return 1
	}
	if a.first.high != b.first.high {
		return cmp.Compare(a.first.high, b.first.high)
	}
	return cmp.Or(cmp.Compare(a.first.low, b.first.low), cmp.Compare(a.bits, b.bits), cmp.Compare(a.order, b.order))
}

// imageOfOrdered returns the image of a set that says of an address the lowest order of those that hold it. It is made for
// a million prefixes, which the walk for rules is not.
func imageOfOrdered(prefixes []ordered) *rangeImage {
	if len(prefixes) == 0 {
		return nil
	}
	if !slices.IsSortedFunc(prefixes, compareOrdered) {
		slices.SortFunc(prefixes, compareOrdered)
	}
	border, _ := slices.BinarySearchFunc(prefixes, false, func(p ordered, is4 bool) int {
		if p.is4 {
			return -1
		}
		return 1
	})
	image := &rangeImage{}
	image.add(&image.v4, orderedRanges(prefixes[:border]), rangesPerLine, putLine4)
	image.add(&image.v6, orderedRanges(prefixes[border:]), longPerLine, putLine6)
	return image
}

// orderedRanges cuts the addresses of a family into ranges, see rangesOf.
func orderedRanges(sorted []ordered) []addressRange {
	out := make([]addressRange, 1, 2*len(sorted)+1)
	put := func(first address, value uint32) {
		last := &out[len(out)-1]
		switch {
		case last.first == first:
			last.value = value
			if n := len(out); n > 1 && out[n-2].value == value {
				out = out[:n-1]
			}
		case last.value != value:
			out = append(out, addressRange{first, value})
		}
	}
	type open struct {
		next   address // behind it
		beyond bool    // there is nothing behind it
		order  uint32  // the lowest of it and of those around it
	}
	var around []open
	leave := func() {
		gone := around[len(around)-1]
		around = around[:len(around)-1]
		if gone.beyond {
			return
		}
		value := uint32(0)
		if len(around) > 0 {
			value = around[len(around)-1].order
		}
		put(gone.next, value)
	}
	for i := range sorted {
		p := &sorted[i]
		for len(around) > 0 && !around[len(around)-1].beyond && compareAddresses(around[len(around)-1].next, p.first) <= 0 {
			leave()
		}
		order := p.order
		if len(around) > 0 {
			order = min(order, around[len(around)-1].order)
		}
		next, ok := behindBits(p.first, p.is4, int(p.bits))
		put(p.first, order)
		around = append(around, open{next, !ok, order})
	}
	for len(around) > 0 {
		leave()
	}
	return out
}

// withValues returns the image with other values in the place of its own, which index values; 0 stays.
func (image *rangeImage) withValues(values []uint32) *rangeImage {
	if image == nil {
		return nil
	}
	out := *image
	out.lines = slices.Clone(image.lines)
	for i := range out.lines {
		line := valuesOf(&out.lines[i], uint32(i) >= image.v6.firstLine)
		for j, value := range line {
			line[j] = values[value]
		}
	}
	return &out
}
