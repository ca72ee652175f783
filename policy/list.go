// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/portcullis-firewall/portcullis/policy/addrset"
)

// List is networks that rules may name as @NAME. Treat it as immutable.
type List struct {
	Name     string
	Networks []netip.Prefix // each once
	// File is the file that the networks come from, as the policy file names it,
	// and "" for a list in the policy file itself. Path is where that file is.
	File, Path string

	broken bool // an error in it has been reported
}

// Text returns the networks as the text of a list file.
func (l List) Text() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "# %s: %d networks\n", l.Name, len(l.Networks))
	for _, p := range l.Networks {
		b.WriteString(PrefixText(p))
		b.WriteByte('\n')
	}
	return b.Bytes()
}

// ListsOf returns the lists that rules name, as the rules hold them: those that
// a clause names alone.
func ListsOf(rules []Rule) []List {
	var out []List
	for _, r := range rules {
		for _, clause := range []struct {
			text     string
			networks []netip.Prefix
		}{{r.lists.from, r.From}, {r.lists.except, r.Except}, {r.lists.to, r.To}} {
			name, ok := strings.CutPrefix(clause.text, listMark)
			if ok && validListName(name) && !slices.ContainsFunc(out, func(l List) bool { return l.Name == name }) {
				out = append(out, List{Name: name, Networks: clause.networks})
			}
		}
	}
	return out
}

// SpellStale returns the rule with addresses in the place of the names of lists
// that hold others now, or are gone, and reports whether there are any.
func (r Rule) SpellStale(lists []List) (_ Rule, stale bool) {
	in := ruleParser{lists: lists}
	for _, clause := range []struct {
		keyword  string
		text     *string
		networks []netip.Prefix
	}{{"from", &r.lists.from, r.From}, {"except", &r.lists.except, r.Except}, {"to", &r.lists.to, r.To}} {
		if *clause.text == "" {
			continue
		}
		now, _, bad := in.parseAddresses(clause.keyword, word{text: *clause.text})
		if bad != nil || !slices.Equal(addrset.Of(now), addrset.Of(clause.networks)) {
			*clause.text, stale = "", true
		}
	}
	return r, stale
}

// list returns the list that a rule names.
func (in ruleParser) list(w word, name string) (List, *RuleError) {
	if i := slices.IndexFunc(in.lists, func(l List) bool { return l.Name == name }); i >= 0 {
		if in.lists[i].broken {
			bad := w.errorf("list %s has an error", quote(name))
			bad.reported = true
			return List{}, bad
		}
		return in.lists[i], nil
	}
	known := make([]string, len(in.lists))
	for i, l := range in.lists {
		known[i] = listMark + l.Name
	}
	otherwise := "name it and its networks under lists in the policy file"
	if len(known) > 0 {
		const most = 5
		otherwise += ", where there are " + joinWords(known[:min(len(known), most)], "and")
		if more := len(known) - most; more > 0 {
			otherwise += fmt.Sprintf(" and %d more", more)
		}
	}
	return List{}, w.errorf("unknown list %s: %s", quote(w.text), didYouMean(w.text, known, otherwise))
}

// validListName keeps names out that a rule or a file would read as something
// else.
func validListName(name string) bool {
	for i, c := range []byte(name) {
		letter := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || c == '_'
		if !letter && (i == 0 || (c < '0' || c > '9') && c != '-' && c != '.') {
			return false
		}
	}
	return name != "" && len(name) <= maxListName
}

const maxListName = 60

// maxListErrors is how many errors of one list file are told: a file of another
// kind has one in each line.
const maxListErrors = 10

// ParseList reads the text of a list file: an address or a network a line, and
// comments after #. path is for messages only. It returns all problems joined,
// each an [*Error].
func ParseList(path string, data []byte) ([]netip.Prefix, error) {
	networks, problems := parseList(path, data)
	if err := joinErrors(path, problems); err != nil {
		return nil, err
	}
	return networks, nil
}

func parseList(path string, data []byte) (networks []netip.Prefix, problems []*Error) {
	count := 0
	report := func(line, column int, format string, args ...any) {
		if count++; count <= maxListErrors {
			problems = append(problems, &Error{File: path, Line: line, Column: column, Msg: fmt.Sprintf(format, args...)})
		}
	}
	data = bytes.TrimPrefix(data, []byte("\ufeff")) // the mark that some editors put before UTF-8
	if len(data) == 0 {
		report(1, 1, "nothing in the file, as if it had been cut off: write networks, or a comment alone for none")
	}
	set := newPrefixSet(bytes.Count(data, []byte("\n")))
	number := 0
	for len(data) > 0 {
		number++
		line, rest, complete := bytes.Cut(data, []byte("\n"))
		data = rest
		text, _, _ := strings.Cut(string(line), "#")
		item := word{text: text}.trim()
		column := utf8.RuneCountInString(text[:item.offset]) + 1
		switch {
		case item.text == "":
			continue
		case !complete && !bytes.ContainsRune(line, '#'):
			report(number, column, "no newline after %s, as if the file had been cut off: add one", quote(item.text))
			continue
		case strings.HasPrefix(item.text, listMark):
			report(number, column, "list %s in a list: write its networks", quote(item.text))
			continue
		case strings.ContainsAny(item.text, blanks+","):
			report(number, column, "more than one address in %s: write one a line", quote(item.text))
			continue
		}
		p, bad := parsePrefix(item)
		if bad != nil {
			report(number, column, "%s", bad.Msg)
			continue
		}
		if set.add(p); len(set.prefixes) > maxSources {
			report(number, 1, "more than %d networks: a filter has no room for them, join them to larger ones", maxSources)
			break
		}
	}
	if more := count - len(problems); more > 0 {
		problems = append(problems, &Error{File: path, Line: number, Column: 1, Msg: fmt.Sprintf("%d more errors like these", more)})
	}
	return set.prefixes, problems
}
