// SPDX-License-Identifier: Apache-2.0

package iptables

import (
	"strings"
)

// readSave reads what iptables-save prints, which is also how ufw keeps its
// rules.
func (s *ruleset) readSave(f family, file string, firstLine int, text string) {
	table := ""
	for i, line := range strings.Split(text, "\n") {
		line = strings.TrimSpace(line)
		at := place{file, firstLine + i, line}
		switch {
		case line == "" || line[0] == '#':
		case line[0] == '*':
			table = strings.TrimSpace(line[1:])
			s.told[f] = true
		case line == "COMMIT":
			table = ""
		case table == "":
			s.lost(at, "not understood: it is in no table")
		case line[0] == ':':
			s.declare(f, table, line[1:], at)
		default:
			s.saved(f, table, line, at)
		}
	}
}

// declare reads :CHAIN POLICY [packets:bytes].
func (s *ruleset) declare(f family, table, text string, at place) {
	if table != "filter" {
		return
	}
	fields := strings.Fields(text)
	if len(fields) == 0 {
		s.lost(at, "not understood")
		return
	}
	c := s.chains[f][fields[0]]
	if c == nil {
		c = &chain{name: fields[0]}
		s.chains[f][fields[0]] = c
	}
	if len(fields) > 1 && (fields[1] == "ACCEPT" || fields[1] == "DROP") {
		c.policy, c.policyAt = fields[1], at
	}
}

func (s *ruleset) saved(f family, table, line string, at place) {
	words, ok := splitSaved(line)
	if len(words) > 0 && strings.HasPrefix(words[0].text, "[") {
		words = words[1:] // counters
	}
	c := parseCommand(words)
	if c.table == "filter" {
		c.table = table
	}
	if !ok {
		c.bad = "the quotes are not closed"
	}
	s.apply(f, c, at, false)
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
