// SPDX-License-Identifier: Apache-2.0

package maps

import (
	"errors"
	"fmt"
	"hash/maphash"
	"slices"
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/portcullis-firewall/portcullis/bpf"
	"github.com/portcullis-firewall/portcullis/policy"
)

// Rule is a rule in force, with the number under which it counts.
type Rule struct {
	policy.NumberedRule
	Runtime bool // opened for the time being: not in the file
}

// Rules returns the rules in force, in the order of their numbers.
func (r *Ruleset) Rules() ([]Rule, error) {
	return r.rulesThat(func([]byte) bool { return true })
}

// RulesOnInterfaces returns those of the rules in force that name interfaces.
func (r *Ruleset) RulesOnInterfaces() ([]Rule, error) { return r.rulesThat(namesInterfaces) }

// RuntimeRules returns those of the rules in force that are not in the file.
func (r *Ruleset) RuntimeRules() ([]Rule, error) { return r.rulesThat(isRuntimeRecord) }

// rulesThat returns the rules in force whose records are wanted.
func (r *Ruleset) rulesThat(wanted func(record []byte) bool) ([]Rule, error) {
	places, memory, err := r.records()
	if err != nil {
		return nil, err
	}
	count := 0
	for i := range places {
		if b, ok := bytesAt(memory, loadPlace(&places[i])); ok && wanted(b) {
			count++
		}
	}
	out := slices.Grow([]Rule(nil), count)
	for id := range places {
		// Whoever changes the rule meanwhile may write another record where this one was.
		for p := loadPlace(&places[id]); p.length > 0; {
			shared, ok := bytesAt(memory, p)
			var b []byte
			if ok && wanted(shared) {
				b = slices.Clone(shared)
			}
			if now := loadPlace(&places[id]); now != p {
				p = now
				continue
			}
			if !ok {
				return nil, fmt.Errorf("rule %d in force: %w", id, errRecord)
			}
			if b == nil {
				break
			}
			rule, err := decodeRule(uint16(id), b)
			if err != nil {
				return nil, fmt.Errorf("rule %d in force: %w", id, err)
			}
			out = append(out, rule)
			break
		}
	}
	return out, nil
}

// RulesID returns a number that is the same as long as the rules in force are, in this process.
func (r *Ruleset) RulesID() (uint64, error) {
	places, memory, err := r.records()
	if err != nil {
		return 0, err
	}
	var h maphash.Hash
	h.SetSeed(rulesSeed())
	end := uint32(0)
	for id := range places {
		p := loadPlace(&places[id])
		if p.length == 0 {
			continue
		}
		maphash.WriteComparable(&h, id)
		maphash.WriteComparable(&h, p)
		end = max(end, p.offset+p.length)
	}
	h.Write(memory[:min(int(end), len(memory))])
	return h.Sum64(), nil
}

var rulesSeed = sync.OnceValue(maphash.MakeSeed)

// hasRules reports whether a rule is in force.
func (r *Ruleset) hasRules() (bool, error) {
	places, _, err := r.records()
	for i := range places {
		if loadPlace(&places[i]).length > 0 {
			return true, err
		}
	}
	return false, err
}

// PutRules replaces the rules in force, old, by rules, in the tables of all groups. The counters of rules that are not among counted begin at 0.
// Each port changes in one step, from what it was to what it will be: new sets of sources are there before a port asks for
// them, and old ones go when none does any more. If something has no room, the error is ErrNoRoom and nothing has
// changed; so it is if the programs have been loaded without what a rule needs, see [Features].
func (s *Set) PutRules(rules, old, counted []Rule) error {
	if err := s.checkFeatures(rules); err != nil {
		return err
	}
	plan, err := s.planRecords(rules)
	if err != nil {
		return err
	}
	compiled, known, sets, err := s.compileBeside(rules, s.interfaces)
	if errors.Is(err, ErrNoRoom) {
		// Perhaps what was dropped is in the way.
		if err := s.forgetDropped(); err != nil {
			return err
		}
		compiled, known, sets, err = s.compileBeside(rules, s.interfaces)
	}
	if err != nil {
		return err
	}
	steps, err := s.planRouted(rules, old, compiled.Forward)
	if err != nil {
		return err
	}
	tables := make(map[policy.Group]ports)
	for g := range compiled.Tables {
		if tables[g], err = s.ports(g); err != nil {
			return err
		}
	}
	if err := s.writeSets(sets); err != nil {
		return err // no port asks for those that are written
	}
	if err := s.putLimits(rules); err != nil {
		return err
	}
	former := byID(counted)
	for _, r := range rules {
		if o, ok := former[r.ID]; !ok || !o.Rule.Equal(r.Rule) {
			if err := s.BeginRule(r.ID); err != nil {
				return err
			}
		}
	}
	if err := s.writeRecords(plan); err != nil {
		return err
	}
	for g, table := range tables {
		table.put(compiled.Tables[g])
	}
	if err := s.putForwarders(steps); err != nil {
		return err
	}
	if err := s.dropSets(known, compiled.Contents); err != nil {
		return err
	}
	current := byID(rules)
	for _, o := range old {
		if _, ok := current[o.ID]; !ok {
			if err := s.forgetRule(o.ID); err != nil {
				return err
			}
		}
	}
	return nil
}

