// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"cmp"
	"net/netip"
	"slices"
)

// canonicalPorts sorts ranges and joins those that touch, so that two ways to
// write the same ports compare equal.
func canonicalPorts(ranges []PortRange) []PortRange {
	sorted := slices.Clone(ranges)
	slices.SortFunc(sorted, func(a, b PortRange) int {
		return cmp.Or(cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.First, b.First), cmp.Compare(a.Last, b.Last))
	})
	var out []PortRange
	for _, r := range sorted {
		if n := len(out); n > 0 && out[n-1].Protocol == r.Protocol && int(r.First) <= int(out[n-1].Last)+1 {
			out[n-1].Last = max(out[n-1].Last, r.Last)
			continue
		}
		out = append(out, r)
	}
	return out
}

// subtractPorts returns the ports of a that are not in b.
func subtractPorts(a, b []PortRange) []PortRange {
	rest := canonicalPorts(a)
	for _, cut := range b {
		var next []PortRange
		for _, r := range rest {
			if !r.overlaps(cut) {
				next = append(next, r)
				continue
			}
			if r.First < cut.First {
				next = append(next, PortRange{r.Protocol, r.First, cut.First - 1})
			}
			if r.Last > cut.Last {
				next = append(next, PortRange{r.Protocol, cut.Last + 1, r.Last})
			}
		}
		rest = next
	}
	return rest
}

func portsOverlap(a, b []PortRange) bool {
	const few = 64
	if len(a)*len(b) > few {
		// Sorted and without overlaps: whichever ends first can meet no later one of the other.
		a, b = canonicalPorts(a), canonicalPorts(b)
		for len(a) > 0 && len(b) > 0 && !a[0].overlaps(b[0]) {
			if cmp.Or(cmp.Compare(a[0].Protocol, b[0].Protocol), cmp.Compare(a[0].First, b[0].First)) < 0 {
				a = a[1:]
			} else {
				b = b[1:]
			}
		}
		return len(a) > 0 && len(b) > 0
	}
	return slices.ContainsFunc(a, func(p PortRange) bool { return slices.ContainsFunc(b, p.overlaps) })
}

func comparePrefix(a, b netip.Prefix) int {
	if c := a.Addr().Compare(b.Addr()); c != 0 {
		return c
	}
	return cmp.Compare(a.Bits(), b.Bits())
}

// canonicalSources returns sources as canonicalPrefixes does. Everyone, however
// written, is nil.
func canonicalSources(prefixes []netip.Prefix) []netip.Prefix {
	out := canonicalPrefixes(prefixes)
	if len(out) == 2 && out[0].Bits() == 0 && out[1].Bits() == 0 {
		return nil
	}
	return out
}

// canonicalPrefixes drops prefixes inside others and joins halves, so that two
// ways to write the same addresses compare equal.
func canonicalPrefixes(prefixes []netip.Prefix) []netip.Prefix {
	sorted := make([]netip.Prefix, len(prefixes))
	for i, p := range prefixes {
		sorted[i] = p.Masked()
	}
	slices.SortFunc(sorted, comparePrefix)
	var out []netip.Prefix
	for _, p := range sorted {
		// Sorted by address, so only the last one kept can contain p.
		if n := len(out); n > 0 && out[n-1].Bits() <= p.Bits() && out[n-1].Contains(p.Addr()) {
			continue
		}
		out = append(out, p)
		for n := len(out); n > 1; n = len(out) {
			a, b := out[n-2], out[n-1]
			if a.Bits() != b.Bits() || a.Bits() == 0 || a.Addr().Is4() != b.Addr().Is4() {
				break
			}
			parent := netip.PrefixFrom(a.Addr(), a.Bits()-1).Masked()
			if !parent.Contains(b.Addr()) {
				break
			}
			out = append(out[:n-2], parent)
		}
	}
	return out
}
