// SPDX-License-Identifier: Apache-2.0

package iptables

import (
	"slices"
	"strings"
)

// chain is one chain of the filter table.
type chain struct {
	name      string
	policy    string // ACCEPT or DROP; "": not said
	policyAt  place
	rules     []*rule
	byDefault *rule
}

var builtin = []string{"INPUT", "FORWARD", "OUTPUT"}

func (c *chain) isUsers() bool { return !slices.Contains(builtin, c.name) }

// asRule stands for the policy of a chain among rules.
func (c *chain) asRule() *rule {
	if c.byDefault == nil {
		c.byDefault = &rule{place: c.policyAt, target: c.policy}
	}
	return c.byDefault
}

func (c *chain) doubt() {
	for _, r := range c.rules {
		r.doubt("a rule that a later command may take away")
	}
}

// ruleset is what the commands have made of the filter tables.
type ruleset struct {
	findings
	chains [2]map[string]*chain
	told   [2]bool // of which families anything was said
	filled [2]bool // of which families there was a filter table, or a command about it
	ufw    bool

	from     [2]string // the file that the filter table was read from last
	guessed  [2]bool   // whether its family was no more than likely
	raw      [2]string // the filter tables as they were written, where they are all that is known of a family
	options  Options
	single   bool // there is one file of rules
	guessing bool // no more than likely is the family of the file that is read
	sets     map[string]*ipset
}

func newRuleset() *ruleset {
	s := &ruleset{sets: make(map[string]*ipset)}
	for f := range s.chains {
		s.chains[f] = newChains()
	}
	return s
}

func newChains() map[string]*chain {
	chains := make(map[string]*chain)
	for _, name := range builtin {
		chains[name] = &chain{name: name}
	}
	return chains
}

// elsewhere says what becomes of the rules of other tables, which stay.
func (s *ruleset) elsewhere(f family, c command, at place) {
	r := parseRule(f, at, c.spec)
	switch {
	case slices.Contains([]string{"P", "N", "X", "Z", "L", "S", "C", "E"}, c.verb):
	case c.verb == "F":
		s.note(at, "the %s table is not Portcullis's, and is left as it is", c.table)
	case r.target == "DNAT" || r.target == "REDIRECT":
		remedy := "open the port that it comes to"
		if rules := openingsOf(r); r.ports != nil && rules != "" {
			remedy = "open " + rules
		}
		s.lost(at, "the rule stays with netfilter, but Portcullis sees packets before it, as those to this host: %s to let them in", remedy)
	default:
		s.note(at, "the %s table stays with netfilter: keep what loads it", c.table)
	}
}

// apply does what a command says. Whether a doubtful one is run, nobody knows.
func (s *ruleset) apply(f family, c command, at place, doubtful bool) {
	if c.only != nil && *c.only != f {
		s.note(at, "a rule for %s only is left out of those for %s", *c.only, f)
		return
	}
	s.told[f] = true
	if c.bad != "" {
		s.lost(at, "%s", c.bad)
		s.distrust(f, at, c)
		return
	}
	if c.table != "filter" {
		s.elsewhere(f, c, at)
		return
	}
	s.filled[f] = true
	target := s.chains[f][c.chain]
	if target == nil && slices.Contains([]string{"A", "I", "D", "R", "P"}, c.verb) || target == nil && c.chain != "" && (c.verb == "F" || c.verb == "X") {
		s.lost(at, "there is no chain %s", c.chain)
		return
	}
	switch c.verb {
	case "A", "I", "R":
		s.place(f, target, c, at, doubtful)
	case "D":
		s.remove(f, target, c, at, doubtful)
	case "P":
		s.setPolicy(target, c, at, doubtful)
	case "N":
		if target == nil && c.chain != "" {
			s.chains[f][c.chain] = &chain{name: c.chain}
		}
	case "F":
		s.flush(f, target, at, doubtful)
	case "X":
		s.drop(f, target, at, doubtful)
	case "E":
		s.lost(at, "a chain cannot get another name here: give it that from the start")
	case "L", "S", "Z", "C", "V", "h":
	default:
		s.lost(at, "not understood")
	}
}

