// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"cmp"
	"fmt"
	"slices"
)

// maxSources bounds what overlapping restricted rules can multiply to. A set
// holds the sources of every rule on its ports, so the number can grow with
// the square of the rules.
const maxSources = 1 << 20

// NumberedRule is a rule with the number that the datapath counts it under.
type NumberedRule struct {
	ID   uint16 // from 1, given by the caller
	Rule Rule
}

// PortEntry is what one destination port of one protocol means. Both parts may
// be set: a port open to everybody keeps its set, so that to close it takes
// the change of one field.
type PortEntry struct {
	Rule uint16 // ID of the first rule that lets everybody in, or 0
	Set  uint16 // number of the set of sources that are let in, or 0
}

// PortSlots is how many entries a [Table] has: one for each port of the
// protocols that have them, and behind those one for each protocol.
const PortSlots = protocolSlots + 256

const protocolSlots = len(Protocols) << 16 // the slot of protocol 0

// Table is what the ports mean on some interfaces, see [PortIndex].
type Table [PortSlots]PortEntry

// PortIndex returns the place of a port in a [Table], or that of a protocol
// without ports, whatever the port.
func PortIndex(proto Protocol, port uint16) int {
	i := ProtocolIndex(proto)
	if i < 0 {
		return protocolSlots + int(proto)
	}
	return i<<16 | int(port)
}

// SlotRange is a range of places in a [Table].
type SlotRange struct{ First, End int } // without End

// SlotRanges returns the places of what the rule opens, in ascending order.
// Places that follow one another are in one range.
func (r Rule) SlotRanges() ([]SlotRange, error) {
	ranges := make([]SlotRange, 0, 1)
	for _, p := range r.Ports {
		if p.First > p.Last || ProtocolIndex(p.Protocol) < 0 && p.Last != 0 {
			return nil, fmt.Errorf("%s is no range of ports", p)
		}
		ranges = append(ranges, SlotRange{PortIndex(p.Protocol, p.First), PortIndex(p.Protocol, p.Last) + 1})
	}
	if len(ranges) < 2 {
		return ranges, nil
	}
	slices.SortFunc(ranges, func(a, b SlotRange) int { return cmp.Compare(a.First, b.First) })
	joined := ranges[:1]
	for _, s := range ranges[1:] {
		if last := &joined[len(joined)-1]; s.First <= last.End {
			last.End = max(last.End, s.End)
		} else {
			joined = append(joined, s)
		}
	}
	return joined, nil
}

// Compiled is a list of rules in the form of tables.
type Compiled struct {
	Tables map[Group]*Table
	// Forward has, by group of the rules about what is routed, the set that
	// says what they let through, or 0 where that is nothing. It goes by places
	// of a table, each written as the IPv4 address of that number.
	Forward map[Group]uint16
	Sources []SourcePrefix // by set, then by prefix
	// Contents has every set in Sources.
	Contents map[uint16]SetContents
}

// Compile turns rules into tables, one for each group of interfaces, that of
// the empty group always among them. Those about what is routed become sets,
// by the groups of [ForwardGroupOf], again with that of the empty one. There is no order among rules: a packet
// passes if any of them lets it in. The first one in the list counts it, or
// that with the narrowest source; a rule with a limit decides only where no
// rule without one does, and of several the most generous.
//
// Ports restricted by the same rules share one set of sources, whatever the
// interface. keep lists the sets in force: one that decides the same keeps its
// number, and a new one never gets a number in keep, so that it can be made
// beside those in use. The caller must not give the ID of a rule
// in force to another.
func Compile(rules []NumberedRule, groups []Group, keep []KnownSet, forward ...Group) (*Compiled, error) {
	if err := checkRules(rules); err != nil {
		return nil, err
	}
	b, err := newSetBuilder(rules, keep)
	if err != nil {
		return nil, err
	}
	slots := make([][]SlotRange, len(rules))
	keys := make([]string, len(rules)) // of the interfaces that a rule is for
	for i, nr := range rules {
		if slots[i], err = nr.Rule.SlotRanges(); err != nil {
			return nil, fmt.Errorf("rule %d: %w", nr.ID, err)
		}
		if len(nr.Rule.On) > 0 {
			keys[i] = nr.Rule.onKey()
		}
	}
	c := &Compiled{Tables: map[Group]*Table{"": {}}}
	for _, g := range groups {
		c.Tables[g] = &Table{}
	}
	for _, g := range c.Groups() {
		if err := b.fill(c.Tables[g], g, slots, keys, false); err != nil {
			return nil, err
		}
	}
	if err := b.compileForward(c, forward, slots, keys); err != nil {
		return nil, err
	}
	c.Sources, c.Contents = b.sources, b.contents
	// Within a set they are in order already, and mostly the sets are too.
	slices.SortStableFunc(c.Sources, func(x, y SourcePrefix) int { return cmp.Compare(x.Set, y.Set) })
	return c, nil
}

