// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/portcullis-firewall/portcullis/policy/addrset"
)

// List is networks that rules may name as @NAME. Treat it as immutable.
type List struct {
	Name     string
	Networks []netip.Prefix // each once
	// File is the file that the networks come from, as the policy file names it,
	// and "" for a list in the policy file itself. Path is where that file is.
	File, Path string
	// URL is where the networks come from, so often, of a list that is fetched.
	URL   string
	Every time.Duration
	// Admits reports whether a rule or trust names the list: a line more or less may let somebody in.
	Admits bool
	// Missing says why nobody knows what the list holds, which then has no networks; "" where it is known.
	Missing string
	// Skipped are lines of a text that are no networks, and are left out: of a list that only block and trust name.
	Skipped []*Error

	broken bool // an error in it has been reported, or will be
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
		if missing := in.lists[i].Missing; missing != "" {
			return List{}, w.errorf("list %s is not known yet: %s; \"portcullis run\" fetches it", quote(name), missing)
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
