// SPDX-License-Identifier: Apache-2.0

package iptables

import (
	"cmp"
	"iter"
	"slices"
	"strings"
)

// readSave reads what iptables-save prints, which is also how ufw keeps its
// rules. As iptables-restore does, it lets a table take the place of the one
// that was there.
func (s *ruleset) readSave(f family, file string, firstLine int, text string) {
	s.load(f, file, firstLine, text, "", false)
}

// load reads rules, which are in a table of their own or else in the one that
// is named. A table takes the place of the former one, unless it is to add to
// it, as iptables-restore -n does.
func (s *ruleset) load(f family, file string, firstLine int, text, table string, adds bool) {
	committed := committedTables(text)
	var open place // of the filter table, if it is never committed
	refused := false
	defer func() { s.from[f], s.guessed[f] = file, s.guessing }()
	if table == "filter" && s.filled[f] && !adds {
		s.replace(f, place{file: file})
	}
	for i, l := range savedLines(text) {
		at := place{file, firstLine + i, l.text}
		switch {
		case l.begins:
			s.told[f] = true
			refused = l.table == "filter" && s.filled[f] && !adds && !committed[i]
			switch {
			case refused:
				s.lost(at, "the table ends without COMMIT, so iptables-restore refuses it, and the one before it for %s counts", f)
				continue
			case l.table != "filter":
				continue
			}
			if s.filled[f] && !adds {
				s.replace(f, at)
			}
			if s.filled[f] = true; !committed[i] {
				open = at
			}
		case refused:
		case l.table == "" && table == "":
			s.lost(at, "not understood: it is in no table")
		case l.text[0] == ':':
			s.declare(f, l.table, l.text[1:], at)
		default:
			s.saved(f, cmp.Or(l.table, table), l.text, at)
		}
	}
	if table == "filter" {
		s.filled[f] = true
	}
	if open.line > 0 {
		s.cutOff(f, open)
	}
}

// filterTables are those of a save, as iptables-restore reads them; "" if it would refuse them.
func filterTables(text string) string {
	committed := committedTables(text)
	var b strings.Builder
	open := false
	for i, l := range savedLines(text) {
		switch {
		case l.begins && !committed[i]:
			return ""
		case l.begins:
			if open {
				b.WriteString("COMMIT\n")
			}
			open = l.table == "filter"
		}
		if open && l.table == "filter" {
			b.WriteString(l.text + "\n")
		}
	}
	if open {
		b.WriteString("COMMIT\n")
	}
	return b.String()
}

// replace forgets the filter table, of which another one takes the place.
func (s *ruleset) replace(f family, at place) {
	s.chains[f] = newChains()
	if at.file != s.from[f] && s.from[f] != "" && (s.guessing || s.guessed[f]) {
		s.lost(place{file: at.file}, "the rules of %s and of %s are both taken for %s, so only the last count: write -4 FILE and -6 FILE to say which is which", s.from[f], at.file, f)
		return
	}
	s.noteReplaced(f, at)
}

func (s *ruleset) noteReplaced(f family, at place) {
	s.note(at, "this table takes the place of the one for %s before it, as iptables-restore does it: only the last one counts", f)
}

// cutOff is for a table without an end: more rules may belong to it.
func (s *ruleset) cutOff(f family, at place) {
	s.lost(at, "the table ends without COMMIT, so iptables-restore refuses it, and the file may be cut off: what rules behind its end could drop is not opened")
	for _, c := range s.chains[f] {
		if !c.isUsers() {
			if c.name != "OUTPUT" {
				c.policy, c.policyAt = "DROP", at
			}
			continue
		}
		r := &rule{place: at, home: f, chain: c.name, target: "DROP"}
		r.doubt("a file that is cut off")
		c.rules = append(c.rules, r)
	}
}

// committedTables are the lines at which tables begin that are committed, by
// their index.
func committedTables(text string) map[int]bool {
	out := make(map[int]bool)
	began := -1
	for i, line := range strings.Split(text, "\n") {
		switch line = strings.TrimSpace(line); {
		case strings.HasPrefix(line, "*"):
			began = i
		case line == "COMMIT" && began >= 0:
			out[began] = true
			began = -1
		}
	}
	return out
}

// savedLine is one line that iptables-save prints, and the table that it is in.
type savedLine struct {
	table, text string
	begins      bool // a table; else it declares a chain or is a command
}

// savedLines yields the lines that say something, each with its index.
func savedLines(text string) iter.Seq2[int, savedLine] {
	return func(yield func(int, savedLine) bool) {
		table := ""
		for i, line := range strings.Split(text, "\n") {
			line = strings.TrimSpace(line)
			begins := strings.HasPrefix(line, "*")
			switch {
			case line == "" || line[0] == '#':
				continue
			case line == "COMMIT":
				table = ""
				continue
			case begins:
				table = strings.TrimSpace(line[1:])
			}
			if !yield(i, savedLine{table, line, begins}) {
				return
			}
		}
	}
}