// SurelyCompiles reports whether rules are within the bounds of [Compile], where that is seen without compiling them: no
// port has two that are restricted, as in most policies, so each set is one rule's. Else it is not known.
func SurelyCompiles(rules []Rule) bool {
	var spans []SlotRange
	sources := 0
	for _, r := range rules {
		if r.Forward || len(r.On)+len(r.To) > 0 {
			return false
		}
		if r.Unconditional() {
			continue
		}
		slots, err := r.SlotRanges()
		if err != nil {
			return false
		}
		spans = append(spans, slots...)
		sources += max(len(r.From), len(everywhere)) + len(r.Except)
	}
	if len(rules) >= 65535 || sources > maxSources {
		return false
	}
	slices.SortFunc(spans, func(a, b SlotRange) int { return cmp.Compare(a.First, b.First) })
	for i := 1; i < len(spans); i++ {
		if spans[i].First < spans[i-1].End {
			return false
		}
	}
	return true
}

// fill fills a table with the rules that count for a group, those for this host
// or those about what is routed. Each has its slots, and the key of its
// interfaces.
func (b *setBuilder) fill(table *Table, g Group, slots [][]SlotRange, keys []string, forward bool) error {
	clauses := g.clauses()
	var spans []span
	paint := painter{table: table}
	for order, nr := range b.rules {
		if nr.Rule.Forward != forward || len(nr.Rule.On) > 0 && !clauses[keys[order]] {
			continue
		}
		unconditional := nr.Rule.Unconditional()
		for _, s := range slots[order] {
			if unconditional {
				paint.paint(s, nr.ID)
			} else {
				spans = append(spans, span{s, order})
			}
		}
	}
	return b.sweep(table, spans)
}

// Groups returns the groups that there are tables for, in order.
func (c *Compiled) Groups() []Group {
	groups := make([]Group, 0, len(c.Tables))
	for g := range c.Tables {
		groups = append(groups, g)
	}
	slices.Sort(groups)
	return groups
}

// Known returns the sets, in the form that [Compile] takes back.
func (c *Compiled) Known() []KnownSet {
	known := make([]KnownSet, 0, len(c.Contents))
	for set, contents := range c.Contents {
		known = append(known, KnownSet{Number: set, Contents: contents})
	}
	return known
}

func checkRules(rules []NumberedRule) error {
	var seen [65536]bool
	for _, r := range rules {
		if r.ID == 0 || seen[r.ID] {
			return fmt.Errorf("rule %s has the number %d: every rule needs one of its own, from 1", quote(r.Rule.String()), r.ID)
		}
		seen[r.ID] = true
		for _, p := range r.Rule.From {
			if !p.IsValid() {
				return fmt.Errorf("rule %d has a source that is no network", r.ID)
			}
		}
		for _, p := range r.Rule.Except {
			if !p.IsValid() {
				return fmt.Errorf("rule %d excepts a source that is no network", r.ID)
			}
		}
		for _, p := range r.Rule.To {
			if !p.IsValid() {
				return fmt.Errorf("rule %d is for an address that is none", r.ID)
			}
		}
	}
	return nil
}

// painter gives every port the first rule that is open to everybody. next[p]
// leads to the first port from p on without one, so that a thousand rules over
// all ports cost no more than one.
type painter struct {
	table *Table
	next  []uint32
}

func (pt *painter) paint(r SlotRange, id uint16) {
	if r.End == r.First+1 {
		if e := &pt.table[r.First]; e.Rule == 0 {
			e.Rule = id
		}
		return
	}
	if pt.next == nil {
		pt.next = make([]uint32, PortSlots+1)
		for i := range pt.next {
			pt.next[i] = uint32(i)
		}
	}
	for p := pt.free(uint32(r.First)); int(p) < r.End; p = pt.free(p + 1) {
		// Single ports are painted without a word to next.
		if pt.table[p].Rule == 0 {
			pt.table[p].Rule = id
		}
		pt.next[p] = p + 1
	}
}

func (pt *painter) free(p uint32) uint32 {
	for pt.next[p] != p {
		pt.next[p] = pt.next[pt.next[p]]
		p = pt.next[p]
	}
	return p
}
