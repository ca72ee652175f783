// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"slices"
	"strings"
)

// NoEffectTexts returns sentences about interfaces that rules or settings name although none of those that are
// filtered is one of them, such as a misspelled one. Filtered holds names and patterns.
func (p *Policy) NoEffectTexts(filtered []string) (sentences []string) {
	const most = 3
	var found []noEffect
	place := make(map[string]int) // in found, of each name
	use := func(name string, user func() string, others ...string) {
		i, ok := place[name]
		if !ok {
			i = -1
			if !slices.ContainsFunc(filtered, func(f string) bool { return patternsOverlap(name, f) }) {
				i = len(found)
				found = append(found, noEffect{name: name, user: user(), known: slices.Concat(filtered, others)})
			}
			place[name] = i
		}
		if i >= 0 {
			found[i].users++
		}
	}
	for _, key := range []struct {
		name string
		on   []string
	}{{"input", union(p.InputOn, nil)}, {"icmp", union(p.ICMPOn, nil)}, {"invalid", union(p.InvalidOn, nil)}} {
		for _, name := range key.on {
			use(name, func() string { return quote(key.name) }, defaultWord)
		}
	}
	for _, r := range p.InputRules() { // what is routed may come in by any interface
		for _, name := range r.On {
			use(name, func() string { return quote(r.String()) })
		}
	}
	for _, f := range found[:min(len(found), most)] {
		sentences = append(sentences, f.String())
	}
	if more := len(found) - most; more > 0 {
		sentences = append(sentences, fmt.Sprintf("interfaces that rules or settings name and that are not filtered: %d more", more))
	}
	return sentences
}

// noEffect is a name of interfaces, or a pattern, that stands for none that is filtered.
type noEffect struct {
	name  string
	user  string // a key or a rule that names it
	users int
	known []string // what may have been meant
}

func (n noEffect) String() string {
	subject, have, which := n.user, "has", "which is not filtered"
	if more := n.users - 1; more > 0 {
		subject, have = fmt.Sprintf("%s and %d more", n.user, more), "have"
	}
	if IsPattern(n.name) {
		which = "which matches no filtered interface"
	}
	known := slices.DeleteFunc(n.known, func(k string) bool { return strings.Trim(k, digits) == strings.Trim(n.name, digits) })
	return fmt.Sprintf("%s %s no effect on %s, %s: %s", subject, have, quote(n.name), which,
		didYouMean(n.name, known, `add it to "interfaces", or leave it out`))
}

const digits = "0123456789" // eth1 is no slip of eth0
