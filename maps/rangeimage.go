// SPDX-License-Identifier: Apache-2.0

package maps

import (
	"cmp"
	"encoding/binary"
	"math/bits"
	"net/netip"
	"slices"
	"sort"
)

// prefixValue is what a set says of the addresses in a prefix, but for those in a longer one of the same set.
type prefixValue struct {
	prefix netip.Prefix
	value  uint32
}

// rangeImage is a set of addresses as the datapath looks it up, see bpf/ranges.h. Lines and buckets are counted from
// its own first ones.
type rangeImage struct {
	v4, v6  rangeIndex
	singles singles
	lines   [][rangeLineSize]byte
	buckets []rangeBucket
}

// singles says where the lines are, behind the others, in which an address that stands alone is found by a hash.
type singles struct{ firstLine, shift uint32 }

// rangeBucket says which lines may hold the addresses of a bucket.
type rangeBucket struct{ first, last uint32 }

// rangeIndex says where the ranges of a family are.
type rangeIndex struct {
	base        uint64
	shift       uint32
	lastBucket  uint32
	firstBucket uint32
	firstLine   uint32
	lastLine    uint32
}

const (
	rangeLineSize   = 64
	rangeBucketSize = 8
	rangesPerLine   = 8 // of IPv4
	longPerLine     = 3 // of IPv6
	bucketsPerLine  = 2 // at most
)

// address is one of either family, as numbers that can be compared: of IPv4 all is in high.
type address struct{ high, low uint64 }

func addressOf(a netip.Addr) address {
	if a.Is4() {
		b := a.As4()
		return address{uint64(binary.BigEndian.Uint32(b[:])), 0}
	}
	b := a.As16()
	return address{binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])}
}

// behind returns the first address behind a prefix, and whether there is one.
func behind(p netip.Prefix) (next address, ok bool) {
	return behindBits(addressOf(p.Addr()), p.Addr().Is4(), p.Bits())
}

func behindBits(first address, is4 bool, length int) (next address, ok bool) {
	if is4 {
		first.high += 1 << (32 - length)
		return first, first.high < 1<<32
	}
	if length <= 64 {
		first.high += 1 << (64 - length) // of /0 nothing
		return first, first.high != 0
	}
	var carry uint64
	first.low, carry = bits.Add64(first.low, 1<<(128-length), 0)
	first.high, carry = bits.Add64(first.high, 0, carry)
	return first, carry == 0
}

// lastOf returns the last address of a prefix.
func lastOf(p netip.Prefix) address {
	first, host := addressOf(p.Addr()), p.Addr().BitLen()-p.Bits()
	switch {
	case p.Addr().Is4() || host <= 0:
		return address{first.high | (1<<host - 1), first.low}
	case host < 64:
		return address{first.high, first.low | (1<<host - 1)}
	}
	return address{first.high | (1<<(host-64) - 1), ^uint64(0)}
}

// addressRange is the addresses from first to the next range's.
type addressRange struct {
	first address
	value uint32
}

// rangesOf cuts the addresses of a family into ranges. The first one begins with the first address; what is in no prefix
// has the value 0. The prefixes are sorted, and each is there once.
func rangesOf(prefixes []prefixValue) []addressRange {
	out := []addressRange{{}}
	put := func(first address, value uint32) {
		last := &out[len(out)-1]
		switch {
		case last.first == first:
			last.value = value
		case last.value == value:
			return
		default:
			out = append(out, addressRange{first, value})
		}
		// What was overwritten may have become like the one before.
		if n := len(out); n > 1 && out[n-1].value == out[n-2].value {
			out = out[:n-1]
		}
	}
	var around []prefixValue // those that the address is in, the longest last
	leave := func() {
		gone := around[len(around)-1]
		around = around[:len(around)-1]
		next, ok := behind(gone.prefix)
		if !ok {
			return
		}
		value := uint32(0)
		if len(around) > 0 {
			value = around[len(around)-1].value
		}
		put(next, value)
	}
	for _, p := range prefixes {
		for len(around) > 0 && !around[len(around)-1].prefix.Contains(p.prefix.Addr()) {
			leave()
		}
		put(addressOf(p.prefix.Addr()), p.value)
		around = append(around, p)
	}
	for len(around) > 0 {
		leave()
	}
	return out
}

// newRangeImage returns the image of a set. Each prefix is there once.
func newRangeImage(prefixes []prefixValue) *rangeImage {
	sorted := slices.Clone(prefixes)
	slices.SortFunc(sorted, func(a, b prefixValue) int {
		return cmp.Or(a.prefix.Addr().Compare(b.prefix.Addr()), cmp.Compare(a.prefix.Bits(), b.prefix.Bits()))
	})
	border, _ := slices.BinarySearchFunc(sorted, 32, func(p prefixValue, most int) int {
		return cmp.Compare(p.prefix.Addr().BitLen(), most+1) // IPv4 comes first
	})
	image := &rangeImage{}
	v4, v6 := rangesOf(sorted[:border]), rangesOf(sorted[border:])
	image.add(&image.v4, len(v4), func(i int) addressRange { return v4[i] })
	image.add(&image.v6, len(v6), func(i int) addressRange { return v6[i] })
	return image
}