// planRouted returns the steps to what rules say of what is routed, in place of the old ones.
func (s *Set) planRouted(rules, old []Rule, sets map[policy.Group]uint16) ([]forwarderStep, error) {
	open := len(rules) > 0
	if s.interfaces != nil || slices.ContainsFunc(slices.Concat(rules, old), func(r Rule) bool { return r.Rule.Forward }) {
		return s.planForwarders(forwarders(s.interfaces, plainRules(rules), sets, open), s.interfaces)
	}
	want, err := s.reopened(open)
	if err != nil {
		return nil, err
	}
	return s.planForwarders(want, nil)
}

// compileBeside compiles rules so that their sets can stand beside those in force, which are known, and finds places for
// the new ones. Those about what is routed count for the interfaces.
func (s *Set) compileBeside(rules []Rule, interfaces []Interface) (compiled *policy.Compiled, known []policy.KnownSet, sets []placed, err error) {
	numbered := make([]policy.NumberedRule, len(rules))
	for i, r := range rules {
		numbered[i] = r.NumberedRule
	}
	if known, err = s.knownSets(); err != nil {
		return nil, nil, nil, err
	}
	forward := newForwardGroups(plainRules(rules)).groups(namesOf(interfaces))
	compiled, err = policy.Compile(numbered, s.Groups(), known, forward...)
	if errors.Is(err, policy.ErrTooManySets) {
		if _, alone := policy.Compile(numbered, s.Groups(), nil, forward...); alone == nil {
			return nil, nil, nil, fmt.Errorf("%w: %w", ErrNoRoom, err)
		}
	}
	if err != nil {
		return nil, nil, nil, err
	}
	sets, err = s.planSets(imagesOf(compiled, known), compiled.Contents)
	return compiled, known, sets, err
}

func byID(rules []Rule) map[uint16]Rule {
	out := make(map[uint16]Rule, len(rules))
	for _, r := range rules {
		out[r.ID] = r
	}
	return out
}

// AddRules adds rules behind those in force. All have to be unconditional, and none about what is routed: then only their own ports change, where no
// other rule opens them, in the tables of the groups that they are for, and nothing has to be compiled. It also records what else changed of rules in force. If
// something has no room, the error is ErrNoRoom and nothing has changed.
func (s *Set) AddRules(rules []Rule, changed ...Rule) error {
	plan, err := s.planRecords(slices.Concat(rules, changed))
	if err != nil {
		return err
	}
	for _, r := range rules {
		if err := s.BeginRule(r.ID); err != nil {
			return err
		}
	}
	if err := s.writeRecords(plan); err != nil {
		return err
	}
	if len(rules) > 0 {
		if err := s.setAnything(); err != nil {
			return err
		}
	}
	groups := s.Groups()
	for _, r := range rules {
		ranges, err := r.Rule.SlotRanges()
		if err != nil {
			return fmt.Errorf("rule %q: %w", r.Rule, err)
		}
		for _, g := range groups {
			if !r.Rule.In(g) {
				continue
			}
			for _, slots := range ranges {
				if err := s.openSlots(g, slots, r.ID); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (r *Ruleset) openSlots(g policy.Group, slots policy.SlotRange, rule uint16) error {
	ports, release, err := r.portsBetween(g, slots.First, slots.End-1)
	if err != nil {
		return err
	}
	defer release()
	for slot := slots.First; slot < slots.End; slot++ {
		ports.open(slot, rule)
	}
	return nil
}

func (r *Ruleset) forgetRule(id uint16) error {
	places, _, err := r.records()
	if err == nil {
		storePlace(&places[id], place{})
	}
	return err
}

func loadPlace(word *uint64) place {
	raw := atomic.LoadUint64(word)
	wire := (*bpf.FirewallRule)(unsafe.Pointer(&raw))
	return place{wire.Offset, wire.Length}
}

func storePlace(word *uint64, p place) {
	wire := bpf.FirewallRule{Offset: p.offset, Length: p.length}
	atomic.StoreUint64(word, *(*uint64)(unsafe.Pointer(&wire)))
}
