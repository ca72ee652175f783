// SPDX-License-Identifier: Apache-2.0

package shell

import (
	"strings"
)

// read reads a line into variables.
func (x *follower) read(args []Word, st *state, at Place) {
	raw, certain, array := false, true, ""
	var names []string
	for i := 0; i < len(args); i++ {
		text := args[i].Text
		switch {
		case !args[i].Known:
			x.giveUp(st, at, "what this sets cannot be told: "+hint)
			return
		case len(names) == 0 && len(text) > 1 && text[0] == '-':
			for j, c := range text[1:] {
				takes := strings.ContainsRune("adinNptu", c)
				argument := text[j+2:]
				if takes && argument == "" && i+1 < len(args) {
					i++
					argument = args[i].Text
					certain = certain && args[i].Known
				}
				switch c {
				case 'r':
					raw = true
				case 'p':
				case 's', 'e':
					certain = certain && !x.posix
				case 'a':
					array = argument
				default:
					certain = false
				}
				if takes {
					break
				}
			}
		default:
			if !isName(text) {
				x.giveUp(st, at, "what this sets cannot be told: "+hint)
				return
			}
			names = append(names, text)
		}
	}
	line, ended, known := st.nextLine()
	if !certain {
		st.in = input{}
	}
	known = known && certain && (raw || !strings.Contains(line, `\`))
	switch {
	case !known:
		st.status = Unknown
	case ended:
		st.status = OK
	default:
		st.status = 1 // the end of the file
	}
	if array != "" {
		if v := st.vars[array]; v.readonly {
			x.assign(st, array, Text{}, at)
			return
		}
		st.vars[array] = variable{}
		return
	}
	if len(names) == 0 {
		x.assign(st, "REPLY", Text{line, known}, at)
		return
	}
	separators, sure := st.separators()
	if strings.Trim(separators, " \t\n") != "" {
		// What becomes of separators at the end, and of blanks beside them, is not followed.
		mixed := strings.ContainsAny(separators, " \t\n")
		sure = sure && !(mixed && strings.ContainsAny(line, separators)) && !strings.ContainsAny(line[max(0, len(line)-1):], separators)
	}
	rest := line
	for i, name := range names {
		rest = strings.Trim(rest, keepOnly(separators, " \t\n"))
		value := rest
		if i < len(names)-1 {
			value, rest = cutField(rest, separators)
		}
		x.assign(st, name, Text{value, known && sure}, at)
	}
}

func keepOnly(text, of string) string {
	return strings.Map(func(c rune) rune {
		if strings.ContainsRune(of, c) {
			return c
		}
		return -1
	}, text)
}

func cutField(text, separators string) (field, rest string) {
	if i := strings.IndexAny(text, separators); i >= 0 {
		return text[:i], text[i+1:]
	}
	return text, ""
}

// nextLine takes a line from the standard input, and reports whether a newline
// has ended it.
func (st *state) nextLine() (line string, ended, known bool) {
	if !st.in.Known {
		return "", false, false
	}
	line, rest, ended := strings.Cut(st.in.Text.Text, "\n")
	st.in.Text.Text = rest
	return line, ended, true
}

// mapfile reads all lines into a list.
func (x *follower) mapfile(args []Word, st *state, at Place) {
	name, trim, certain := "MAPFILE", false, true
	for i, w := range args {
		switch {
		case !w.Known:
			x.giveUp(st, at, "what this sets cannot be told: "+hint)
			return
		case w.Text == "-t":
			trim = true
		case strings.HasPrefix(w.Text, "-"):
			certain = false
		case i == len(args)-1 && isName(w.Text):
			name = w.Text
		default:
			certain = false
		}
	}
	if !isName(name) || st.vars[name].readonly {
		x.assign(st, name, Text{}, at)
		return
	}
	list := make(map[int]string)
	known := st.in.Known && certain && trim && !st.vars[name].odd
	for text := st.in.Text.Text; text != ""; {
		var line string
		line, text, _ = strings.Cut(text, "\n")
		list[len(list)] = line
	}
	st.in = input{}
	if !known {
		st.vars[name] = variable{}
		return
	}
	st.vars[name] = variable{known: true, set: len(list) > 0, isList: true, list: list}
}

// printf prints, or sets a variable.
func (x *follower) printf(args []Word, st *state, at Place) {
	to := ""
	if len(args) > 1 && args[0].Known && args[0].Text == "-v" {
		if !args[1].Known || !isName(args[1].Text) || x.posix {
			x.giveUp(st, at, "what this sets cannot be told: "+hint)
			return
		}
		to, args = args[1].Text, args[2:]
	}
	if len(args) > 0 && args[0].Known && args[0].Text == "--" {
		args = args[1:]
	}
	text, ok := format(args)
	if to != "" {
		x.assign(st, to, Text{text, ok}, at)
		return
	}
	st.print(text, ok)
}

// format is what printf makes of its arguments.
func format(args []Word) (string, bool) {
	if len(args) == 0 || !known(args) {
		return "", false
	}
	spec, rest := args[0].Text, textsOf(args[1:])
	var b strings.Builder
	for round := 0; round == 0 || len(rest) > 0; round++ {
		used := false
		for i := 0; i < len(spec); i++ {
			switch {
			case spec[i] == '\\' && i+1 < len(spec) && strings.IndexByte(`nt\`, spec[i+1]) >= 0:
				i++
				b.WriteByte(map[byte]byte{'n': '\n', 't': '\t', '\\': '\\'}[spec[i]])
			case spec[i] == '\\':
				return "", false
			case spec[i] != '%':
				b.WriteByte(spec[i])
			case i+1 < len(spec) && spec[i+1] == '%':
				i++
				b.WriteByte('%')
			case i+1 < len(spec) && (spec[i+1] == 's' || spec[i+1] == 'd'):
				i++
				value := ""
				if len(rest) > 0 {
					value, rest = rest[0], rest[1:]
				} else if spec[i] == 'd' {
					value = "0"
				}
				if _, ok := number(value); spec[i] == 'd' && !ok {
					return "", false
				}
				b.WriteString(value)
				used = true
			default:
				return "", false
			}
		}
		if !used {
			break
		}
		if b.Len() > maxText {
			return "", false
		}
	}
	return b.String(), true
}