// declare reads :CHAIN POLICY [packets:bytes].
func (s *ruleset) declare(f family, table, text string, at place) {
	name, verdict, ok := declared(text)
	if table != "filter" {
		if ok && verdict == "DROP" {
			s.policyElsewhere(table, name, at)
		}
		return
	}
	if !ok {
		s.lost(at, "not understood")
		return
	}
	c := s.chains[f][name]
	if c == nil {
		c = &chain{name: name}
		s.chains[f][name] = c
	}
	if verdict != "" {
		c.policy, c.policyAt = verdict, at
	}
}

// declared reads CHAIN POLICY; a chain of users has no policy.
func declared(text string) (name, verdict string, ok bool) {
	fields := strings.Fields(text)
	if len(fields) == 0 {
		return "", "", false
	}
	if len(fields) > 1 && (fields[1] == "ACCEPT" || fields[1] == "DROP") {
		verdict = fields[1]
	}
	return fields[0], verdict, true
}

func (s *ruleset) saved(f family, table, line string, at place) {
	c := parseSaved(line)
	if c.table == "filter" {
		c.table = table
	}
	if c.bad == "" && c.table == "filter" {
		switch {
		case c.verb == "" && slices.ContainsFunc(c.spec, func(w word) bool { return slices.Contains(deciding, w.text) }):
			c.verb, c.bad = "A", "what it does is not understood"
		case strings.Contains("AIR", c.verb) && slices.Contains(builtin, strings.ToUpper(c.chain)) && s.chains[f][c.chain] == nil:
			c.bad = "the chain is not there"
		}
	}
	s.apply(f, c, at)
}

// deciding are words of a line that may be about a verdict.
var deciding = []string{"-j", "-g", "--jump", "--goto", "DROP", "REJECT"}

// parseSaved reads a line that is a command.
func parseSaved(line string) command {
	words, quoted, ok := splitQuoted(line)
	if len(words) > 0 && strings.HasPrefix(words[0].text, "[") {
		words, quoted = words[1:], quoted[1:] // counters
	}
	words, glued := apart(words, quoted)
	c := parseCommand(words)
	if glued {
		c.doubt = "a target that is written without a blank, which some versions of iptables refuse"
	}
	if !ok {
		c.bad = "the quotes are not closed"
	}
	return c
}

// apart separates what is written without a blank, but for what is quoted or a comment. It reports whether a target is.
func apart(words []word, quoted []bool) (out []word, target bool) {
	for i, w := range words {
		if i == 0 && strings.HasPrefix(w.text, "--") {
			out = append(out, verbApart(w)...)
			continue
		}
		if quoted[i] || i > 0 && slices.Contains(verbatim, words[i-1].text) {
			out = append(out, w)
			continue
		}
		parts, glued := unglued([]word{w})
		out, target = append(out, parts...), target || glued
	}
	return out, target
}

// verbApart is for --append=INPUT, and for --app, as the options of a command may be short of letters.
func verbApart(w word) []word {
	option, value, glued := strings.Cut(w.text, "=")
	if verbs()[option] == "" {
		var full []string
		for name := range verbs() {
			if len(option) > 4 && strings.HasPrefix(name, option) {
				full = append(full, name)
			}
		}
		if len(full) != 1 {
			return []word{w}
		}
		option = full[0]
	}
	if glued {
		return wordsOf(option, value)
	}
	return wordsOf(option)
}

// splitSaved splits a line as iptables-restore does: at blanks, but not between
// quotes, where a backslash keeps what follows.
func splitSaved(line string) (words []word, closed bool) {
	words, _, closed = splitQuoted(line)
	return words, closed
}

// splitQuoted says of each word, too, whether it has quotes.
func splitQuoted(line string) (words []word, quoted []bool, closed bool) {
	var b strings.Builder
	var quote rune
	inWord, escaped, quotes := false, false, false
	end := func() {
		if inWord {
			words, quoted = append(words, word{text: b.String()}), append(quoted, quotes)
			b.Reset()
		}
		inWord, quotes = false, false
	}
	for _, c := range line {
		switch {
		case escaped:
			b.WriteRune(c)
			escaped = false
		case quote != 0 && c == '\\':
			escaped = true
		case quote != 0 && c == quote:
			quote = 0
		case quote != 0:
			b.WriteRune(c)
		case c == '"' || c == '\'':
			quote, inWord, quotes = c, true, true
		case c == ' ' || c == '\t':
			end()
		default:
			b.WriteRune(c)
			inWord = true
		}
	}
	end()
	return words, quoted, quote == 0 && !escaped
}
