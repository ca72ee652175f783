// SPDX-License-Identifier: Apache-2.0

package maps

import (
	"cmp"
	"math/bits"
	"net/netip"
	"slices"
)

// prefixSet is prefixes, each with the place of its list. Of those that hold an address the one with the lowest place
// counts, and not the longest. It is made for a million of them, which the walk for rules is not: an IPv4 one is a number.
type prefixSet struct {
	v4 []uint64
	v6 []prefix6
}

// What an IPv4 prefix is as a number: the address, the length and the place, which sort like this.
const (
	packedAddress = 32
	packedLength  = 16
	packedPlace   = 1<<packedLength - 1
)

type prefix6 struct {
	first  address
	length uint8
	place  uint16
}

func (s *prefixSet) add(p netip.Prefix, place int) {
	p = p.Masked()
	first := addressOf(p.Addr())
	if p.Addr().Is4() {
		s.v4 = append(s.v4, first.high<<packedAddress|uint64(p.Bits())<<packedLength|uint64(place))
	} else {
		s.v6 = append(s.v6, prefix6{first, uint8(p.Bits()), uint16(place)})
	}
}

// image returns the set as the datapath looks it up, or nil for an empty one.
func (s *prefixSet) image() *rangeImage {
	if len(s.v4)+len(s.v6) == 0 {
		return nil
	}
	slices.Sort(s.v4)
	slices.SortFunc(s.v6, func(a, b prefix6) int {
		return cmp.Or(compareAddresses(a.first, b.first), cmp.Compare(a.length, b.length), cmp.Compare(a.place, b.place))
	})
	image := &rangeImage{}
	v4 := &ranges4{first: make([]uint32, 1, 2*len(s.v4)+1), value: make([]uint16, 1, 2*len(s.v4)+1)}
	cut(len(s.v4), func(i int) (first, next uint64, place uint16) {
		p := s.v4[i]
		first = p >> packedAddress
		return first, first + 1<<(32-p>>packedLength&63), uint16(p & packedPlace)
	}, func(a, b uint64) bool { return a < b }, v4.put)
	image.add(&image.v4, len(v4.first), func(i int) addressRange {
		return addressRange{address{uint64(v4.first[i]), 0}, uint32(v4.value[i])}
	})
	v6 := &ranges6{ranges: make([]addressRange, 1, 2*len(s.v6)+1)}
	cut(len(s.v6), func(i int) (first, next end6, place uint16) {
		p := &s.v6[i]
		behind, ok := behindBits(p.first, false, int(p.length))
		return end6{address: p.first}, end6{behind, !ok}, p.place
	}, end6.less, v6.put)
	image.add(&image.v6, len(v6.ranges), func(i int) addressRange { return v6.ranges[i] })
	image.addSingles(v4)
	return image
}

const (
	singlesPerLine = 10
	leastSingles   = 1 << 12 // below that all ranges stay in the cache
	meanSingles    = 4       // in a line, of which then one in five hundred has too many
)

// addSingles adds lines for the ranges of one address, if there are many.
func (image *rangeImage) addSingles(r *ranges4) {
	isSingle := func(i int) bool {
		return r.value[i] != 0 && i+1 < len(r.first) && r.first[i+1] == r.first[i]+1
	}
	n := 0
	for i := range r.first {
		if isSingle(i) {
			n++
		}
	}
	if n < leastSingles {
		return
	}
	size := bits.Len(uint(n/meanSingles - 1))
	image.singles = singles{firstLine: uint32(len(image.lines)), shift: uint32(32 - size)}
	image.lines = append(image.lines, make([][rangeLineSize]byte, 1<<size)...)
	lines := image.lines[image.singles.firstLine:]
	for i, addr := range r.first {
		if !isSingle(i) {
			continue
		}
		addrs, values := singlesIn(&lines[addr*0x9e3779b1>>image.singles.shift])
		for place := range values {
			if values[place] == 0 {
				addrs[place], values[place] = addr, r.value[i]
				break
			}
		}
	}
}

// singlesIn returns what is in a struct range_singles.
func singlesIn(line *[rangeLineSize]byte) (addrs []uint32, values []uint16) {
	const end = 4 * singlesPerLine
	return view[uint32](line[:end]), view[uint16](line[end:])[:singlesPerLine]
}

// end6 is an IPv6 address, or what is beyond the last one.
type end6 struct {
	address
	beyond bool
}

func (a end6) less(b end6) bool {
	if a.beyond || b.beyond {
		return !a.beyond
	}
	return compareAddresses(a.address, b.address) < 0
}

// cut walks over n sorted prefixes, of which at returns the first address, the next one behind it and the place. It calls
// put with each address from which on another place counts; 0 is none.
func cut[A any](n int, at func(int) (first, next A, place uint16), less func(a, b A) bool, put func(first A, place uint16)) {
	type open struct {
		next  A
		place uint16 // the lowest of it and those around it
	}
	var around []open
	leave := func() {
		gone := around[len(around)-1]
		around = around[:len(around)-1]
		place := uint16(0)
		if len(around) > 0 {
			place = around[len(around)-1].place
		}
		put(gone.next, place)
	}
	for i := range n {
		first, next, place := at(i)
		for len(around) > 0 && !less(first, around[len(around)-1].next) {
			leave()
		}
		if len(around) > 0 {
			place = min(place, around[len(around)-1].place)
		}
		put(first, place)
		around = append(around, open{next, place})
	}
	for len(around) > 0 {
		leave()
	}
}

// ranges4 is ranges of IPv4 addresses, see addressRange.
type ranges4 struct {
	first []uint32
	value []uint16
}

func (r *ranges4) put(first uint64, value uint16) {
	last := len(r.first) - 1
	switch {
	case first>>32 != 0: // behind the last address
	case r.first[last] == uint32(first):
		r.value[last] = value
		// What was overwritten may have become like the one before.
		if last > 0 && r.value[last-1] == value {
			r.first, r.value = r.first[:last], r.value[:last]
		}
	case r.value[last] != value:
		r.first, r.value = append(r.first, uint32(first)), append(r.value, value)
	}
}

type ranges6 struct{ ranges []addressRange }

func (r *ranges6) put(first end6, value uint16) {
	n := len(r.ranges) - 1
	last := &r.ranges[n]
	switch {
	case first.beyond:
	case last.first == first.address:
		last.value = uint32(value)
		if n > 0 && r.ranges[n-1].value == uint32(value) {
			r.ranges = r.ranges[:n]
		}
	case last.value != uint32(value):
		r.ranges = append(r.ranges, addressRange{first.address, uint32(value)})
	}
}
