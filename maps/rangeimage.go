// SPDX-License-Identifier: Apache-2.0

package maps

import (
	"cmp"
	"encoding/binary"
	"math/bits"
	"net/netip"
	"slices"
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
	lines   [][rangeLineSize]byte
	buckets []rangeBucket
}

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
	first := addressOf(p.Addr())
	if p.Addr().Is4() {
		first.high += 1 << (32 - p.Bits())
		return first, first.high < 1<<32
	}
	if p.Bits() <= 64 {
		first.high += 1 << (64 - p.Bits()) // of /0 nothing
		return first, first.high != 0
	}
	var carry uint64
	first.low, carry = bits.Add64(first.low, 1<<(128-p.Bits()), 0)
	first.high, carry = bits.Add64(first.high, 0, carry)
	return first, carry == 0
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
	image.add(&image.v4, rangesOf(sorted[:border]), rangesPerLine, putLine4)
	image.add(&image.v6, rangesOf(sorted[border:]), longPerLine, putLine6)
	return image
}

// add appends the ranges of a family. Behind the base there are about two buckets a line, so that most hold a border of
// no more than one.
func (image *rangeImage) add(index *rangeIndex, ranges []addressRange, perLine int, put func(line []byte, ranges []addressRange)) {
	*index = rangeIndex{firstLine: uint32(len(image.lines)), firstBucket: uint32(len(image.buckets))}
	var begins []address // of each line
	for rest := ranges; len(rest) > 0; {
		n := min(perLine, len(rest))
		var line [rangeLineSize]byte
		put(line[:], rest[:n])
		image.lines = append(image.lines, line)
		begins = append(begins, rest[0].first)
		rest = rest[n:]
	}
	index.lastLine = uint32(len(begins) - 1)
	if index.lastLine == 0 {
		return
	}
	index.base = ranges[1].first.high
	span := ranges[len(ranges)-1].first.high - index.base
	for span>>index.shift >= uint64(2*len(begins)) {
		index.shift++
	}
	index.lastBucket = uint32(span >> index.shift)
	line := uint32(0)
	for bucket := range uint64(index.lastBucket) + 1 {
		begin := address{index.base + bucket<<index.shift, 0}
		for line < index.lastLine && compareAddresses(begins[line+1], begin) <= 0 {
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

// putLine4 writes ranges as a struct range_line4.
func putLine4(line []byte, ranges []addressRange) {
	for i := range rangesPerLine {
		r := ranges[min(i, len(ranges)-1)]
		binary.NativeEndian.PutUint32(line[4*i:], uint32(r.first.high))
		binary.NativeEndian.PutUint32(line[4*(rangesPerLine+i):], r.value)
	}
}

// putLine6 writes ranges as a struct range_line6.
func putLine6(line []byte, ranges []addressRange) {
	for i := range longPerLine {
		r := ranges[min(i, len(ranges)-1)]
		binary.NativeEndian.PutUint64(line[8*i:], r.first.high)
		binary.NativeEndian.PutUint64(line[8*(longPerLine+i):], r.first.low)
		binary.NativeEndian.PutUint32(line[16*longPerLine+4*i:], r.value)
	}
}
