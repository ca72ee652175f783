// SPDX-License-Identifier: Apache-2.0

// Package addrset works with sets of IPv4 and IPv6 addresses: ranges that are sorted, IPv4 first, and neither overlap nor
// touch.
package addrset

import (
	"maps"
	"net/netip"
	"slices"
)

// Range is all addresses from First to Last, of one family.
type Range struct{ First, Last netip.Addr }

// Everything is every address of both families. Treat it as immutable.
var Everything = []Range{RangeOf(netip.MustParsePrefix("0.0.0.0/0")), RangeOf(netip.MustParsePrefix("::/0"))}

// RangeOf returns the addresses of a prefix.
func RangeOf(p netip.Prefix) Range {
	first := p.Masked().Addr()
	rest := ones(first.BitLen() - p.Bits())
	return Range{first, numberOf(first).or(rest).addr(first.Is4())}
}

// Of returns the addresses of prefixes.
func Of(prefixes []netip.Prefix) []Range {
	all := make([]Range, len(prefixes))
	for i, p := range prefixes {
		all[i] = RangeOf(p)
	}
	slices.SortFunc(all, func(a, b Range) int { return a.First.Compare(b.First) })
	return Join(all)
}

// Join returns sorted ranges with those that overlap or touch made one.
func Join(sorted []Range) []Range {
	var out []Range
	for _, r := range sorted {
		if n := len(out); n > 0 && touches(out[n-1].Last, r.First) {
			if out[n-1].Last.Less(r.Last) {
				out[n-1].Last = r.Last
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

// Subtract returns what of a is not in b.
func Subtract(a, b []Range) []Range {
	var out []Range
	for _, r := range a {
		for len(b) > 0 && b[0].Last.Less(r.First) {
			b = b[1:]
		}
		gone := false
		for i := 0; i < len(b) && b[i].First.Compare(r.Last) <= 0; i++ {
			if r.First.Less(b[i].First) {
				out = append(out, Range{r.First, b[i].First.Prev()})
			}
			if r.Last.Compare(b[i].Last) <= 0 {
				gone = true
				break
			}
			r.First = b[i].Last.Next()
		}
		if !gone {
			out = append(out, r)
		}
	}
	return out
}

// Intersect returns what is in a and in b.
func Intersect(a, b []Range) []Range {
	var out []Range
	for len(a) > 0 && len(b) > 0 {
		first, last := a[0].First, a[0].Last
		if first.Less(b[0].First) {
			first = b[0].First
		}
		if b[0].Last.Less(last) {
			last = b[0].Last
		}
		if first.Compare(last) <= 0 {
			out = append(out, Range{first, last})
		}
		if a[0].Last.Less(b[0].Last) {
			a = a[1:]
		} else {
			b = b[1:]
		}
	}
	return out
}

// Holds reports whether an address is in some ranges.
func Holds(ranges []Range, addr netip.Addr) bool {
	i, found := slices.BinarySearchFunc(ranges, addr, func(r Range, a netip.Addr) int { return r.First.Compare(a) })
	return found || i > 0 && addr.Compare(ranges[i-1].Last) <= 0
}

// Within reports whether all of inner is in outer.
func Within(inner, outer []Range) bool { return len(Subtract(inner, outer)) == 0 }

// OfFamily returns the ranges of IPv4, or of IPv6.
func OfFamily(ranges []Range, v4 bool) []Range {
	i := slices.IndexFunc(ranges, func(r Range) bool { return !r.First.Is4() }) // IPv4 sorts first
	switch {
	case i < 0 && v4:
		return ranges
	case i < 0:
		return nil
	case v4:
		return ranges[:i]
	}
	return ranges[i:]
}

// Prefixes returns ranges as the fewest prefixes.
func Prefixes(ranges []Range) []netip.Prefix {
	var out []netip.Prefix
	for _, r := range ranges {
		v4, width := r.First.Is4(), r.First.BitLen()
		at, last := numberOf(r.First), numberOf(r.Last)
		for {
			// As wide as the address has zeros at its end, and as what is left has room for.
			wide := min(at.trailingZeros(), width)
			if left := last.minus(at).next(); left != (number{}) { // else it is all of IPv6
				wide = min(wide, left.length()-1)
			}
			out = append(out, netip.PrefixFrom(at.addr(v4), width-wide))
			end := at.or(ones(wide))
			if end == last {
				break
			}
			at = end.next()
		}
	}
	return out
}

// Piece is a range with the places, in a list of sets of ranges, of those that hold it.
type Piece struct {
	Range
	In []int // sorted
}

// Overlay cuts the addresses at the borders of sets, and returns the pieces that are in one of them. Each set is sorted
// and joined.
func Overlay(sets [][]Range) []Piece {
	return append(OverlayFamily(sets, 32), OverlayFamily(sets, 128)...)
}

// OverlayFamily is Overlay for the addresses of one family, which have so many bits.
func OverlayFamily(sets [][]Range, bits int) []Piece {
	type border struct {
		at    netip.Addr // not valid behind the last address
		set   int
		enter bool
	}
	var borders []border
	for i, set := range sets {
		for _, r := range set {
			if r.First.BitLen() == bits {
				borders = append(borders, border{r.First, i, true}, border{r.Last.Next(), i, false})
			}
		}
	}
	slices.SortFunc(borders, func(a, b border) int {
		if a.at.IsValid() != b.at.IsValid() {
			return b.at.BitLen() - a.at.BitLen() // the end comes last
		}
		return a.at.Compare(b.at)
	})
	var out []Piece
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
			last = RangeOf(netip.PrefixFrom(at, 0)).Last
		}
		out = append(out, Piece{Range{at, last}, slices.Sorted(maps.Keys(active))})
	}
	return out
}
