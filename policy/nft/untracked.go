// SPDX-License-Identifier: Apache-2.0

package nft

import "slices"

// untracked are matches of a rule that keeps packets from connection tracking.
type untracked struct {
	table   *table
	matches []statement
}

// findUntracked finds the rules with notrack that what comes in gets to. What
// leads there may be for fewer packets.
func (l *lowering) findUntracked(tables []*table) {
	for _, t := range tables {
		for _, c := range t.chains {
			if !c.isBase || c.hook != "prerouting" {
				continue
			}
			for _, of := range t.reachable(c) {
				for _, r := range of.rules {
					if i := slices.IndexFunc(r.statements, func(s statement) bool { return s.text == "notrack" }); i >= 0 {
						l.untracked = append(l.untracked, untracked{t, t.matches(r.statements[:i])})
					}
				}
			}
		}
	}
}

// matches are those among statements, with named sets as they are.
func (t *table) matches(of []statement) (out []statement) {
	for _, s := range of {
		switch s.kind {
		case isMatch:
			if list, changing, ok := t.members(s.right); s.right.kind == isSetName && ok && changing == "" {
				s.right = expr{kind: isSet, elements: list}
			} else if s.right.kind == isSetName {
				s = statement{kind: isUnknown, text: s.String()}
			}
			out = append(out, s)
		case isUnknown, isLimit, isCount:
			out = append(out, s)
		}
	}
	return out
}

// dropUntracked appends what a rule that asks for their state drops of packets
// that are not tracked. To the rules of iptables these are new.
func (c *copied) dropUntracked(r *rule, into string) {
	for i, s := range r.statements {
		if len(c.untracked) == 0 || into == "OUTPUT" || s.left.kind != isField || s.left.text != "ct state" || !c.table.takesUntracked(s, r.statements[i+1:]) {
			continue
		}
		for _, u := range c.untracked {
			if !u.table.isOf(c.family) {
				continue
			}
			one := &rule{at: r.at, statements: slices.Concat(u.matches, r.statements[:i], c.table.matches(r.statements[i+1:]))}
			one.statements = append(one.statements, statement{kind: isVerdict, verdict: verdict{name: "drop"}})
			c.ruleOf(one, into)
		}
	}
}

// takesUntracked reports whether a statement about the state matches what is not
// tracked, and what comes of it may drop.
func (t *table) takesUntracked(s statement, behind []statement) bool {
	isIt := func(e expr) bool { return e.text == "untracked" }
	switch s.kind {
	case isMatch:
		values := flat(s.right)
		if list, _, ok := t.members(s.right); ok {
			values = mapped(list, func(el element) expr { return el.key })
		}
		not := s.op == "!=" || s.op == "!"
		return slices.ContainsFunc(values, isIt) != not && t.leadsToDrop(behind)
	case isVerdictMap:
		list, _, _ := t.members(s.right)
		i := slices.IndexFunc(list, func(el element) bool { return isIt(el.key) || el.key.kind == isAny })
		return i >= 0 && list[i].value != nil && t.leadsToDrop([]statement{{kind: isVerdict, verdict: *list[i].value}})
	}
	return false
}

// leadsToDrop reports whether statements have a verdict that may drop, or lead to
// a chain with one.
func (t *table) leadsToDrop(of []statement) bool {
	r := &rule{statements: of}
	if t.mayDrop(r) {
		return true
	}
	for _, name := range t.targets(&chain{rules: []*rule{r}}) {
		c := t.chain(name)
		if c == nil || slices.ContainsFunc(t.reachable(c), func(c *chain) bool { return slices.ContainsFunc(c.rules, t.mayDrop) }) {
			return true
		}
	}
	return false
}
