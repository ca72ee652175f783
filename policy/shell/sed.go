// SPDX-License-Identifier: Apache-2.0

package shell

import (
	"slices"
	"strings"
)

// runChecked runs a program that reads and prints, if its arguments say that it
// runs no other.
func runChecked(harmless func(args []Word) bool) runner {
	return func(x *follower, words []Word, st *state, at Place) *state {
		if !harmless(words[1:]) {
			return x.unclear(st, at)
		}
		st.status = Unknown
		st.in = input{}
		st.print("", false)
		return st
	}
}

// maybeOption reports whether a word that is not known may be an option.
func maybeOption(w Word) bool {
	switch {
	case w.Known:
		return false
	case w.many && strings.ContainsAny(w.Text, "$`"):
		return true
	}
	return !strings.HasPrefix(w.Text, "/") && !strings.HasPrefix(w.Text, `"/`)
}

func harmlessSed(args []Word) bool {
	var scripts, operands []Word
	for i := 0; i < len(args); i++ {
		text := args[i].Text
		switch {
		case !args[i].Known:
			if maybeOption(args[i]) {
				return false
			}
			operands = append(operands, args[i])
		case slices.Contains([]string{"--quiet", "--silent", "--regexp-extended", "--separate", "--null-data", "--in-place"}, text), strings.HasPrefix(text, "--in-place="):
		case strings.HasPrefix(text, "--expression="):
			scripts = append(scripts, Word{Text: strings.TrimPrefix(text, "--expression="), Known: true})
		case strings.HasPrefix(text, "--"):
			return false
		case len(text) > 1 && text[0] == '-':
			flags := strings.TrimLeft(text[1:], "nrEsuz")
			switch {
			case flags == "" || flags[0] == 'i':
			case flags[0] == 'e' && len(flags) > 1:
				scripts = append(scripts, Word{Text: flags[1:], Known: true})
			case flags == "e" && i+1 < len(args):
				i++
				scripts = append(scripts, args[i])
			default:
				return false
			}
		default:
			operands = append(operands, args[i])
		}
	}
	if len(scripts) == 0 {
		scripts = operands[:min(1, len(operands))]
	}
	var all []string
	for _, s := range scripts {
		if !s.Known {
			return false
		}
		all = append(all, s.Text)
	}
	return harmlessSedScript(strings.Join(all, "\n"))
}

// harmlessSedScript reports whether it is known what all commands of a script of
// sed are, and that none of them runs a program.
func harmlessSedScript(s string) bool {
	for {
		s = strings.TrimLeft(s, " \t\n;")
		if s == "" {
			return true
		}
		var ok bool
		if s, ok = behindAddress(s); !ok {
			return false
		}
		if after, more := strings.CutPrefix(s, ","); more {
			if s, ok = behindAddress(strings.TrimLeft(after, " \t+~")); !ok {
				return false
			}
		}
		if s = strings.TrimLeft(s, " \t!"); s == "" {
			return false
		}
		command := s[0]
		s = s[1:]
		switch {
		case strings.IndexByte("{}=dDgGhHnNpPxz", command) >= 0:
		case strings.IndexByte("qQl", command) >= 0:
			s = strings.TrimLeft(s, " \t0123456789")
		case strings.IndexByte("#:btTrRwW", command) >= 0:
			if strings.IndexByte("btT", command) >= 0 {
				if end := strings.IndexAny(s, ";}\n"); end >= 0 {
					s = s[end:]
					continue
				}
			}
			_, s, _ = strings.Cut(s, "\n")
		case strings.IndexByte("aic", command) >= 0:
			if strings.Contains(s, "\n") {
				return false
			}
			return true
		case command == 's' || command == 'y':
			if s == "" || s[0] == '\n' || s[0] == '\\' {
				return false
			}
			delimiter := s[0]
			s = s[1:]
			for i := range 2 {
				if s, ok = behindDelimiter(s, delimiter, command == 's' && i == 0); !ok {
					return false
				}
			}
			if command == 's' {
				s = strings.TrimLeft(s, "gpiImM0123456789")
				if strings.HasPrefix(s, "w") {
					_, s, _ = strings.Cut(s, "\n")
					s = "\n" + s
				}
			}
		default:
			return false
		}
		if strings.IndexByte("{#:rRwW", command) >= 0 {
			continue
		}
		if s = strings.TrimLeft(s, " \t"); s != "" && strings.IndexByte(";\n}#", s[0]) < 0 {
			return false
		}
	}
}

// behindAddress leaves out a number, $ or a pattern.
func behindAddress(s string) (string, bool) {
	switch {
	case s == "":
		return "", false
	case s[0] == '$':
		return strings.TrimLeft(s[1:], " \t"), true
	case s[0] >= '0' && s[0] <= '9':
		return strings.TrimLeft(s, "0123456789~ \t"), true
	case s[0] == '/' || s[0] == '\\' && len(s) > 1:
		delimiter := byte('/')
		if s[0] == '\\' {
			delimiter, s = s[1], s[1:]
		}
		s, ok := behindDelimiter(s[1:], delimiter, true)
		return strings.TrimLeft(s, "IM \t"), ok
	}
	return s, true
}

// behindDelimiter leaves out a pattern, in whose brackets the delimiter is a
// character like others, or what it is replaced by.
func behindDelimiter(s string, delimiter byte, pattern bool) (string, bool) {
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '\\':
			i++
		case s[i] == delimiter:
			return s[i+1:], true
		case s[i] == '[' && pattern:
			n := behindBracket(s[i:])
			if n == 0 {
				return "", false
			}
			i += n - 1
		}
	}
	return "", false
}

// behindBracket is how long a bracket expression is, or 0 if that depends on who reads it.
func behindBracket(s string) int {
	i := 1
	if strings.HasPrefix(s[i:], "^") {
		i++
	}
	if strings.HasPrefix(s[i:], "]") {
		i++
	}
	for ; i < len(s); i++ {
		switch {
		case s[i] == ']':
			return i + 1
		case s[i] == '\\' && strings.HasPrefix(s[i+1:], "]"), s[i] == '\n':
			return 0
		case s[i] == '[' && i+1 < len(s) && strings.IndexByte(":.=", s[i+1]) >= 0:
			end := strings.Index(s[i+2:], s[i+1:i+2]+"]")
			if end < 0 {
				return 0
			}
			i += 2 + end + 1
		}
	}
	return 0
}

func harmlessTar(args []Word) bool {
	for i, w := range args {
		text := w.Text
		switch {
		case maybeOption(w):
			return false
		case !w.Known:
		case strings.HasPrefix(text, "--"):
			name, _, _ := strings.Cut(text, "=")
			if !slices.Contains([]string{"--", "--create", "--extract", "--list", "--file", "--gzip", "--bzip2", "--xz", "--verbose", "--directory",
				"--exclude", "--strip-components", "--numeric-owner", "--same-owner", "--preserve-permissions", "--overwrite", "--absolute-names"}, name) {
				return false
			}
		case (i == 0 || strings.HasPrefix(text, "-")) && strings.ContainsAny(text, "IF"):
			return false
		}
	}
	return true
}

func harmlessSort(args []Word) bool {
	return !slices.ContainsFunc(args, func(w Word) bool { return maybeOption(w) || strings.HasPrefix(w.Text, "--co") })
}
