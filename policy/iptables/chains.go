// SPDX-License-Identifier: Apache-2.0

package iptables

import (
	"slices"
	"strings"
)

func (s *ruleset) create(f family, old *chain, c command, at place) outcome {
	switch {
	case c.chain == "" || len(c.chain) > longestName || slices.Contains(targets, c.chain):
		s.lost(at, "a chain cannot have that name")
		return failed
	case old == nil:
		made := &chain{name: c.chain}
		s.chains[f][c.chain] = made
		if s.wild[f] == wild {
			made.rules = []*rule{s.anything(f, c.chain, at)}
		}
		if s.wild[f] != tame {
			return unsure
		}
		return done
	case old.maybe:
		old.doubt(0)
		old.maybe = false
		return unsure
	}
	return failed
}

func (s *ruleset) flush(f family, target *chain, at place) outcome {
	for _, c := range s.chains[f] {
		if target == nil || c == target {
			c.rules = nil
		}
	}
	if target == nil {
		s.wild[f] = min(s.wild[f], empty)
	}
	s.note(at, "a policy file is always the whole policy: nothing is left over from before. The rules of netfilter stay until they are flushed")
	return sureOf(target)
}

// drop deletes chains. One with rules, or to which a rule leads, stays.
func (s *ruleset) drop(f family, target *chain, c command, at place) outcome {
	how := done
	for name, each := range s.chains[f] {
		if target != nil && target != each || !each.isUsers() {
			continue
		}
		certain, used := s.isUsed(f, each)
		switch {
		case len(each.rules) > 0 && !allMaybe(each.rules) || used && certain:
			how = failed
			if target == nil {
				how = unsure
			}
		case len(each.rules) > 0 || used || each.maybe:
			each.maybe = true
			how = unsure
		default:
			delete(s.chains[f], name)
		}
	}
	if target == nil && how != done {
		// Some kinds of iptables delete none if one of them stays.
		for _, each := range s.chains[f] {
			each.maybe = each.maybe || each.isUsers() && len(each.rules) == 0
		}
	}
	if target == nil && s.wild[f] == wild {
		how = unsure // those that are not known may stay
	} else if target == nil && how == done {
		s.wild[f] = tame
	}
	if target != nil && !target.isUsers() {
		return failed
	}
	s.note(at, "a policy file has no chains of its own")
	return how
}

// isUsed reports whether a rule leads to a chain, and whether that is certain.
func (s *ruleset) isUsed(f family, c *chain) (certain, used bool) {
	for _, from := range s.chains[f] {
		for _, r := range from.rules {
			if r.target == c.name {
				used = true
				certain = certain || !r.maybe
			}
		}
	}
	return certain, used
}

func allMaybe(rules []*rule) bool {
	return !slices.ContainsFunc(rules, func(r *rule) bool { return !r.maybe })
}

// rename gives a chain another name.
func (s *ruleset) rename(f family, c *chain, cmd command, at place) outcome {
	switch {
	case c == nil || !c.isUsers() || cmd.policy == "" || s.chains[f][cmd.policy] != nil && !s.chains[f][cmd.policy].maybe:
		return failed
	case c.maybe || s.wild[f] != tame || s.chains[f][cmd.policy] != nil:
		s.lost(at, "whether there is such a chain cannot be told")
		s.doubtAll(f, at)
		return unsure
	}
	delete(s.chains[f], c.name)
	for _, from := range s.chains[f] {
		for i, r := range from.rules {
			if r.target == c.name {
				renamed := *r
				renamed.target = cmd.policy
				renamed.spec = strings.Replace(r.spec, c.name, cmd.policy, 1)
				from.rules[i] = &renamed
			}
		}
	}
	for i, r := range c.rules {
		if r.target == c.name {
			renamed := *r
			renamed.target = cmd.policy
			c.rules[i] = &renamed
		}
	}
	c.name = cmd.policy
	s.chains[f][c.name] = c
	return done
}

func (s *ruleset) setPolicy(of *chain, c command, at place) outcome {
	switch {
	case of.isUsers():
		s.lost(at, "only the chains of netfilter have a policy")
		return failed
	case c.policy != "ACCEPT" && c.policy != "DROP":
		s.lost(at, "there is no such policy")
		return failed
	}
	of.policy, of.policyAt = c.policy, at
	return done
}
