// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"net/netip"
	"slices"

	"github.com/portcullis-firewall/portcullis/policy/addrset"
)

// Which sources no packet from another host has.
var (
	loopbackRanges = addrset.Of(loopbackNetworks)
	neverRanges    = addrset.Of(neverSources)

	neverRoutedRanges = addrset.Of(append([]netip.Prefix{netip.MustParsePrefix("255.255.255.255/32"), netip.MustParsePrefix("fe80::/10")}, loopbackNetworks...))

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

// sources returns from where the rule lets in.
func (r Rule) sources() []addrset.Range {
	out := addrset.Everything
	if len(r.From) > 0 {
		out = addrset.Of(r.From)
	}
	if len(r.Except) > 0 {
		out = addrset.Subtract(out, addrset.Of(r.Except))
	}
	return out
}

// destinations returns to which addresses the rule lets in.
func (r Rule) destinations() []addrset.Range {
	if len(r.To) == 0 {
		return addrset.Everything
	}
	return addrset.Of(r.To)
}

// reach returns from where the rule lets in, and to where: each family only
// where both have it.
func (r Rule) reach() (src, dst []addrset.Range) {
	src, dst = r.sources(), r.destinations()
	for _, v4 := range []bool{true, false} {
		if len(addrset.OfFamily(src, v4)) == 0 || len(addrset.OfFamily(dst, v4)) == 0 {
			src, dst = addrset.OfFamily(src, !v4), addrset.OfFamily(dst, !v4)
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
		if len(addrset.Intersect(addrset.OfFamily(src, v4), addrset.OfFamily(src2, v4))) > 0 &&
			len(addrset.Intersect(addrset.OfFamily(dst, v4), addrset.OfFamily(dst2, v4))) > 0 {
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
