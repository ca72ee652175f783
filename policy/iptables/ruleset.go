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
	maybe     bool // nobody knows whether it is there
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

// ruleset is what the commands have made of the filter tables.
type ruleset struct {
	*findings
	chains [2]map[string]*chain
	told   [2]bool // of which families anything was said
	filled [2]bool // of which families there was a filter table, or a command about it
	ufw    bool
	wild   [2]wildness
	by     [2]string // the kind of iptables that keeps the rules
	twice  *place    // where a second kind came
	count  int       // of changes

	from     [2]string // the file that the filter table was read from last
	guessed  [2]bool   // whether its family was no more than likely
	raw      [2]string // the filter tables as they were written, where they are all that is known of a family
	options  Options
	single   bool // there is one file of rules
	guessing bool // no more than likely is the family of the file that is read
	sets     map[string]*ipset
	notrack  *[2][]*rule // those of the raw table that leave packets UNTRACKED
}

// wildness says what chains there may be beside those that are known.
type wildness uint8

const (
	tame  wildness = iota // none
	empty                 // some without rules
	wild                  // some with rules
)

// outcome is how a command ends.
type outcome uint8

const (
	done outcome = iota
	failed
	unsure
	assumed // to go well, unless somebody asks
)

func newRuleset() *ruleset {
	s := &ruleset{findings: &findings{}, sets: make(map[string]*ipset), notrack: new([2][]*rule)}
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

// onTheWay are the chains of other tables that packets to this host, or through it, pass.
var onTheWay = []string{"PREROUTING", "INPUT", "FORWARD"}

// policyElsewhere is about a chain of another table that drops by its policy.
func (s *ruleset) policyElsewhere(table, chain string, at place) {
	if slices.Contains(onTheWay, chain) {
		s.lost(at, "the policy of chain %s of the %s table drops: it stays with netfilter, and the policy lets in what is dropped there", chain, table)
	}
}

// dropElsewhere is about a rule of another table that may drop what begins something.
func (s *ruleset) dropElsewhere(r *rule, table string) {
	const why = "the policy does not know of the %s table, and lets in what the rule drops"
	if s.options.Keep {
		s.stay(r.place, "keep this rule in netfilter: "+why, table)
	} else {
		s.lost(r.place, why, table)
	}
}

// mayDropWhatBegins reports whether a rule of another table may drop packets that are not INVALID or belong to nothing.
func (r *rule) mayDropWhatBegins() bool {
	begun := !r.understood() || slices.ContainsFunc([]cell{begins, toGroup, toBroadcast}, func(c cell) bool { return r.level[c] != nothing })
	return begun && r.dress == "" && (r.drops() || r.target == "?" || slices.Contains(queues, r.target)) && ownerOf(r) == nil &&
		r.chain != "OUTPUT" && r.chain != "POSTROUTING"
}

// elsewhere says what becomes of the rules of other tables, which stay.
func (s *ruleset) elsewhere(f family, c command, at place) {
	r := s.newRule(f, at, c.spec)
	r.chain = c.chain
	if strings.Contains("AIR", c.verb) && c.verb != "" && c.chain != "OUTPUT" && (r.target == "NOTRACK" || slices.Contains(r.args, "--notrack")) {
		s.notrack[f] = append(s.notrack[f], r)
	}
	switch {
	case c.verb == "P" && c.policy != "ACCEPT":
		s.policyElsewhere(c.table, c.chain, at)
	case strings.Contains("AIR", c.verb) && c.verb != "" && r.mayDropWhatBegins():
		s.dropElsewhere(r, c.table)
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

// dropUntracked puts before each rule that drops UNTRACKED packets what the raw table makes of them.
func (s *ruleset) dropUntracked() {
	for _, f := range families {
		for _, c := range s.chains[f] {
			for i := len(c.rules) - 1; i >= 0 && len(s.notrack[f]) > 0; i-- {
				r := c.rules[i]
				next := s.chains[f][r.target]
				if !r.untracked || !r.drops() && r.target != "?" && (next == nil || !next.isUsers()) {
					continue
				}
				for _, n := range s.notrack[f] {
					d := n.doubted("UNTRACKED, by a rule of the raw table,")
					d.place, d.chain, d.target, d.goesTo, d.rejectWith = r.place, c.name, r.target, r.goesTo, r.rejectWith
					d.args, d.limit = nil, nil
					c.rules = slices.Insert(c.rules, i, d)
				}
			}
		}
	}
}

// apply does what a command says.
func (s *ruleset) apply(f family, c command, at place) outcome {
	if c.only != nil && *c.only != f {
		s.note(at, "a rule for %s only is left out of those for %s", *c.only, f)
		return unsure
	}
	s.count++
	s.told[f] = true
	if c.bad != "" {
		s.lost(at, "%s", c.bad)
		s.distrust(f, at, c)
		return unsure
	}
	if c.table != "filter" {
		s.elsewhere(f, c, at)
		if slices.Contains([]string{"A", "I", "P", "F", "N"}, c.verb) {
			return assumed
		}
		return unsure
	}
	s.filled[f] = true
	target := s.chains[f][c.chain]
	if target == nil && s.wild[f] == tame && (strings.Contains("AIDRP", c.verb) && c.verb != "" || c.chain != "" && strings.Contains("FXLSZE", c.verb)) {
		if strings.Contains("AIR", c.verb) {
			s.lost(at, "there is no chain %s", c.chain)
		} else if !strings.Contains("LS", c.verb) {
			s.note(at, "there is no chain %s", c.chain)
		}
		return failed
	}
	if target == nil && s.wild[f] != tame && c.chain != "" && c.verb != "N" {
		// It may be one of those that nobody knows.
		target = s.unknownChain(f, c.chain, at)
	}
	switch c.verb {
	case "A", "I", "R":
		return s.place(f, target, c, at)
	case "D":
		return s.remove(f, target, c, at)
	case "C":
		return s.check(f, target, c, at)
	case "P":
		return s.setPolicy(target, c, at)
	case "N":
		return s.create(f, target, c, at)
	case "F":
		return s.flush(f, target, at)
	case "X":
		return s.drop(f, target, c, at)
	case "E":
		return s.rename(f, target, c, at)
	case "L", "S", "Z":
		return sureOf(target)
	case "V", "h":
		return done
	}
	s.lost(at, "not understood")
	return unsure
}

// sureOf is how a command ends that only needs its chain.
func sureOf(c *chain) outcome {
	if c != nil && c.maybe {
		return unsure
	}
	return done
}

// distrust is for a command that may have done anything within its kind: rules
// that let something in may be gone, and ones that drop may be there.
func (s *ruleset) distrust(f family, at place, c command) {
	switch c.verb {
	case "A", "I", "R":
		if c.chain != "" && s.chains[f][c.chain] != nil {
			if c.verb == "R" {
				s.chains[f][c.chain].doubt(0)
			}
			s.insertDoubtful(f, c.chain, c, at)
			return
		}
		if c.verb == "R" {
			s.doubtRules(f)
		}
		for _, name := range []string{"INPUT", "FORWARD"} {
			s.insertDoubtful(f, name, c, at)
		}
		// Whatever it is, packets may come to it in other chains, too.
		for name, chain := range s.chains[f] {
			if chain.isUsers() {
				s.insertDoubtful(f, name, c, at)
			}
		}
	case "P":
		for _, name := range []string{"INPUT", "FORWARD"} {
			chain := s.chains[f][name]
			chain.policy, chain.policyAt = "DROP", at
		}
	case "D", "F":
		if known := s.chains[f][c.chain]; known != nil {
			known.doubt(0)
			return
		}
		s.doubtRules(f)
	case "N":
		s.wild[f] = max(s.wild[f], empty)
	case "L", "S", "Z", "C", "V", "h":
	default:
		s.doubtAll(f, at)
	}
}

// insertDoubtful puts in a rule of which more is not known than that it may be there.
func (s *ruleset) insertDoubtful(f family, name string, c command, at place) {
	r := s.newRule(f, at, c.spec)
	r.chain = name
	r.doubt("a command of which %s", c.bad)
	r.maybe = true
	if r.target == "" {
		r.target = "?" // it may be in what was taken for something else
	}
	s.chains[f][name].rules = slices.Insert(s.chains[f][name].rules, 0, r)
}

// newRule reads a rule. One of which a part is not known may have any target.
func (s *ruleset) newRule(f family, at place, spec []word) *rule {
	r := s.parseRule(f, at, spec)
	for i, w := range spec {
		r.hides = r.hides || w.hidden
		addresses := i > 0 && slices.Contains([]string{"-s", "-d", "--source", "--src", "--destination", "--dst"}, spec[i-1].text)
		r.several = r.several || addresses && strings.Contains(w.text, ",")
	}
	for i, w := range spec {
		if i > 0 && (spec[i-1].text == "-m" || spec[i-1].text == "--match") && !slices.Contains(knownMatches, w.text) {
			r.suspect = true
		}
	}
	if r.hides && r.target == "" {
		r.target = "?"
	}
	if like := strings.ToUpper(strings.TrimRight(r.target, ";,.")); like != r.target && (like == "DROP" || like == "REJECT") && s.chains[f][r.target] == nil {
		r.doubt("-j %s", r.target)
		r.target, r.suspect, r.stray = like, true, true
	}
	return r
}

func (s *ruleset) place(f family, to *chain, c command, at place) outcome {
	r := s.newRule(f, at, c.spec)
	r.chain = to.name
	how := done
	if c.doubt != "" {
		r.doubt("%s", c.doubt)
		r.suspect = true
	}
	if len(r.unsure) > 0 {
		how = assumed // iptables takes it, as it may know more
	}
	if r.hides || r.suspect {
		r.maybe = true
	}
	if r.maybe || to.maybe {
		how = unsure
	}
	if next := s.chains[f][r.target]; r.target != "" && !r.passes() && !r.drops() && r.target != "ACCEPT" && r.target != "RETURN" && (next == nil && s.wild[f] != tame || next != nil && next.maybe) {
		r.doubt("a jump to a chain that may not be there")
		how = unsure
	}
	at1 := max(c.number, 1) - 1
	uncertain := to.uncertainUpTo(at1)
	switch {
	case c.verb == "A":
		to.rules = append(to.rules, r)
	case c.verb == "I" && uncertain && c.number > 1:
		how = unsure
		to.rules = slices.Insert(to.rules, min(at1, len(to.rules), to.firstUncertain()), r.doubted("a command of which the place cannot be told"))
	case c.verb == "I" && at1 <= len(to.rules):
		to.rules = slices.Insert(to.rules, at1, r)
	case c.verb == "R" && (to.uncertainUpTo(c.number) && c.number >= 1 || c.number == 0 && r.hides):
		how = unsure
		i := min(at1, len(to.rules), to.firstUncertain())
		to.doubt(i)
		to.rules = slices.Insert(to.rules, i, r.doubted("a command of which the place cannot be told"))
	case c.verb == "R" && c.number >= 1 && c.number <= len(to.rules):
		to.rules[c.number-1] = r
	default:
		s.lost(at, "there is no place %d in chain %s", c.number, to.name)
		return failed
	}
	return how
}

func (s *ruleset) remove(f family, from *chain, c command, at place) outcome {
	if c.number > 0 {
		switch {
		case from.uncertainUpTo(c.number):
			from.doubt(min(c.number-1, from.firstUncertain()))
			return unsure
		case c.number > len(from.rules):
			s.lost(at, "there is no rule %d in chain %s", c.number, from.name)
			return failed
		}
		from.rules = slices.Delete(from.rules, c.number-1, c.number)
		return sureOf(from)
	}
	index, certain := from.find(s.newRule(f, at, c.spec))
	switch {
	case len(index) == 0:
		if s.wild[f] == wild {
			return unsure
		}
		s.note(at, "there is no rule like it in chain %s: nothing is taken away", from.name)
		return failed
	case certain && len(index) == 1:
		from.rules = slices.Delete(from.rules, index[0], index[0]+1)
		return sureOf(from)
	}
	for _, i := range index {
		from.rules[i] = from.rules[i].doubted(mayGo)
	}
	if !certain {
		s.lost(at, "whether a rule of chain %s is the same cannot be told", from.name)
		return unsure
	}
	return sureOf(from)
}

// check is whether a rule is there.
func (s *ruleset) check(f family, in *chain, c command, at place) outcome {
	if in == nil {
		return failed
	}
	index, certain := in.find(s.newRule(f, at, c.spec))
	switch {
	case in.maybe || len(index) > 0 && !certain || len(index) == 0 && s.wild[f] == wild:
		return unsure
	case certain:
		return done
	}
	return failed
}
