// SPDX-License-Identifier: Apache-2.0

package maps

import (
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
	blocked := prefixSet{v4: make([]uint64, 0, n)}
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
			blocked.add(p, i+1)
		}
		b.lists = append(b.lists, info)
	}
	b.block = blocked.image()
	var trusted prefixSet
	for _, p := range trust {
		trusted.add(p, 1)
	}
	b.trust = trusted.image()
	return b, nil
}

// withValues returns the image with other values in the place of its own, which are places in values; 0 stays.
func (image *rangeImage) withValues(values []uint32) *rangeImage {
	same := true
	for i, value := range values {
		same = same && int(value) == i
	}
	if image == nil || same {
		return image
	}
	out := *image
	out.lines = slices.Clone(image.lines)
	for i := range out.lines {
		if image.singles.shift != 0 && uint32(i) >= image.singles.firstLine {
			_, line := singlesIn(&out.lines[i])
			for j, value := range line {
				line[j] = uint16(values[value])
			}
			continue
		}
		line := valuesOf(&out.lines[i], uint32(i) >= image.v6.firstLine)
		for j, value := range line {
			line[j] = values[value]
		}
	}
	return &out
}
