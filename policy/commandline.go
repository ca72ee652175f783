// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// ParseRules reads the rules of a command line. A rule may be one argument or
// several words; of equal rules the first counts.
//
// Words do not tell whether "8080/tcp 9090/tcp from 10.0.0.0/8" restricts one
// port or two, so that is an error: who means 8080/tcp for everybody must not
// be understood otherwise, nor the other way round.
func ParseRules(words []string) ([]Rule, error) { return Names{}.ParseRules(words) }

// ParseRules reads the rules of a command line as the function [ParseRules]
// does, with the names that n has.
func (n Names) ParseRules(words []string) ([]Rule, error) {
	var rules []Rule
	var errs []error
	var bare []string // rules without clauses, which the next clause may be meant for
	before := ""
	for _, a := range joinArguments(words) {
		if before != "" && strings.EqualFold(a.text, "out") { // no service, but what iptables calls the way out
			_, err := n.ParseRule(before + " " + a.text)
			return nil, errors.Join(append(errs, err)...)
		}
		before = a.text
		if a.looseClause && len(bare) > 0 {
			errs = append(errs, ambiguousClause(bare, a))
		}
		r, err := n.ParseRule(a.text)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if !slices.ContainsFunc(rules, r.Equal) {
			rules = append(rules, r)
		}
		if r.hasClauses() {
			bare = nil
		} else {
			bare = append(bare, a.text)
		}
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return rules, nil
}

// NamesList reports whether the words of a command line name a list, so that
// it takes [Names] to read them.
func NamesList(words []string) bool {
	return slices.ContainsFunc(words, func(word string) bool { return strings.Contains(word, listMark) })
}

// argument is one rule of a command line.
type argument struct {
	text        string
	what        string // the part before a clause that begins with a word of its own
	looseClause bool
}

func joinArguments(words []string) []argument {
	var out []argument
	for _, w := range words {
		if len(out) > 0 {
			last := &out[len(out)-1]
			clause := startsClause(w)
			if clause || strings.HasPrefix(w, ",") || isUnfinished(last.text) {
				if clause && !last.looseClause {
					last.what, last.looseClause = last.text, true
				}
				last.text += " " + w
				continue
			}
		}
		out = append(out, argument{text: w})
	}
	return out
}

func startsClause(text string) bool {
	fields := strings.Fields(text)
	return len(fields) > 0 && isClauseWord(fields[0])
}

// isUnfinished reports whether a rule needs the next word.
func isUnfinished(text string) bool {
	fields := strings.Fields(text)
	if len(fields) == 0 {
		return false
	}
	last := fields[len(fields)-1]
	return isClauseWord(last) || strings.HasSuffix(last, ",")
}

// ClauseWords returns the words that may begin the next clause of the last rule
// of a command line.
func ClauseWords(words []string) []string {
	last := ""
	for _, a := range joinArguments(words) {
		last = a.text
	}
	fields := strings.Fields(strings.ToLower(last))
	var out []string
	for _, word := range clauseWords {
		if !slices.Contains(fields, word) {
			out = append(out, word)
		}
	}
	if n := len(fields); n > 1 && fields[n-2] == "limit" {
		out = append(out, burstWord)
	}
	return out
}

// ambiguousClause shows both of what may be meant.
func ambiguousClause(bare []string, a argument) error {
	const most = 3 // shows the idea
	if len(bare) > most {
		bare = bare[len(bare)-most:]
	}
	clause := strings.TrimSpace(strings.TrimPrefix(a.text, a.what))
	var one, all []string
	for _, text := range bare {
		one = append(one, quote(text))
		all = append(all, quote(text+" "+clause))
	}
	whole := quote(a.what + " " + clause)
	return fmt.Errorf("%s may be meant for %s alone or for %s too: quote each rule, as %s %s, or %s %s",
		quote(clause), quote(a.what), joinWords(one, "and"), strings.Join(one, " "), whole, strings.Join(all, " "), whole)
}
