// SPDX-License-Identifier: Apache-2.0

package policy

import "net/netip"

// Matcher finds out which packets rules let in, at the same cost for one rule and
// for many.
type Matcher struct {
	ports   *[4 * 65536]PortEntry
	lengths map[uint16][]int // of the prefixes of a set, each once
	sources map[setPrefix]bool
}

type setPrefix struct {
	set    uint16
	prefix netip.Prefix
}

// NewMatcher returns a matcher for rules. The error is [ErrTooManySets], or
// says which rule is none.
func NewMatcher(rules []Rule) (*Matcher, error) {
	numbered := make([]NumberedRule, len(rules))
	for i, r := range rules {
		numbered[i] = NumberedRule{ID: uint16(i + 1), Rule: r}
	}
	c, err := Compile(numbered, nil)
	if err != nil {
		return nil, err
	}
	m := &Matcher{ports: &c.Ports, lengths: make(map[uint16][]int), sources: make(map[setPrefix]bool, len(c.Sources))}
	type length struct {
		set  uint16
		bits int
	}
	seen := make(map[length]bool)
	for _, s := range c.Sources {
		m.sources[setPrefix{s.Set, s.Prefix}] = true
		if l := (length{s.Set, s.Prefix.Bits()}); !seen[l] {
			seen[l] = true
			m.lengths[s.Set] = append(m.lengths[s.Set], l.bits)
		}
	}
	return m, nil
}

// Allows reports whether one of the rules lets src use the port.
func (m *Matcher) Allows(proto Protocol, port uint16, src netip.Addr) bool {
	i := PortIndex(proto, port)
	if i < 0 {
		return false
	}
	entry := m.ports[i]
	if entry.Rule != 0 {
		return true
	}
	src = src.Unmap()
	for _, bits := range m.lengths[entry.Set] {
		if p, err := src.Prefix(bits); err == nil && m.sources[setPrefix{entry.Set, p}] {
			return true
		}
	}
	return false
}
