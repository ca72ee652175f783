// SPDX-License-Identifier: Apache-2.0

package packets

import (
	"cmp"
	"hash/maphash"
	"net/netip"
	"slices"

	"github.com/portcullis-firewall/portcullis/policy"
)

// concerned returns the rules of two lists without those that are in both, as they stand, and open no port that one of the
// others does: of two large policies that differ little, few are left, and the rest need not be understood.
func concerned(old, new []policy.Rule) (before, after []policy.Rule) {
	seed := maphash.MakeSeed()
	sums := func(rules []policy.Rule) (all []uint64, known map[uint64]bool) {
		all, known = make([]uint64, len(rules)), make(map[uint64]bool, len(rules))
		var h maphash.Hash
		h.SetSeed(seed)
		for i, r := range rules {
			h.Reset()
			writeRule(&h, r)
			all[i] = h.Sum64()
			known[all[i]] = true
		}
		return all, known
	}
	oldSums, inOld := sums(old)
	newSums, inNew := sums(new)
	var changed []policy.SlotRange
	note := func(rules []policy.Rule, all []uint64, known map[uint64]bool) bool {
		for i, r := range rules {
			if known[all[i]] {
				continue
			}
			slots, err := r.SlotRanges()
			if err != nil {
				return false
			}
			changed = append(changed, slots...)
		}
		return true
	}
	if !note(old, oldSums, inNew) || !note(new, newSums, inOld) {
		return old, new
	}
	changed = joinSlots(changed)
	keep := func(rules []policy.Rule) (out []policy.Rule) {
		for _, r := range rules {
			if opensOneOf(r, changed) {
				out = append(out, r)
			}
		}
		return out
	}
	return keep(old), keep(new)
}

// writeRule writes what a rule says to a hash: the same only for rules that are written with the same numbers.
func writeRule(h *maphash.Hash, r policy.Rule) {
	maphash.WriteComparable(h, len(r.Ports))
	for _, p := range r.Ports {
		maphash.WriteComparable(h, p)
	}
	maphash.WriteComparable(h, len(r.On))
	for _, name := range r.On {
		maphash.WriteComparable(h, name)
	}
	for _, list := range [][]netip.Prefix{r.From, r.Except, r.To} {
		maphash.WriteComparable(h, len(list))
		for _, p := range list {
			b := p.Addr().As16()
			_, _ = h.Write(b[:]) // never fails
			_ = h.WriteByte(byte(p.Bits()))
			_ = h.WriteByte(byte(p.Addr().BitLen()))
		}
	}
	maphash.WriteComparable(h, r.Limit)
	maphash.WriteComparable(h, r.Forward)
}

// joinSlots returns ranges in order, without overlaps.
func joinSlots(ranges []policy.SlotRange) (out []policy.SlotRange) {
	slices.SortFunc(ranges, func(a, b policy.SlotRange) int { return cmp.Compare(a.First, b.First) })
	for _, r := range ranges {
		if n := len(out); n > 0 && r.First <= out[n-1].End {
			out[n-1].End = max(out[n-1].End, r.End)
		} else {
			out = append(out, r)
		}
	}
	return out
}

// opensOneOf reports whether a rule opens a port in ranges, which are joined.
func opensOneOf(r policy.Rule, ranges []policy.SlotRange) bool {
	for _, p := range r.Ports {
		first, last := slots(p)
		i, _ := slices.BinarySearchFunc(ranges, first, func(s policy.SlotRange, first int) int { return cmp.Compare(s.End, first+1) })
		if i < len(ranges) && ranges[i].First <= last {
			return true
		}
	}
	return false
}
