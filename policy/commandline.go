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
func ParseRules(words []string) ([]Rule, error) {
	var rules []Rule
	var errs []error
	var bare []string // rules without from, which the next from may be meant for
	for _, a := range joinArguments(words) {
		if a.looseFrom && len(bare) > 0 {
			errs = append(errs, ambiguousFrom(bare, a))
		}
		r, err := ParseRule(a.text)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if !slices.ContainsFunc(rules, r.Equal) {
			rules = append(rules, r)
		}
		if len(r.From) > 0 {
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

// argument is one rule of a command line.
type argument struct {
	text      string
	what      string // the part before a from that is a word of its own
	looseFrom bool
}

func joinArguments(words []string) []argument {
	var out []argument
	for _, w := range words {
		if len(out) > 0 {
			last := &out[len(out)-1]
			from := startsWithFrom(w)
			if from || strings.HasPrefix(w, ",") || isUnfinished(last.text) {
				if from && !last.looseFrom {
					last.what, last.looseFrom = last.text, true
				}
				last.text += " " + w
				continue
			}
		}
		out = append(out, argument{text: w})
	}
	return out
}

func startsWithFrom(text string) bool {
	fields := strings.Fields(text)
	return len(fields) > 0 && strings.EqualFold(fields[0], "from")
}

// isUnfinished reports whether a rule needs the next word.
func isUnfinished(text string) bool {
	fields := strings.Fields(text)
	if len(fields) == 0 {
		return false
	}
	last := fields[len(fields)-1]
	return strings.EqualFold(last, "from") || strings.HasSuffix(last, ",")
}

// ambiguousFrom shows both of what may be meant.
func ambiguousFrom(bare []string, a argument) error {
	const most = 3 // shows the idea
	if len(bare) > most {
		bare = bare[len(bare)-most:]
	}
	from := strings.TrimSpace(strings.TrimPrefix(a.text, a.what))
	var one, all []string
	for _, text := range bare {
		one = append(one, quote(text))
		all = append(all, quote(text+" "+from))
	}
	whole := quote(a.what + " " + from)
	return fmt.Errorf("%s may be meant for %s alone or for %s too: quote each rule, as %s %s, or %s %s",
		quote(from), quote(a.what), joinWords(one, "and"), strings.Join(one, " "), whole, strings.Join(all, " "), whole)
}
