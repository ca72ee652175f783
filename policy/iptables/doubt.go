// SPDX-License-Identifier: Apache-2.0

package iptables

import (
	"maps"
	"reflect"
	"slices"
)

// Why a rule that is understood may still not be there.
const (
	mayBe = "a command that the script may or may not run"
	mayGo = "a rule that a later command may take away"
)

// doubted is the rule, if it is there.
func (r *rule) doubted(why string) *rule {
	c := *r
	c.unsure = slices.Clone(r.unsure)
	c.doubt("%s", why)
	c.maybe = true
	return &c
}

// doubt says that the rules from one on may be gone.
func (c *chain) doubt(from int) {
	for i := from; i < len(c.rules); i++ {
		c.rules[i] = c.rules[i].doubted(mayGo)
	}
}

// firstUncertain is the index of the first rule that may not be there, or that
// stands for several.
func (c *chain) firstUncertain() int {
	if i := slices.IndexFunc(c.rules, func(r *rule) bool { return r.maybe || r.several }); i >= 0 {
		return i
	}
	return len(c.rules)
}

// uncertainUpTo reports whether it cannot be told which one rule number n is.
func (c *chain) uncertainUpTo(n int) bool { return c.maybe || c.firstUncertain() < n }

// find returns the rules that may be the first that a command means, and whether
// one of them is for certain.
func (c *chain) find(like *rule) (index []int, certain bool) {
	for i, r := range c.rules {
		same, may := r.same(like)
		if !may {
			continue
		}
		index = append(index, i)
		if same && !r.maybe {
			return index, true
		}
	}
	return index, false
}

// same reports whether iptables takes two rules for the same, and whether it may.
func (r *rule) same(o *rule) (is, may bool) {
	if r.spec == o.spec && !r.hides && !o.hides {
		return true, true
	}
	if r.target != o.target && r.target != "?" && o.target != "?" {
		return false, false
	}
	if len(r.unsure) > 0 || len(o.unsure) > 0 || r.several || o.several {
		return false, true
	}
	return false, r.goesTo == o.goesTo && alike(r.in, o.in, func(v string) bool { return v == "+" }) &&
		alike(r.out, o.out, func(v string) bool { return v == "+" }) &&
		alike(r.protocol, o.protocol, func(v int) bool { return v < 0 }) &&
		alike(r.from, o.from, func(v addresses) bool { return v.contains(everyone[r.home]) }) &&
		alike(r.to, o.to, func(v addresses) bool { return v.contains(everyone[r.home]) }) &&
		reflect.DeepEqual(r.ports, o.ports) && reflect.DeepEqual(r.icmp, o.icmp) && r.level == o.level
}

// alike reports whether two conditions are the same; one that all packets meet
// is none.
func alike[T any](a, b *test[T], everything func(T) bool) bool {
	none := func(t *test[T]) bool { return t == nil || !t.not && everything(t.value) }
	if none(a) || none(b) {
		return none(a) == none(b)
	}
	return reflect.DeepEqual(a, b)
}

// anything stands for whatever rules there may be.
func (s *ruleset) anything(f family, chain string, at place) *rule {
	r := &rule{place: at, home: f, chain: chain, target: "DROP", spec: "?", hides: true, maybe: true}
	r.doubt("what this does")
	return r
}

// doubtRules says that any rule may be gone.
func (s *ruleset) doubtRules(f family) {
	for _, c := range s.chains[f] {
		c.doubt(0)
	}
}

// doubtAll says that anything may have been done.
func (s *ruleset) doubtAll(f family, at place) {
	s.count++
	s.doubtRules(f)
	for _, c := range s.chains[f] {
		if c.name == "OUTPUT" {
			continue
		}
		c.rules = slices.Insert(c.rules, 0, s.anything(f, c.name, at))
		if c.isUsers() {
			c.maybe = true
		} else {
			c.policy, c.policyAt = "DROP", at
		}
	}
	s.wild[f] = wild
}

// unknownChain is a chain that may be there, with whatever is in it.
func (s *ruleset) unknownChain(f family, name string, at place) *chain {
	c := &chain{name: name, maybe: true}
	if s.wild[f] == wild {
		c.rules = []*rule{s.anything(f, name, at)}
	}
	s.chains[f][name] = c
	return c
}

func (s *ruleset) clone() *ruleset {
	c := *s
	for f := range s.chains {
		c.chains[f] = make(map[string]*chain, len(s.chains[f]))
		for name, chain := range s.chains[f] {
			copied := *chain
			copied.rules = slices.Clone(chain.rules)
			c.chains[f][name] = &copied
		}
	}
	return &c
}

