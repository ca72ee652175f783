// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"crypto/sha256"
	"encoding/binary"
	"net/netip"
	"slices"

	"github.com/portcullis-firewall/portcullis/policy/addrset"
)

// RuleKey is what a rule opens to whom, in a form that can be compared and be
// the key of a map. Two rules have the same key if and only if they are equal.
type RuleKey string

// Key returns the key of the rule. It takes as long as the rule has sources:
// who compares many rules computes each key once.
func (r Rule) Key() RuleKey {
	ports := r.Ports
	if len(ports) > 1 && !isAll(ports) {
		ports = canonicalPorts(ports)
	}
	plain := len(r.From) > 0 && len(r.Except) == 0 && len(r.To) == 0 && areApart(r.From)
	var src, dst []addrset.Range // nil for every address
	nobody := false
	if !plain && !r.everywhere() {
		src, dst = r.reach()
		nobody = len(src) == 0 || len(dst) == 0
		every := addrset.Everything // of the families that there are
		for _, v4 := range []bool{true, false} {
			if len(addrset.OfFamily(src, v4)) == 0 {
				every = addrset.OfFamily(every, !v4)
			}
		}
		if slices.Equal(dst, every) {
			dst = nil
		}
		if slices.Equal(src, addrset.Everything) {
			src = nil
		}
	}
	const portSize, mostRangeSize, digestSize = 5, 34, 1 + sha256.Size
	room := func(ranges int) int { return max(digestSize, mostRangeSize*min(ranges, longRanges)) }
	sources := len(src)
	if plain {
		sources = len(r.From)
	}
	key := make([]byte, 0, 3+portSize*len(ports)+room(sources)+room(len(dst)))
	key = binary.BigEndian.AppendUint16(key, uint16(len(ports)))
	for _, p := range ports {
		key = append(key, byte(p.Protocol))
		key = binary.BigEndian.AppendUint16(key, p.First)
		key = binary.BigEndian.AppendUint16(key, p.Last)
	}
	const forward, noRange = 0xfe, 0 // no range begins with them
	if r.Forward {
		key = append(key, forward)
	}
	if nobody {
		return RuleKey(append(key, noRange))
	}
	if plain {
		key = appendApart(key, r.From)
	} else {
		key = appendRanges(key, src)
	}
	if len(dst) == 0 && len(r.On) == 0 && r.Limit.Count == 0 {
		return RuleKey(key)
	}
	const clause = 0xff // no range begins with it
	key = appendRanges(append(key, clause), dst)
	count, seconds := r.Limit.perSecond()
	key = binary.BigEndian.AppendUint64(append(key, clause), count)
	key = binary.BigEndian.AppendUint64(key, seconds)
	key = binary.BigEndian.AppendUint32(key, r.Limit.Burst)
	return RuleKey(append(key, r.onKey()...))
}

// longRanges is from how many ranges on a key has a digest of them: those of a list that many rules name would take a
// megabyte a rule.
const longRanges = 256

// areApart reports whether the prefixes of each family stand in the order of their addresses, and neither overlap nor touch
// nor are everything: then they are ranges as they stand. So are those of nearly every rule, and of a list in order.
func areApart(prefixes []netip.Prefix) bool {
	var next4 uint64        // behind the last one of IPv4
	var next6 [2]uint64     // of IPv6
	var any4, any6 bool     // were there
	const most = ^uint64(0) // nothing is behind it
	for _, p := range prefixes {
		bits := p.Bits()
		if bits <= 0 {
			return false
		}
		if p.Addr().Is4() {
			b := p.Addr().As4()
			size := uint64(1) << (32 - bits)
			first := uint64(binary.BigEndian.Uint32(b[:])) &^ (size - 1)
			if any4 && first <= next4 {
				return false
			}
			next4, any4 = first+size, true
			continue
		}
		first, last := ends6(p)
		if any6 && (first[0] < next6[0] || first[0] == next6[0] && first[1] <= next6[1]) || last == [2]uint64{most, most} {
			return false
		}
		next6, any6 = last, true
		if next6[1]++; next6[1] == 0 {
			next6[0]++
		}
	}
	return true
}

// ends6 returns the first and the last address of a prefix of IPv6.
func ends6(p netip.Prefix) (first, last [2]uint64) {
	b := p.Addr().As16()
	first = [2]uint64{binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])}
	host := [2]uint64{0, ^uint64(0)}
	if bits := p.Bits(); bits < 64 {
		host[0] = 1<<(64-bits) - 1
	} else {
		host[1] = 1<<(128-bits) - 1
	}
	for i := range first {
		first[i] &^= host[i]
		last[i] = first[i] | host[i]
	}
	return first, last
}

