// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
)

// Decision is what becomes of packets from the sources of a prefix.
type Decision struct {
	Rule    uint16 // ID of the rule that lets them in, or 0
	To      uint16 // if not 0, the set that says so by their destination
	Limited bool   // as often as the rule's limit allows
}

// SourcePrefix says what a set decides about the sources in a prefix, or a
// [Decision.To] about destinations. Of several prefixes of a set that hold an
// address the longest decides.
type SourcePrefix struct {
	Set    uint16
	Prefix netip.Prefix
	Decision
}

// span is a range of slots of a restricted rule, by its place in the list.
type span struct {
	SlotRange
	order int
}

type setBuilder struct {
	rules    []NumberedRule
	sources  []SourcePrefix
	next     uint16
	taken    [65536]bool            // set numbers in force
	contents map[uint16]SetContents // of the sets in sources
	known    map[SetContents]uint16
	// Most sets have one rule, and need no map.
	byRule  []uint16 // by its place
	byRules map[string]uint16
	byTo    map[string]uint16 // by the rules that count for destinations
	walker  walker
	key     []byte
}

func newSetBuilder(rules []NumberedRule, keep []KnownSet) (*setBuilder, error) {
	b := &setBuilder{
		rules:    rules,
		contents: make(map[uint16]SetContents),
		known:    make(map[SetContents]uint16),
		byRule:   make([]uint16, len(rules)),
		byRules:  make(map[string]uint16),
		byTo:     make(map[string]uint16),
		walker:   newWalker(len(rules)),
	}
	for _, k := range keep {
		if k.Number == 0 {
			return nil, fmt.Errorf("a set is kept as number 0: sets are numbered from 1")
		}
		b.taken[k.Number] = true
		// Of two that decide the same, as an interrupted command may leave them, always the same one.
		if have := b.known[k.Contents]; !k.Dropped && (have == 0 || k.Number < have) {
			b.known[k.Contents] = k.Number
		}
	}
	return b, nil
}

// SetContents is a hash of what a set decides: two sets that decide the same by
// the same rules have the same.
type SetContents [sha256.Size]byte

// KnownSet is a set in force.
type KnownSet struct {
	Number   uint16
	Contents SetContents
	Dropped  bool // no port asks for it any more, but its number is not free yet
}

func contentsOf(nodes []node) (sum SetContents) {
	hash := sha256.New()
	var b [24]byte
	for _, n := range nodes { // in the order of addresses
		clear(b[:])
		address := n.prefix.Addr().As16()
		copy(b[:], address[:])
		b[16] = byte(n.prefix.Bits())
		if n.prefix.Addr().Is4() {
			b[17] = 1
		}
		if n.decision.Limited {
			b[18] = 1
		}
		binary.NativeEndian.PutUint16(b[20:], n.decision.Rule)
		binary.NativeEndian.PutUint16(b[22:], n.decision.To)
		hash.Write(b[:])
	}
	hash.Sum(sum[:0])
	return sum
}

// sweep goes over the slots once, from one border of a range to the next, with
// the rules that apply in between.
func (b *setBuilder) sweep(table *Table, spans []span) error {
	type border struct {
		at, order int
		enter     bool
	}
	borders := make([]border, 0, 2*len(spans))
	for _, s := range spans {
		borders = append(borders, border{s.First, s.order, true}, border{s.End, s.order, false})
	}
	slices.SortFunc(borders, func(x, y border) int {
		return cmp.Or(cmp.Compare(x.at, y.at), cmp.Compare(x.order, y.order))
	})
	var active, gone []int // by order
	for i := 0; i < len(borders); {
		at := borders[i].at
		gone = gone[:0]
		entered := len(active)
		for ; i < len(borders) && borders[i].at == at; i++ {
			if borders[i].enter {
				active = append(active, borders[i].order)
			} else {
				gone = append(gone, borders[i].order)
			}
		}
		if len(active) > entered {
			slices.Sort(active)
		}
		active = subtractSorted(active, gone)
		if len(active) == 0 {
			continue
		}
		set, err := b.set(active)
		if err != nil {
			return err
		}
		for p := at; p < borders[i].at; p++ {
			table[p].Set = set
		}
	}
	return nil
}

// subtractSorted removes each element of gone once from list; both are sorted.
func subtractSorted(list, gone []int) []int {
	if len(gone) == 0 {
		return list
	}
	out := list[:0]
	for _, v := range list {
		if len(gone) > 0 && gone[0] == v {
			gone = gone[1:]
			continue
		}
		out = append(out, v)
	}
	return out
}

// set returns the number of the set of the rules at the given places, or 0 if
// they let nobody in.
func (b *setBuilder) set(active []int) (uint16, error) {
	alone := len(active) == 1
	var key string
	if alone {
		if set := b.byRule[active[0]]; set != 0 {
			return set, nil
		}
	} else {
		b.key = b.key[:0]
		for _, order := range active {
			b.key = binary.NativeEndian.AppendUint16(b.key, uint16(order))
		}
		if set, ok := b.byRules[string(b.key)]; ok {
			return set, nil
		}
		key = string(b.key)
	}
	nodes, err := b.walker.walk(b.claims(active), b.decide)
	if err != nil {
		return 0, err
	}
	set, err := b.number(nodes)
	if err != nil {
		return 0, err
	}
	if alone {
		b.byRule[active[0]] = set
	} else {
		b.byRules[key] = set
	}
	return set, nil
}