// add appends the n ranges of a family. Behind the base there are about two buckets a line, so that most hold a border of
// no more than one.
func (image *rangeImage) add(index *rangeIndex, n int, at func(i int) addressRange) {
	perLine, put := longPerLine, putRange6
	if index == &image.v4 {
		perLine, put = rangesPerLine, putRange4
	}
	before, count := len(image.lines), (n+perLine-1)/perLine
	*index = rangeIndex{firstLine: uint32(before), firstBucket: uint32(len(image.buckets)), lastLine: uint32(count - 1)}
	image.lines = slices.Grow(image.lines, count)[:before+count]
	for i := range count {
		for place := range perLine {
			put(&image.lines[before+i], place, at(min(i*perLine+place, n-1)))
		}
	}
	if index.lastLine == 0 {
		return
	}
	index.base = at(1).first.high
	span := at(n-1).first.high - index.base
	for span>>index.shift >= uint64(bucketsPerLine*count) {
		index.shift++
	}
	index.lastBucket = uint32(span >> index.shift)
	image.buckets = slices.Grow(image.buckets, int(index.lastBucket)+1)
	line := uint32(0)
	for bucket := range uint64(index.lastBucket) + 1 {
		begin := address{index.base + bucket<<index.shift, 0}
		for line < index.lastLine && compareAddresses(at(int(line+1)*perLine).first, begin) <= 0 {
			line++
		}
		if bucket > 0 {
			image.buckets[len(image.buckets)-1].last = line
		}
		image.buckets = append(image.buckets, rangeBucket{line, index.lastLine})
	}
}

func compareAddresses(a, b address) int {
	return cmp.Or(cmp.Compare(a.high, b.high), cmp.Compare(a.low, b.low))
}

// putRange4 writes a range to its place in a struct range_line4.
func putRange4(line *[rangeLineSize]byte, place int, r addressRange) {
	binary.NativeEndian.PutUint32(line[4*place:], uint32(r.first.high))
	binary.NativeEndian.PutUint32(line[4*(rangesPerLine+place):], r.value)
}

// putRange6 writes a range to its place in a struct range_line6.
func putRange6(line *[rangeLineSize]byte, place int, r addressRange) {
	binary.NativeEndian.PutUint64(line[8*place:], r.first.high)
	binary.NativeEndian.PutUint64(line[8*(longPerLine+place):], r.first.low)
	binary.NativeEndian.PutUint32(line[4*(4*longPerLine+place):], r.value)
}

// valuesOf returns the values in a line.
func valuesOf(line *[rangeLineSize]byte, is6 bool) []uint32 {
	words := view[uint32](line[:])
	if is6 {
		return words[4*longPerLine : 5*longPerLine]
	}
	return words[rangesPerLine:]
}

// eachRange calls each for the ranges of an image that have a value, in order, IPv4 first.
func (image *rangeImage) eachRange(each func(is4 bool, first, last address, value uint32)) {
	for _, is4 := range []bool{true, false} {
		begin, end := addressRange{}, address{1<<32 - 1, 0}
		if !is4 {
			end = address{^uint64(0), ^uint64(0)}
		}
		image.walk(is4, func(r addressRange) {
			if begin.value != 0 && r.first != begin.first {
				each(is4, begin.first, r.first.before(is4), begin.value)
			}
			begin = r
		})
		if begin.value != 0 {
			each(is4, begin.first, end, begin.value)
		}
	}
}

// before returns the address before another one, which is not the first.
func (a address) before(is4 bool) address {
	if is4 || a.low == 0 {
		a.high--
	}
	if !is4 {
		a.low--
	}
	return a
}

// walk calls each for the ranges of a family in order, some of them more than once.
func (image *rangeImage) walk(is4 bool, each func(addressRange)) {
	index := image.v6
	if is4 {
		index = image.v4
	}
	for i := range image.lines[index.firstLine:][:index.lastLine+1] {
		eachInLine(&image.lines[int(index.firstLine)+i], is4, each)
	}
}

func eachInLine(line *[rangeLineSize]byte, is4 bool, each func(addressRange)) {
	values := valuesOf(line, !is4)
	if is4 {
		for i, first := range view[uint32](line[:])[:rangesPerLine] {
			each(addressRange{address{uint64(first), 0}, values[i]})
		}
		return
	}
	halves := view[uint64](line[:])
	for i := range longPerLine {
		each(addressRange{address{halves[i], halves[longPerLine+i]}, values[i]})
	}
}

// value returns what the set says of an address.
func (image *rangeImage) value(addr netip.Addr) (value uint32) {
	index, wanted := image.v6, addressOf(addr)
	if addr.Is4() {
		index = image.v4
	}
	lines := image.lines[index.firstLine:][:index.lastLine+1]
	begin := func(i int) (first address) {
		found := false
		eachInLine(&lines[i], addr.Is4(), func(r addressRange) {
			if !found {
				first, found = r.first, true
			}
		})
		return first
	}
	at := sort.Search(len(lines)-1, func(i int) bool { return compareAddresses(begin(i+1), wanted) > 0 })
	eachInLine(&lines[at], addr.Is4(), func(r addressRange) {
		if compareAddresses(r.first, wanted) <= 0 {
			value = r.value
		}
	})
	return value
}