// appendApart is appendRanges for prefixes that are ranges as they stand.
func appendApart(key []byte, prefixes []netip.Prefix) []byte {
	whole := key
	if len(prefixes) >= longRanges {
		key = make([]byte, 0, len(prefixes)*34)
	}
	for _, p := range prefixes {
		if !p.Addr().Is4() {
			continue
		}
		b := p.Addr().As4()
		host := uint32(1<<(32-p.Bits()) - 1)
		first := binary.BigEndian.Uint32(b[:]) &^ host
		key = binary.BigEndian.AppendUint32(append(key, 4), first)
		key = binary.BigEndian.AppendUint32(append(key, 4), first|host)
	}
	for _, p := range prefixes {
		if p.Addr().Is4() {
			continue
		}
		first, last := ends6(p)
		for _, end := range [][2]uint64{first, last} {
			key = binary.BigEndian.AppendUint64(append(key, 6), end[0])
			key = binary.BigEndian.AppendUint64(key, end[1])
		}
	}
	if len(prefixes) < longRanges {
		return key
	}
	return appendDigest(whole, key)
}

func appendDigest(key, ranges []byte) []byte {
	const digest = 0xfe // no range begins with it
	sum := sha256.Sum256(ranges)
	return append(append(key, digest), sum[:]...)
}

func appendRanges(key []byte, ranges []addrset.Range) []byte {
	if len(ranges) < longRanges {
		return writeRanges(key, ranges)
	}
	return appendDigest(key, writeRanges(nil, ranges))
}

func writeRanges(key []byte, ranges []addrset.Range) []byte {
	for _, r := range ranges {
		for _, addr := range []netip.Addr{r.First, r.Last} {
			if addr.Is4() {
				b := addr.As4()
				key = append(append(key, 4), b[:]...)
			} else {
				b := addr.As16()
				key = append(append(key, 6), b[:]...)
			}
		}
	}
	return key
}

// IndexRules returns the place of each rule in a list, or of the first of those
// that are equal.
func IndexRules(rules []Rule) map[RuleKey]int {
	index := make(map[RuleKey]int, len(rules))
	for i, r := range rules {
		key := r.Key()
		if _, ok := index[key]; !ok {
			index[key] = i
		}
	}
	return index
}

// WithRules returns a copy with rules added at the end, and those that were.
// What is there already is left out.
func (p *Policy) WithRules(rules []Rule) (with *Policy, added []Rule) {
	index := IndexRules(p.Open)
	for _, r := range rules {
		key := r.Key()
		if _, ok := index[key]; !ok {
			index[key] = len(p.Open) + len(added)
			added = append(added, r)
		}
	}
	if added == nil {
		return p, nil
	}
	c := p.Clone()
	c.Open = append(c.Open, added...)
	return c, added
}

// WithoutRules returns a copy without rules, what it took out as it was
// written, and those of the rules of which nothing is open. A rule that names
// lists is also the one that is written alike, whatever they held then. If some of what one
// of them opens is open through other rules only, the error is a
// [*CoveredError].
func (p *Policy) WithoutRules(rules []Rule) (without *Policy, removed, notOpen []Rule, err error) {
	open := slices.Clone(p.Open)
	index := IndexRules(open)
	gone := make([]bool, len(open))
	for _, r := range rules {
		i, ok := index[r.Key()]
		if !ok && r.lists != (listTexts{}) {
			// The lists that it names may hold something else by now.
			i = slices.IndexFunc(open, func(have Rule) bool { return have.lists == r.lists && have.String() == r.String() })
			ok = i >= 0
		}
		if ok && !gone[i] {
			gone[i] = true
			removed = append(removed, open[i])
			continue
		}
		var by []Rule
		split := false
		for i, have := range open {
			if gone[i] || !have.Overlaps(r) {
				continue
			}
			if open[i], split = have.split(r); split {
				index[open[i].Key()] = i
				break
			}
			by = append(by, have)
		}
		switch {
		case split:
			removed = append(removed, r)
		case by != nil:
			return nil, nil, nil, &CoveredError{Rule: r, By: by, hint: closeHint(r, by, p.Interfaces)}
		default:
			notOpen = append(notOpen, r)
		}
	}
	without = p.Clone()
	without.Open = nil
	for i, r := range open {
		if !gone[i] {
			without.Open = append(without.Open, r)
		}
	}
	return without, removed, notOpen, nil
}

// split takes the ports of o out of r, if no text stands for r: where it stands
// for a whole, as a service does, whoever wrote it meant all of that.
func (r Rule) split(o Rule) (rest Rule, ok bool) {
	if r.isWritable() {
		return r, false
	}
	left := subtractPorts(r.Ports, o.Ports)
	whole := o
	whole.Ports = append(slices.Clone(o.Ports), left...)
	if len(left) == 0 || !whole.Equal(r) {
		return r, false
	}
	r.Ports = left
	return r, true
}
