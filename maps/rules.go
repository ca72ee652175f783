// SPDX-License-Identifier: Apache-2.0

package maps

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"github.com/portcullis-firewall/portcullis/bpf"
	"github.com/portcullis-firewall/portcullis/policy"
)

// ErrNoRoom is returned when a rule or source has no room in the running maps; applying the policy anew makes room.
var ErrNoRoom = errors.New("no room left in the running filter")

// Rule is a rule in force, with the number under which it counts.
type Rule struct {
	policy.NumberedRule
	Runtime bool // opened for the time being: not in the file
}

// Rules returns the rules in force, in the order of their numbers.
func (s *Set) Rules() ([]Rule, error) {
	memory, err := s.memory(bpf.FirewallMapRules)
	if err != nil {
		return nil, err
	}
	var out []Rule
	for id, wire := range view[bpf.FirewallRule](memory) {
		if wire.Text[0] == 0 {
			continue
		}
		text, _, _ := bytes.Cut(wire.Text[:], []byte{0})
		r, err := policy.ParseRule(string(text))
		if err != nil {
			return nil, fmt.Errorf("rule %d in force: %w", id, err)
		}
		out = append(out, Rule{policy.NumberedRule{ID: uint16(id), Rule: r}, wire.Runtime != 0})
	}
	return out, nil
}

// Number gives each rule of open the number of its equal in old, so that it goes on counting, or a free one.
func Number(open []policy.Rule, old []Rule, capacity uint32) ([]policy.NumberedRule, error) {
	taken := make(map[uint16]bool)
	out := make([]policy.NumberedRule, len(open))
	for i, r := range open {
		out[i].Rule = r
		for _, o := range old {
			if o.Rule.Equal(r) && !taken[o.ID] {
				out[i].ID = o.ID
				taken[o.ID] = true
				break
			}
		}
	}
	// Numbers in use by the old policy stay theirs: the programs that still run count under them.
	for _, o := range old {
		taken[o.ID] = true
	}
	next := uint32(1)
	for i := range out {
		if out[i].ID != 0 {
			continue
		}
		for taken[uint16(next)] && next < capacity {
			next++
		}
		if next >= capacity {
			return nil, fmt.Errorf("%w: %d rules are too many for %d places", ErrNoRoom, len(open), capacity-1)
		}
		out[i].ID = uint16(next)
		taken[uint16(next)] = true
	}
	return out, nil
}

// Capacity returns the number that rule numbers stay below.
func (s *Set) Capacity() uint32 { return s.byName[Policy][bpf.FirewallMapRules].MaxEntries() }

// PutRules makes rules the rules in force instead of old. The counters of those that are not among counted begin at 0.
// Each port changes in one step, from what it was to what it will be: new sources are there before a port asks for
// them, and old ones go when none does any more.
func (s *Set) PutRules(rules, old, counted []Rule) error {
	sources, err := s.sources()
	if err != nil {
		return err
	}
	numbered := make([]policy.NumberedRule, len(rules))
	for i, r := range rules {
		numbered[i] = r.NumberedRule
	}
	compiled, err := policy.Compile(numbered, (&policy.Compiled{Sources: sources}).Sets())
	if err != nil {
		return err
	}
	for _, r := range rules {
		if !slices.ContainsFunc(counted, func(o Rule) bool { return o.ID == r.ID }) {
			if err := s.ResetCounter(RuleReason(r.ID)); err != nil {
				return err
			}
		}
		if err := s.PutRule(r); err != nil {
			return err
		}
	}
	if err := s.addSources(compiled.Sources); err != nil {
		return err
	}
	ports, err := s.ports()
	if err != nil {
		return err
	}
	ports.put(compiled)
	if err := s.dropSources(sources, compiled.Sources); err != nil {
		return err
	}
	for _, o := range old {
		if !slices.ContainsFunc(rules, func(r Rule) bool { return o.ID == r.ID }) {
			if err := s.byName[Policy][bpf.FirewallMapRules].Put(uint32(o.ID), bpf.FirewallRule{}); err != nil {
				return fmt.Errorf("remove rule %s: %w", o.Rule, err)
			}
		}
	}
	return nil
}

// PutRule records a rule as it was written; its ports stay as they are.
func (s *Set) PutRule(r Rule) error {
	wire, err := wireRule(r)
	if err != nil {
		return err
	}
	if err := s.byName[Policy][bpf.FirewallMapRules].Put(uint32(r.ID), wire); err != nil {
		return fmt.Errorf("write rule %q: %w", r.Rule, err)
	}
	return nil
}

func wireRule(r Rule) (wire bpf.FirewallRule, err error) {
	text := r.Rule.String()
	if len(text) >= len(wire.Text) {
		return wire, fmt.Errorf("rule %q is longer than %d bytes: write its sources as several rules", text, len(wire.Text)-1)
	}
	copy(wire.Text[:], text)
	if r.Runtime {
		wire.Runtime = 1
	}
	return wire, nil
}
