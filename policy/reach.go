// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"net/netip"
	"slices"
)

// addrRange is all addresses from first to last, of one family.
type addrRange struct{ first, last netip.Addr }

// What every address is, and which sources no packet from another host has.
var (
	everyAddress   = rangesOf([]netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")})
	loopbackRanges = rangesOf(loopbackNetworks)
	neverRanges    = rangesOf(neverSources)

	loopbackNetworks = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}
	neverSources     = append(slices.Clone(loopbackNetworks), netip.MustParsePrefix("224.0.0.0/4"),
		netip.MustParsePrefix("255.255.255.255/32"), netip.MustParsePrefix("ff00::/8"))
)

func usableSource(p netip.Prefix) bool {
	return !slices.ContainsFunc(neverSources, func(of netip.Prefix) bool { return prefixWithin(p, of) })
}

func prefixWithin(inner, outer netip.Prefix) bool {
	return outer.Bits() <= inner.Bits() && outer.Contains(inner.Addr())
}

// rangesOf returns the addresses of prefixes as ranges that are sorted and do not
// touch.
func rangesOf(prefixes []netip.Prefix) []addrRange {
	var out []addrRange
	for _, p := range canonicalPrefixes(prefixes) {
		r := addrRange{p.Addr(), lastAddress(p)}
		if n := len(out); n > 0 && out[n-1].last.Next() == r.first {
			out[n-1].last = r.last
			continue
		}
		out = append(out, r)
	}
	return out
}

func lastAddress(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < 8*len(b); i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	addr, _ := netip.AddrFromSlice(b)
	return addr
}

// prefixesOf returns ranges as the fewest prefixes.
func prefixesOf(ranges []addrRange) []netip.Prefix {
	var out []netip.Prefix
	for _, r := range ranges {
		for at := r.first; ; {
			p := netip.PrefixFrom(at, at.BitLen())
			for p.Bits() > 0 {
				wider := netip.PrefixFrom(at, p.Bits()-1)
				if wider.Masked().Addr() != at || lastAddress(wider).Compare(r.last) > 0 {
					break
				}
				p = wider
			}
			out = append(out, p)
			end := lastAddress(p)
			if end == r.last {
				break
			}
			at = end.Next()
		}
	}
	return out
}

// subtractRanges returns what of a is not in b.
func subtractRanges(a, b []addrRange) []addrRange {
	var out []addrRange
	for _, r := range a {
		for len(b) > 0 && b[0].last.Less(r.first) {
			b = b[1:]
		}
		gone := false
		for i := 0; i < len(b) && b[i].first.Compare(r.last) <= 0; i++ {
			if r.first.Less(b[i].first) {
				out = append(out, addrRange{r.first, b[i].first.Prev()})
			}
			if r.last.Compare(b[i].last) <= 0 {
				gone = true
				break
			}
			r.first = b[i].last.Next()
		}
		if !gone {
			out = append(out, r)
		}
	}
	return out
}

// intersectRanges returns what is in a and in b.
func intersectRanges(a, b []addrRange) []addrRange {
	var out []addrRange
	for len(a) > 0 && len(b) > 0 {
		first, last := a[0].first, a[0].last
		if first.Less(b[0].first) {
			first = b[0].first
		}
		if b[0].last.Less(last) {
			last = b[0].last
		}
		if first.Compare(last) <= 0 {
			out = append(out, addrRange{first, last})
		}
		if a[0].last.Less(b[0].last) {
			a = a[1:]
		} else {
			b = b[1:]
		}
	}
	return out
}

func rangesWithin(inner, outer []addrRange) bool { return len(subtractRanges(inner, outer)) == 0 }

// ofFamily returns the ranges of IPv4, or of IPv6.
func ofFamily(ranges []addrRange, v4 bool) []addrRange {
	i := slices.IndexFunc(ranges, func(r addrRange) bool { return !r.first.Is4() }) // IPv4 sorts first
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

// sources returns from where the rule lets in.
func (r Rule) sources() []addrRange {
	out := everyAddress
	if len(r.From) > 0 {
		out = rangesOf(r.From)
	}
	if len(r.Except) > 0 {
		out = subtractRanges(out, rangesOf(r.Except))
	}
	return out
}

// destinations returns to which addresses the rule lets in.
func (r Rule) destinations() []addrRange {
	if len(r.To) == 0 {
		return everyAddress
	}
	return rangesOf(r.To)
}

// reach returns from where the rule lets in, and to where: each family only
// where both have it.
func (r Rule) reach() (src, dst []addrRange) {
	src, dst = r.sources(), r.destinations()
	for _, v4 := range []bool{true, false} {
		if len(ofFamily(src, v4)) == 0 || len(ofFamily(dst, v4)) == 0 {
			src, dst = ofFamily(src, !v4), ofFamily(dst, !v4)
		}
	}
	return src, dst
}

// everywhere reports whether the rule lets everybody in to every address.
func (r Rule) everywhere() bool { return len(r.From) == 0 && len(r.Except) == 0 && len(r.To) == 0 }

// reachOverlaps reports whether there is a source that both rules let in to the
// same address.
func (r Rule) reachOverlaps(o Rule) bool {
	if r.everywhere() || o.everywhere() {
		return true // no rule lets nobody in
	}
	src, dst := r.reach()
	src2, dst2 := o.reach()
	for _, v4 := range []bool{true, false} {
		if len(intersectRanges(ofFamily(src, v4), ofFamily(src2, v4))) > 0 &&
			len(intersectRanges(ofFamily(dst, v4), ofFamily(dst2, v4))) > 0 {
			return true
		}
	}
	return false
}

// onOverlaps reports whether there is an interface on which both rules count.
func (r Rule) onOverlaps(o Rule) bool {
	if len(r.On) == 0 || len(o.On) == 0 {
		return true
	}
	return slices.ContainsFunc(r.On, func(a string) bool {
		return slices.ContainsFunc(o.On, func(b string) bool { return patternsOverlap(a, b) })
	})
}

// countsOn reports whether the rule counts on every interface that a pattern
// stands for. The pattern "" stands for all.
func (r Rule) countsOn(pattern string) bool {
	if len(r.On) == 0 {
		return true
	}
	return pattern != "" && slices.ContainsFunc(r.On, func(of string) bool { return withinPattern(pattern, of) })
}

// patterns returns the interfaces on which the rule counts, as countsOn takes
// them.
func (r Rule) patterns() []string {
	if len(r.On) == 0 {
		return []string{""}
	}
	return r.On
}
