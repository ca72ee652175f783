// SPDX-License-Identifier: Apache-2.0

package maps

import (
	"errors"
	"fmt"
	"math/bits"
	"slices"
	"unsafe"

	"github.com/cilium/ebpf"

	"github.com/portcullis-firewall/portcullis/bpf"
	"github.com/portcullis-firewall/portcullis/policy"
)

// MaxRules is the most rules that a policy may have: rule numbers have 16 bits, and 0 stands for no rule.
const MaxRules = 1<<16 - 1

// ErrNoRoom is returned when a rule or source has no room in the running maps; applying the policy anew makes room.
var ErrNoRoom = errors.New("no room left in the running filter")

const (
	leastRules   = 1024      // that there is room for, however few a policy has
	leastRecords = 256 << 10 // bytes
)

// Resize sets the map sizes in spec to what a policy needs on a host with some interfaces, with room for more rules, so
// that opening one needs no reload.
func Resize(spec *ebpf.CollectionSpec, p *policy.Policy, interfaces ...string) {
	capacity := uint32(leastRules)
	if n := uint32(2 * len(p.Open)); n > capacity {
		capacity = min(uint32(1)<<bits.Len32(n-1), MaxRules+1)
	}
	ResizeRules(spec, capacity)
	records := 0
	for _, r := range p.Open {
		records += recordSize(r)
	}
	spec.Maps[bpf.FirewallMapRuleRecords].MaxEntries = powerOfTwo(2*records/recordAlign, leastRecords/recordAlign)
	ResizeFlows(spec, p.FlowLimit())
	resizeForwarders(spec, len(interfaces))
	if slices.ContainsFunc(p.Open, func(r policy.Rule) bool { return r.Forward || !r.Unconditional() }) {
		forward := newForwardGroups(p.Open).groups(append(namesOn(p.Open), interfaces...))
		if c, err := policy.Compile(numberedFromOne(p.Open), policy.GroupsOf(p.Open, p.Interfaces), nil, forward...); err == nil {
			ResizeSets(spec, c)
		}
	} else {
		ResizeSets(spec, &policy.Compiled{})
	}
	if FeaturesOf(p.Open)&UsesLimits == 0 {
		spec.Maps[bpf.FirewallMapLimits].MaxEntries = 1
		spec.Maps[bpf.FirewallMapLimitBuckets].MaxEntries = 1
	}
}

// powerOfTwo returns the least one that is at least n: a policy that has grown a little finds the maps of the one before
// large enough.
func powerOfTwo(n, least int) uint32 { return uint32(max(least, 1<<bits.Len(uint(max(n, 1)-1)))) }

// ResizeRules sets the map sizes in spec for rule numbers below capacity.
func ResizeRules(spec *ebpf.CollectionSpec, capacity uint32) {
	spec.Maps[bpf.FirewallMapRules].MaxEntries = capacity
	spec.Maps[bpf.FirewallMapRuleTallies].MaxEntries = capacity
	spec.Maps[bpf.FirewallMapRuleOffsets].MaxEntries = capacity
	if limits := spec.Maps[bpf.FirewallMapLimits]; limits.MaxEntries > 1 {
		limits.MaxEntries = capacity
	}
}

// ResizeFlows sets the map sizes in spec for at most limit flows of both families.
func ResizeFlows(spec *ebpf.CollectionSpec, limit int) {
	spec.Maps[bpf.FirewallMapFlowTags].MaxEntries = flowSets(limit)
	spec.Maps[bpf.FirewallMapFlows].MaxEntries = flowSets(limit) * uint32(placesPerSet)
	account := &bpf.FirewallAccount{MaxFlows: uint32(limit)}
	memory := unsafe.Slice((*byte)(unsafe.Pointer(account)), unsafe.Sizeof(*account))
	spec.Maps[accountMap].Contents = []ebpf.MapKV{{Key: uint32(0), Value: memory}}
}

// Measure sets the map sizes in spec to those of the set, so that a program can be loaded over its maps.
func (s *Set) Measure(spec *ebpf.CollectionSpec) error {
	all, err := s.All()
	for name, m := range all {
		spec.Maps[name].MaxEntries = m.MaxEntries()
	}
	return err
}

