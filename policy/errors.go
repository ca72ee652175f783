// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// ErrNotOpen is returned for a rule that is to be removed while nothing of it
// is open. To close what is closed is no mistake of the user's: a caller tells
// it apart with errors.Is.
var ErrNotOpen = errors.New("not open")

// ErrTooManySets is returned by [Compile] for rules whose restricted ports
// overlap in more ways than the datapath can number.
var ErrTooManySets = errors.New("too many combinations of restricted rules")

// RuleError says what is wrong with the text of one rule.
type RuleError struct {
	Offset int    // where the offending text starts, in bytes
	Token  string // the offending text
	Msg    string // the whole message, offending text and remedy included

	reported bool // what causes it has been reported already
}

func (e *RuleError) Error() string { return e.Msg }

// CoveredError refuses to remove a rule that is not there as written while its
// ports are open through other rules. It is no [ErrNotOpen].
type CoveredError struct {
	Rule Rule   // what was to be closed
	By   []Rule // what keeps it open
	hint string
}

func (e *CoveredError) Error() string {
	return fmt.Sprintf("no %s %s, but its ports are open through %s: %s", e.Rule.noun(), quote(e.Rule.String()), quoteRules(e.By), e.hint)
}

// Error is one problem in a policy file. [Parse] returns all of them, joined.
type Error struct {
	File         string
	Line, Column int // from 1; columns count characters
	Msg          string
	Err          error // the error of the part, if it has one of its own
}

func (e *Error) Error() string {
	return fmt.Sprintf("%s:%d:%d: %s", e.File, e.Line, e.Column, e.Msg)
}

func (e *Error) Unwrap() error { return e.Err }

// joinErrors joins the errors of a policy file and, behind them, of the files of
// lists.
func joinErrors(file string, list []*Error) error {
	if len(list) == 0 {
		return nil
	}
	rank := func(e *Error) int {
		if e.File == file {
			return 0
		}
		return 1
	}
	slices.SortStableFunc(list, func(a, b *Error) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	errs := make([]error, len(list))
	for i, e := range list {
		errs[i] = e
	}
	return errors.Join(errs...)
}

// quote quotes text of a user for a message, and cuts what would fill a screen.
func quote(text string) string {
	const most = 60
	if r := []rune(text); len(r) > most {
		text = string(r[:most]) + "..."
	}
	return strconv.Quote(text)
}

// quoteRules quotes rules for a sentence, and only counts those that are too
// many for one.
func quoteRules(rules []Rule) string {
	const most = 5
	var names []string
	for _, r := range rules[:min(len(rules), most)] {
		names = append(names, quote(r.String()))
	}
	if more := len(rules) - len(names); more > 0 {
		names = append(names, fmt.Sprintf("%d more", more))
	}
	return joinWords(names, "and")
}

// joinWords writes a list as a sentence does: a, b or c.
func joinWords(words []string, last string) string {
	switch n := len(words); n {
	case 0:
		return ""
	case 1:
		return words[0]
	default:
		return strings.Join(words[:n-1], ", ") + " " + last + " " + words[n-1]
	}
}