// join takes what differs in two rulesets for doubtful, and reports whether
// anything does.
func (s *ruleset) join(o *ruleset) (differs bool) {
	for _, f := range families {
		for _, name := range slices.Sorted(maps.Keys(o.chains[f])) {
			theirs := o.chains[f][name]
			ours := s.chains[f][name]
			if ours == nil {
				differs = true
				ours = &chain{name: name, maybe: true, policy: theirs.policy, policyAt: theirs.policyAt}
				s.chains[f][name] = ours
			}
			differs = ours.join(theirs) || differs
		}
		for name, ours := range s.chains[f] {
			if o.chains[f][name] == nil && !ours.maybe {
				differs = true
				ours.maybe = true
				ours.doubt(0)
			}
		}
		s.told[f] = s.told[f] || o.told[f]
		s.filled[f] = s.filled[f] || o.filled[f]
		s.wild[f] = max(s.wild[f], o.wild[f])
		if s.by[f] == "" {
			s.by[f] = o.by[f]
		}
	}
	if s.twice == nil {
		s.twice = o.twice
	}
	s.count = max(s.count, o.count)
	if differs {
		s.count++
	}
	return differs
}

func (c *chain) join(o *chain) (differs bool) {
	if c.maybe != o.maybe {
		c.maybe, differs = true, true
	}
	switch {
	case c.policy == o.policy:
	case c.policy == "DROP":
		differs = true
	case o.policy == "DROP":
		c.policy, c.policyAt, differs = o.policy, o.policyAt, true
	default:
		c.policy, differs = "", true
	}
	joined, changed := joinRules(c.rules, o.rules)
	c.rules = joined
	return differs || changed
}

// maxAligned bounds the work of finding out what two long lists have in common.
const maxAligned = 1 << 22

// joinRules keeps the rules that two lists have in common, in one order, and
// doubts the others.
func joinRules(a, b []*rule) (out []*rule, differs bool) {
	common := 0
	for common < min(len(a), len(b)) && a[common].joins(b[common]) {
		common++
	}
	tail := 0
	for tail < min(len(a), len(b))-common && a[len(a)-1-tail].joins(b[len(b)-1-tail]) {
		tail++
	}
	for i := range common {
		out = append(out, a[i].joined(b[i]))
	}
	midA, midB := a[common:len(a)-tail], b[common:len(b)-tail]
	differs = len(midA)+len(midB) > 0
	out = append(out, align(midA, midB)...)
	for i := range tail {
		out = append(out, a[len(a)-tail+i].joined(b[len(b)-tail+i]))
	}
	return out, differs
}

// joins reports whether two rules are the same for whoever joins them.
func (r *rule) joins(o *rule) bool {
	return r == o || r.spec == o.spec && r.hides == o.hides && (!r.hides || r.place == o.place) && r.home == o.home && r.target == o.target
}

// joined is one of both rules, or the one that is in doubt.
func (r *rule) joined(o *rule) *rule {
	if len(o.unsure) > len(r.unsure) || o.maybe && !r.maybe {
		return o.doubtedAs(r)
	}
	if r == o {
		return r
	}
	return r.doubtedAs(o)
}

// doubtedAs adds the doubts of another.
func (r *rule) doubtedAs(o *rule) *rule {
	c := *r
	c.unsure = slices.Clone(r.unsure)
	for _, why := range o.unsure {
		c.doubt("%s", why)
	}
	c.maybe = r.maybe || o.maybe
	return &c
}

// align merges two lists by the longest of what they have in common.
func align(a, b []*rule) (out []*rule) {
	doubt := func(list []*rule) {
		for _, r := range list {
			if !slices.Contains(r.unsure, mayGo) {
				r = r.doubted(mayBe)
			}
			out = append(out, r)
		}
	}
	if len(a) == 0 || len(b) == 0 || len(a)*len(b) > maxAligned {
		doubt(a)
		doubt(b)
		return out
	}
	longest := make([][]int32, len(a)+1)
	for i := range longest {
		longest[i] = make([]int32, len(b)+1)
	}
	for i := len(a) - 1; i >= 0; i-- {
		for j := len(b) - 1; j >= 0; j-- {
			if a[i].joins(b[j]) {
				longest[i][j] = longest[i+1][j+1] + 1
			} else {
				longest[i][j] = max(longest[i+1][j], longest[i][j+1])
			}
		}
	}
	i, j := 0, 0
	for i < len(a) && j < len(b) {
		switch {
		case a[i].joins(b[j]):
			out = append(out, a[i].joined(b[j]))
			i, j = i+1, j+1
		case longest[i+1][j] >= longest[i][j+1]:
			doubt(a[i : i+1])
			i++
		default:
			doubt(b[j : j+1])
			j++
		}
	}
	doubt(a[i:])
	doubt(b[j:])
	return out
}

// open reports whether nothing is held back.
func (s *ruleset) open() bool {
	for _, f := range families {
		if s.wild[f] != tame {
			return false
		}
		for _, name := range []string{"INPUT", "FORWARD"} {
			if c := s.chains[f][name]; c.policy == "DROP" || len(c.rules) > 0 {
				return false
			}
		}
	}
	return true
}
