// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"cmp"
	"fmt"
	"net/netip"
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
	Rule uint16 // ID of the first rule that is open to everybody, or 0
	Set  uint16 // number of the set of sources that are let in, or 0
}

// SourcePrefix lets the sources in Prefix into the ports of a set. In one set
// every prefix is there once; of several rules that name it the first has it.
type SourcePrefix struct {
	Set    uint16
	Prefix netip.Prefix
	Rule   uint16
}

// SetDef says which rules a set of sources is made of: those that own a prefix
// of it. It can be had from the [SourcePrefix] entries of a running datapath.
type SetDef struct {
	Set   uint16
	Rules []uint16
}

// Compiled is a list of rules in the form of two tables.
type Compiled struct {
	Ports   [4 * 65536]PortEntry // see [PortIndex]
	Sources []SourcePrefix       // by set, then by prefix
}

// PortIndex returns the place of a port in [Compiled.Ports], or -1 for a
// protocol without ports.
func PortIndex(proto Protocol, port uint16) int {
	i := ProtocolIndex(proto)
	if i < 0 {
		return -1
	}
	return i<<16 | int(port)
}

// Sets returns the sets in Sources, in the form that [Compile] takes back.
func (c *Compiled) Sets() []SetDef {
	var out []SetDef
	for _, s := range c.Sources {
		if n := len(out); n == 0 || out[n-1].Set != s.Set {
			out = append(out, SetDef{Set: s.Set})
		}
		last := &out[len(out)-1]
		last.Rules = append(last.Rules, s.Rule)
	}
	for i := range out {
		slices.Sort(out[i].Rules)
		out[i].Rules = slices.Compact(out[i].Rules)
	}
	return out
}

// Compile turns rules into tables. Where several apply, the first in the list
// counts.
//
// Ports restricted by the same rules share one set of sources. keep lists the
// sets in force: one made of the same rules keeps its number, and a new one
// never gets a number in keep, so that entries for it can be added beside
// those in use. The caller must not give the ID of a rule in force to another.
func Compile(rules []NumberedRule, keep []SetDef) (*Compiled, error) {
	if err := checkIDs(rules, keep); err != nil {
		return nil, err
	}
	c := &Compiled{}
	var spans []span
	byProtocol := [len(Protocols)]painter{}
	for order, nr := range rules {
		for _, p := range nr.Rule.From {
			if !p.IsValid() {
				return nil, fmt.Errorf("rule %d has a source that is no network", nr.ID)
			}
		}
		anyone := nr.Rule.Anyone()
		for _, p := range nr.Rule.Ports {
			i := ProtocolIndex(p.Protocol)
			if i < 0 || p.First == 0 || p.First > p.Last {
				return nil, fmt.Errorf("rule %d opens %s, which is no port range", nr.ID, p)
			}
			if anyone {
				byProtocol[i].paint(c.Ports[i<<16:(i+1)<<16], p, nr.ID)
			} else {
				spans = append(spans, span{i<<16 | int(p.First), i<<16 | int(p.Last) + 1, order})
			}
		}
	}
	b := &setBuilder{c: c, rules: rules, byRules: make(map[string]uint16), byOwners: make(map[string]uint16)}
	for _, k := range keep {
		b.taken[k.Set] = true
		if owners := sortedIDs(slices.Clone(k.Rules)); b.known(owners) == 0 {
			b.remember(owners, k.Set)
		}
	}
	if err := b.sweep(spans); err != nil {
		return nil, err
	}
	// Within a set they are in order already, and mostly the sets are too.
	slices.SortStableFunc(c.Sources, func(x, y SourcePrefix) int { return cmp.Compare(x.Set, y.Set) })
	return c, nil
}

func checkIDs(rules []NumberedRule, keep []SetDef) error {
	var seen, sets [65536]bool
	for _, r := range rules {
		if r.ID == 0 || seen[r.ID] {
			return fmt.Errorf("rule %s has the number %d: every rule needs one of its own, from 1", quote(r.Rule.String()), r.ID)
		}
		seen[r.ID] = true
	}
	for _, k := range keep {
		if k.Set == 0 || sets[k.Set] {
			return fmt.Errorf("set number %d to keep: every set needs one of its own, from 1", k.Set)
		}
		sets[k.Set] = true
	}
	return nil
}

// painter gives every port the first rule that is open to everybody. next[p]
// leads to the first port from p on without one, so that a thousand rules over
// all ports cost no more than one.
type painter struct{ next []uint32 }

func (pt *painter) paint(ports []PortEntry, r PortRange, id uint16) {
	if r.First == r.Last {
		if e := &ports[r.First]; e.Rule == 0 {
			e.Rule = id
		}
		return
	}
	if pt.next == nil {
		pt.next = make([]uint32, 65537)
		for i := range pt.next {
			pt.next[i] = uint32(i)
		}
	}
	for p := pt.free(uint32(r.First)); p <= uint32(r.Last); p = pt.free(p + 1) {
		// Single ports are painted without a word to next.
		if ports[p].Rule == 0 {
			ports[p].Rule = id
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
