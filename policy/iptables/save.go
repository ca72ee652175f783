// SPDX-License-Identifier: Apache-2.0

package iptables

import (
	"cmp"
	"iter"
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
	defer func() { s.from[f], s.guessed[f] = file, s.guessing }()
	if table == "filter" && s.filled[f] && !adds {
		s.replace(f, place{file: file})
	}
	for i, l := range savedLines(text) {
		at := place{file, firstLine + i, l.text}
		switch {
		case l.begins:
			s.told[f] = true
			if l.table != "filter" {
				break
			}
			if s.filled[f] && !adds {
				s.replace(f, at)
			}
			if s.filled[f] = true; !committed[i] {
				open = at
			}
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
	s.apply(f, c, at)
}

// parseSaved reads a line that is a command.
func parseSaved(line string) command {
	words, ok := splitSaved(line)
	if len(words) > 0 && strings.HasPrefix(words[0].text, "[") {
		words = words[1:] // counters
	}
	c := parseCommand(words)
	if !ok {
		c.bad = "the quotes are not closed"
	}
	return c
}

// splitSaved splits a line as iptables-restore does: at blanks, but not between
// quotes, where a backslash keeps what follows.
func splitSaved(line string) (words []word, closed bool) {
	var b strings.Builder
	var quote rune
	inWord, escaped := false, false
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
			quote, inWord = c, true
		case c == ' ' || c == '\t':
			if inWord {
				words = append(words, word{text: b.String()})
				b.Reset()
			}
			inWord = false
		default:
			b.WriteRune(c)
			inWord = true
		}
	}
	if inWord {
		words = append(words, word{text: b.String()})
	}
	return words, quote == 0 && !escaped
}
