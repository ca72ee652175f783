// SPDX-License-Identifier: Apache-2.0

package packets

import (
	"maps"
	"net/netip"
	"slices"
)

// addrRange is the addresses from first to last, of one family.
type addrRange struct{ first, last netip.Addr }

// everything is each address of both families.
var everything = []addrRange{
	rangeOf(netip.MustParsePrefix("0.0.0.0/0")),
	rangeOf(netip.MustParsePrefix("::/0")),
}

func rangeOf(p netip.Prefix) addrRange {
	p = p.Masked()
	b := p.Addr().AsSlice()
	for i := range b {
		switch bits := p.Bits() - 8*i; {
		case bits <= 0:
			b[i] = 0xff
		case bits < 8:
			b[i] |= 0xff >> bits
		}
	}
	last, _ := netip.AddrFromSlice(b)
	return addrRange{p.Addr(), last}
}

// rangesOf returns the addresses of prefixes, sorted and joined where they touch.
func rangesOf(prefixes []netip.Prefix) []addrRange {
	all := make([]addrRange, len(prefixes))
	for i, p := range prefixes {
		all[i] = rangeOf(p)
	}
	slices.SortFunc(all, func(a, b addrRange) int { return a.first.Compare(b.first) })
	return join(all)
}

// join joins sorted ranges that overlap or touch.
func join(sorted []addrRange) []addrRange {
	var out []addrRange
	for _, r := range sorted {
		if n := len(out); n > 0 && touches(out[n-1].last, r.first) {
			if out[n-1].last.Less(r.last) {
				out[n-1].last = r.last
			}
			continue
		}
		out = append(out, r)
	}
	return out
}

// touches reports whether a range that begins at next goes on with one that ends at last.
func touches(last, next netip.Addr) bool {
	return last.BitLen() == next.BitLen() && (next.Compare(last) <= 0 || next == last.Next())
}

// subtract returns the addresses of a that are not in b. Both are sorted and joined.
func subtract(a, b []addrRange) []addrRange {
	var out []addrRange
	for _, r := range a {
		for len(b) > 0 && b[0].last.Less(r.first) {
			b = b[1:]
		}
		alive := true
		for i := 0; i < len(b) && !r.last.Less(b[i].first); i++ {
			if r.first.Less(b[i].first) {
				out = append(out, addrRange{r.first, b[i].first.Prev()})
			}
			if r.last.Compare(b[i].last) <= 0 {
				alive = false
				break
			}
			r.first = b[i].last.Next()
		}
		if alive {
			out = append(out, r)
		}
	}
	return out
}

// prefixesOf returns the fewest prefixes that make up sorted, joined ranges.
func prefixesOf(ranges []addrRange) []netip.Prefix {
	var out []netip.Prefix
	for _, r := range ranges {
		for at := r.first; ; {
			bits := at.BitLen()
			widest := netip.PrefixFrom(at, bits)
			for bits > 0 {
				wider := netip.PrefixFrom(at, bits-1)
				if wider.Masked().Addr() != at || r.last.Less(rangeOf(wider).last) {
					break
				}
				widest, bits = wider, bits-1
			}
			out = append(out, widest)
			end := rangeOf(widest).last
			if end == r.last {
				break
			}
			at = end.Next()
		}
	}
	return out
}

// piece is a range with the places, in a list of sets of ranges, of those that hold it.
type piece struct {
	addrRange
	in []int // sorted
}

// overlay cuts the addresses at the borders of sets, and returns the pieces that are in one of them. Each set is sorted
// and joined.
func overlay(sets [][]addrRange) []piece {
	return append(overlayFamily(sets, 32), overlayFamily(sets, 128)...)
}

func overlayFamily(sets [][]addrRange, bits int) []piece {
	type border struct {
		at    netip.Addr // not valid behind the last address
		set   int
		enter bool
	}
	var borders []border
	for i, set := range sets {
		for _, r := range set {
			if r.first.BitLen() == bits {
				borders = append(borders, border{r.first, i, true}, border{r.last.Next(), i, false})
			}
		}
	}
	slices.SortFunc(borders, func(a, b border) int {
		if a.at.IsValid() != b.at.IsValid() {
			return b.at.BitLen() - a.at.BitLen() // the end comes last
		}
		return a.at.Compare(b.at)
	})
	var out []piece
	active := make(map[int]bool)
	for i := 0; i < len(borders); {
		at := borders[i].at
		for ; i < len(borders) && borders[i].at == at; i++ {
			if borders[i].enter {
				active[borders[i].set] = true
			} else {
				delete(active, borders[i].set)
			}
		}
		if len(active) == 0 {
			continue
		}
		last := borders[i].at.Prev()
		if !borders[i].at.IsValid() {
			last = rangeOf(netip.PrefixFrom(at, 0)).last
		}
		out = append(out, piece{addrRange{at, last}, slices.Sorted(maps.Keys(active))})
	}
	return out
}