// Capacity returns the upper bound of rule numbers, which none reaches.
func (r *Ruleset) Capacity() uint32 { return r.byName[bpf.FirewallMapRules].MaxEntries() }

// CheckCapacity returns an error if a policy is too large for any filter. It creates no maps.
func CheckCapacity(p *policy.Policy) error {
	if _, err := wirePolicy(p); err != nil {
		return err
	}
	if n := len(p.Open); n > MaxRules {
		return fmt.Errorf("the policy has %d rules, and %d is the most: join ports to ranges, or sources to lists", n, MaxRules)
	}
	if policy.SurelyCompiles(p.Open) {
		return nil
	}
	groups := policy.GroupsOf(p.Open, p.Interfaces)
	for _, g := range groups {
		if len(g) >= int(groupSize) {
			return errGroupSize
		}
	}
	_, err := policy.Compile(numberedFromOne(p.Open), groups, nil, newForwardGroups(p.Open).groups(namesOn(p.Open))...)
	return err
}

func numberedFromOne(rules []policy.Rule) []policy.NumberedRule {
	numbered := make([]policy.NumberedRule, len(rules))
	for i, r := range rules {
		numbered[i] = policy.NumberedRule{ID: uint16(i + 1), Rule: r}
	}
	return numbered
}

// Number returns the rules of open with their numbers: that of the equal rule in old, whose counter then goes on, or
// one that no rule in old has.
func Number(open []policy.Rule, old []Rule, capacity uint32) ([]policy.NumberedRule, error) {
	return number(open, old, capacity, false)
}

// NumberAnew is like Number, for a new ruleset: when no number is free, it gives away those of rules that go.
func NumberAnew(open []policy.Rule, old []Rule, capacity uint32) ([]policy.NumberedRule, error) {
	return number(open, old, capacity, true)
}

// idSet holds numbers of rules. It is as long as the highest of them asks for: most policies are short, and to make one of
// all possible numbers would take a tenth of a millisecond.
type idSet []uint64

func (s idSet) has(id uint16) bool { return int(id/64) < len(s) && s[id/64]&(1<<(id%64)) != 0 }

func (s *idSet) add(id uint16) {
	for int(id/64) >= len(*s) {
		*s = append(*s, 0)
	}
	(*s)[id/64] |= 1 << (id % 64)
}

func number(open []policy.Rule, old []Rule, capacity uint32, reuse bool) ([]policy.NumberedRule, error) {
	former := make(map[policy.RuleKey][]uint16, len(old)) // the numbers of equal rules
	for _, o := range old {
		key := o.Rule.Key()
		former[key] = append(former[key], o.ID)
	}
	var kept, taken idSet
	out := make([]policy.NumberedRule, len(open))
	for i, r := range open {
		out[i].Rule = r
		key := r.Key()
		for ids := former[key]; len(ids) > 0 && out[i].ID == 0; ids = former[key] {
			former[key] = ids[1:]
			if !kept.has(ids[0]) {
				out[i].ID = ids[0]
				kept.add(ids[0])
			}
		}
	}
	// Numbers in use by the old policy stay theirs: the programs that still run count under them.
	taken = slices.Clone(kept)
	for _, o := range old {
		taken.add(o.ID)
	}
	next := uint32(1)
	for i := range out {
		if out[i].ID != 0 {
			continue
		}
		for next < capacity && taken.has(uint16(next)) {
			next++
		}
		if next >= capacity && reuse {
			next, taken, reuse = 1, slices.Clone(kept), false
			for _, given := range out {
				taken.add(given.ID)
			}
			for next < capacity && taken.has(uint16(next)) {
				next++
			}
		}
		if next >= capacity {
			return nil, fmt.Errorf("%w: %d rules are too many for %d places", ErrNoRoom, len(open), capacity-1)
		}
		out[i].ID = uint16(next)
		taken.add(uint16(next))
	}
	return out, nil
}