// distrust is for a command that may have done anything within its kind: rules
// that let something in may be gone, and ones that drop may be there.
func (s *ruleset) distrust(f family, at place, c command) {
	known := s.chains[f][c.chain]
	for _, chain := range s.chains[f] {
		if known != nil && chain != known {
			continue
		}
		if slices.Contains([]string{"D", "F", "R", "X", ""}, c.verb) {
			chain.doubt()
		}
		if c.verb == "P" || c.verb == "" {
			chain.policy, chain.policyAt = "DROP", at
		}
	}
	if !slices.Contains([]string{"A", "I", "R"}, c.verb) {
		return
	}
	for _, name := range []string{"INPUT", "FORWARD"} {
		r := s.parseRule(f, at, c.spec)
		r.chain = name
		r.doubt("a command of which %s", c.bad)
		s.chains[f][name].rules = slices.Insert(s.chains[f][name].rules, 0, r)
	}
}

func (s *ruleset) place(f family, to *chain, c command, at place, doubtful bool) {
	r := s.parseRule(f, at, c.spec)
	r.chain = to.name
	if doubtful {
		r.doubt("a command that the script may or may not run")
	}
	switch {
	case c.verb == "A":
		to.rules = append(to.rules, r)
	case c.verb == "I" && max(c.number, 1) <= len(to.rules)+1:
		to.rules = slices.Insert(to.rules, max(c.number, 1)-1, r)
	case c.verb == "R" && c.number >= 1 && c.number <= len(to.rules) && doubtful:
		to.rules[c.number-1].doubt("a rule that a later command may take away")
		to.rules = slices.Insert(to.rules, c.number-1, r)
	case c.verb == "R" && c.number >= 1 && c.number <= len(to.rules):
		to.rules[c.number-1] = r
	default:
		s.lost(at, "there is no place %d in chain %s", c.number, to.name)
	}
}

func (s *ruleset) remove(f family, from *chain, c command, at place, doubtful bool) {
	index := c.number - 1
	if c.number == 0 {
		spec := parseRule(f, at, c.spec).spec
		index = slices.IndexFunc(from.rules, func(r *rule) bool { return r.spec == spec })
	}
	switch {
	case index < 0 || index >= len(from.rules):
		s.lost(at, "no rule written like it was found in chain %s, so any may be meant", from.name)
		from.doubt()
	case doubtful:
		from.rules[index].doubt("a rule that a later command may take away")
	default:
		from.rules = slices.Delete(from.rules, index, index+1)
	}
}

func (s *ruleset) setPolicy(of *chain, c command, at place, doubtful bool) {
	verdict := strings.ToUpper(c.policy)
	switch {
	case verdict != "ACCEPT" && verdict != "DROP":
		s.lost(at, "there is no such policy")
	case doubtful:
		s.lost(at, "the script may or may not run this: drop is taken")
		of.policy, of.policyAt = "DROP", at
	default:
		of.policy, of.policyAt = verdict, at
	}
}

func (s *ruleset) flush(f family, target *chain, at place, doubtful bool) {
	for _, c := range s.chains[f] {
		switch {
		case target != nil && c != target:
		case doubtful:
			c.doubt()
		default:
			c.rules = nil
		}
	}
	if doubtful {
		s.lost(at, "the script may or may not run this: what it may take away is not opened")
		return
	}
	s.note(at, "a policy file is always the whole policy: nothing is left over from before. The rules of netfilter stay until they are flushed")
}

func (s *ruleset) drop(f family, target *chain, at place, doubtful bool) {
	for name, c := range s.chains[f] {
		if (target == nil || target == c) && len(c.rules) == 0 && c.isUsers() && !doubtful {
			delete(s.chains[f], name)
		}
	}
	s.note(at, "a policy file has no chains of its own")
}