// number returns the number of the set with these prefixes, which becomes part
// of the sources.
func (b *setBuilder) number(nodes []node) (uint16, error) {
	if len(nodes) == 0 {
		return 0, nil
	}
	sum := contentsOf(nodes)
	set := b.known[sum]
	if set == 0 {
		for b.next < 65535 && set == 0 {
			if b.next++; !b.taken[b.next] {
				set = b.next
			}
		}
		if set == 0 {
			return 0, fmt.Errorf("%w: more than 65535, let fewer rules overlap", ErrTooManySets)
		}
		b.known[sum] = set
	}
	if _, ok := b.contents[set]; ok {
		return set, nil
	}
	b.contents[set] = sum
	if len(b.sources)+len(nodes) > maxSources {
		return 0, fmt.Errorf("%w: their sources come to more than %d entries, let fewer rules overlap", ErrTooManySets, maxSources)
	}
	if b.sources == nil {
		most := 0
		for _, r := range b.rules {
			most += max(len(r.Rule.From), len(everywhere)) + len(r.Rule.Except)
		}
		b.sources = make([]SourcePrefix, 0, min(most, maxSources))
	}
	for _, n := range nodes {
		b.sources = append(b.sources, SourcePrefix{set, n.prefix, n.decision})
	}
	return set, nil
}

var everywhere = []netip.Prefix{netip.PrefixFrom(netip.IPv4Unspecified(), 0), netip.PrefixFrom(netip.IPv6Unspecified(), 0)}

// claims returns what the rules at the given places say about sources.
func (b *setBuilder) claims(active []int) []claim {
	count := 0
	for _, order := range active {
		r := &b.rules[order].Rule
		count += max(len(r.From), len(everywhere)) + len(r.Except)
	}
	claims := make([]claim, 0, count)
	for _, order := range active {
		r := &b.rules[order].Rule
		claims = appendClaims(claims, r.From, order, false)
		if len(r.From) == 0 {
			claims = appendClaims(claims, everywhere, order, false)
		}
		claims = appendClaims(claims, r.Except, order, true)
	}
	return claims
}

func appendClaims(claims []claim, prefixes []netip.Prefix, order int, except bool) []claim {
	for _, p := range prefixes {
		claims = append(claims, claim{p.Masked(), order, except})
	}
	return claims
}

// decide returns what becomes of packets from sources of one family for which
// some rules hold.
func (b *setBuilder) decide(holders []holder, v4 bool) (Decision, error) {
	best := -1
	var limited []int
	var conditional []int // those for which the destination counts, and those with a limit, by place
	byAddress := false
	for i, h := range holders {
		r := &b.rules[h.order].Rule
		switch {
		case len(r.To) > 0:
			if slices.ContainsFunc(r.To, func(p netip.Prefix) bool { return p.Addr().Is4() == v4 }) {
				conditional = append(conditional, h.order)
				byAddress = true
			}
		case r.Limit.Count > 0:
			limited = append(limited, h.order)
			conditional = append(conditional, h.order)
		case best < 0 || h.before(holders[best]):
			best = i
		}
	}
	switch {
	case best >= 0:
		return Decision{Rule: b.rules[holders[best].order].ID}, nil
	case byAddress:
		to, err := b.toSet(conditional)
		return Decision{To: to}, err
	case len(limited) > 0:
		return Decision{Rule: b.mostGenerous(limited), Limited: true}, nil
	}
	return Decision{}, nil
}

// toSet returns the number of the set that decides by destination among rules
// that hold for a source.
func (b *setBuilder) toSet(orders []int) (uint16, error) {
	slices.Sort(orders)
	key := make([]byte, 0, 2*len(orders))
	var claims []claim
	for _, order := range orders {
		key = binary.NativeEndian.AppendUint16(key, uint16(order))
		to := b.rules[order].Rule.To
		if len(to) == 0 {
			to = everywhere
		}
		claims = appendClaims(claims, to, order, false)
	}
	if set, ok := b.byTo[string(key)]; ok {
		return set, nil
	}
	// That of the sources is at work.
	inner := newWalker(0)
	nodes, err := inner.walk(claims, b.decideTo)
	if err != nil {
		return 0, err
	}
	set, err := b.number(nodes)
	if err == nil {
		b.byTo[string(key)] = set
	}
	return set, err
}

func (b *setBuilder) decideTo(holders []holder, _ bool) (Decision, error) {
	best := -1
	var limited []int
	for i, h := range holders {
		if b.rules[h.order].Rule.Limit.Count > 0 {
			limited = append(limited, h.order)
		} else if best < 0 || h.before(holders[best]) {
			best = i
		}
	}
	switch {
	case best >= 0:
		return Decision{Rule: b.rules[holders[best].order].ID}, nil
	case len(limited) > 0:
		return Decision{Rule: b.mostGenerous(limited), Limited: true}, nil
	}
	return Decision{}, nil
}

// mostGenerous returns the ID of the rule with the most generous limit.
func (b *setBuilder) mostGenerous(orders []int) uint16 {
	best := b.rules[orders[0]]
	for _, order := range orders[1:] {
		r := b.rules[order]
		if c := r.Rule.Limit.Compare(best.Rule.Limit); c > 0 || c == 0 && r.ID < best.ID {
			best = r
		}
	}
	return best.ID
}
