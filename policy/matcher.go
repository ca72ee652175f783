// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"cmp"
	"net/netip"
	"slices"
)

// Matcher finds out which packets rules let in, at the same cost for one rule and
// for many. It takes every rule for one that counts: who asks about one
// interface gives it the rules of that alone, see [Policy.For].
type Matcher struct {
	table *Table
	sets  *setIndex
}

// NewMatcher returns a matcher for rules. The error is [ErrTooManySets], or
// says which rule is none.
func NewMatcher(rules []Rule) (*Matcher, error) {
	numbered := make([]NumberedRule, len(rules))
	for i, r := range rules {
		r.On = nil
		numbered[i] = NumberedRule{ID: uint16(i + 1), Rule: r}
	}
	c, err := Compile(numbered, nil, nil)
	if err != nil {
		return nil, err
	}
	return &Matcher{table: c.Tables[""], sets: c.index()}, nil
}

// Allows reports whether one of the rules lets src use the port, at some
// address of this host. A limit does not count.
func (m *Matcher) Allows(proto Protocol, port uint16, src netip.Addr) bool {
	entry := m.table[PortIndex(proto, port)]
	d := m.sets.find(entry.Set, src.Unmap())
	return entry.Rule != 0 || d.Rule != 0 || d.To != 0
}

// AllowsAt reports whether one of the rules lets src use the port at an address
// of this host. A limit does not count.
func (m *Matcher) AllowsAt(proto Protocol, port uint16, src, dst netip.Addr) bool {
	entry := m.table[PortIndex(proto, port)]
	return entry.Rule != 0 || m.sets.decide(entry.Set, src.Unmap(), dst.Unmap()).Rule != 0
}

// setIndex finds the longest prefix of a set that holds an address.
type setIndex struct {
	lengths map[setFamily][]int // of the prefixes of a set, each once, longest first
	byNode  map[setPrefix]Decision
}

type setFamily struct {
	set uint16
	v4  bool
}

type setPrefix struct {
	set    uint16
	prefix netip.Prefix
}

func (c *Compiled) index() *setIndex {
	x := &setIndex{make(map[setFamily][]int), make(map[setPrefix]Decision, len(c.Sources))}
	for _, s := range c.Sources {
		x.byNode[setPrefix{s.Set, s.Prefix}] = s.Decision
		family := setFamily{s.Set, s.Prefix.Addr().Is4()}
		at, found := slices.BinarySearchFunc(x.lengths[family], s.Prefix.Bits(), func(have, want int) int { return cmp.Compare(want, have) })
		if !found {
			x.lengths[family] = slices.Insert(x.lengths[family], at, s.Prefix.Bits())
		}
	}
	return x
}

func (x *setIndex) find(set uint16, addr netip.Addr) Decision {
	for _, bits := range x.lengths[setFamily{set, addr.Is4()}] {
		if p, err := addr.Prefix(bits); err == nil {
			if d, ok := x.byNode[setPrefix{set, p}]; ok {
				return d
			}
		}
	}
	return Decision{}
}

// decide is what the datapath does.
func (x *setIndex) decide(set uint16, src, dst netip.Addr) Decision {
	d := x.find(set, src)
	if d.To != 0 {
		d = x.find(d.To, dst)
	}
	return d
}
