// SPDX-License-Identifier: Apache-2.0

package shell

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"mvdan.cc/sh/v3/syntax"
)

// value is what a parameter holds: one text, or all of a list.
type value struct {
	known bool
	set   bool
	text  string
	list  []Word // of $@ and the like
	all   bool
	open  bool // there may be more of the list
	star  bool
	outer bool // the script has not set it: only the environment may have
}

func isPlain(p *syntax.ParamExp) bool {
	return !p.Excl && !p.Length && !p.Width && p.Index == nil && p.Slice == nil && p.Repl == nil && p.Names == 0 && p.Exp == nil
}

// parameter expands $name, and all that can be done to it.
func (x *follower) parameter(p *syntax.ParamExp, st *state, m mode) []piece {
	at := x.place(p)
	if p.Width || p.Names != 0 {
		return []piece{unknownPiece(m)}
	}
	name, index := p.Param.Value, p.Index
	if p.Excl {
		if v, ok := st.vars[name]; ok && v.isList && index != nil && isAll(index) {
			return x.listed(keysOf(v), v.known, m, false)
		}
		v := x.value(name, index, st, at)
		if !v.known || v.all || !isName(v.text) {
			return []piece{unknownPiece(m)}
		}
		name, index = v.text, nil
	}
	v := x.value(name, index, st, at)
	if st.dead {
		return nil
	}
	if st.options.nounset && !v.set && !v.all && !(p.Exp != nil && asksWhetherSet(p.Exp.Op)) {
		if x.missing(st, v, at) {
			return nil
		}
	}
	switch {
	case p.Length:
		return []piece{v.length(m)}
	case p.Slice != nil:
		return x.slice(v, p.Slice, st, m, at)
	case p.Repl != nil:
		return x.replace(v, p.Repl, st, m)
	case p.Exp != nil:
		return x.operate(name, v, p.Exp, st, m, at)
	}
	return x.shown(v, st, m)
}

// unknown is a value that cannot be told, or a list of them.
func (v value) unknown(m mode) []piece {
	p := unknownPiece(m)
	p.many = p.many || v.all
	return []piece{p}
}

// missing ends the shell under set -u for what is not set, or may not be.
func (x *follower) missing(st *state, v value, at Place) (ended bool) {
	if v.known && !st.options.perhaps {
		x.end(st, at)
		return true
	}
	x.leave(st.clone(), at)
	return false
}

// end ends the shell within an expansion.
func (x *follower) end(st *state, at Place) {
	st.status = 1
	x.leave(st, at)
	st.dead = true
}

// shown are the pieces of a value.
func (x *follower) shown(v value, st *state, m mode) []piece {
	switch {
	case v.all:
		if v.star && (m == quoted || m == heredoc) {
			separators, certain := st.separators()
			if v.open || !certain || !known(v.list) {
				return []piece{{unknown: true, quoted: true}}
			}
			if len(separators) > 0 {
				separators = string([]rune(separators)[0])
			}
			return []piece{expanded(strings.Join(textsOf(v.list), separators), m)}
		}
		return x.listed(v.list, !v.open, m, v.open)
	case !v.known:
		return []piece{unknownPiece(m)}
	}
	return []piece{expanded(v.text, m)}
}

func textsOf(words []Word) []string {
	out := make([]string, len(words))
	for i, w := range words {
		out[i] = w.Text
	}
	return out
}

// listed are the pieces of a list, each a field of its own.
func (x *follower) listed(list []Word, certain bool, m mode, open bool) (out []piece) {
	for i, w := range list {
		if i > 0 {
			out = append(out, piece{next: true})
		}
		if w.Known {
			out = append(out, expanded(w.Text, m))
		} else {
			out = append(out, unknownPiece(m))
		}
	}
	if open || !certain {
		if len(list) > 0 {
			out = append(out, piece{next: true})
		}
		out = append(out, piece{unknown: true, many: true})
	}
	return out
}

func isAll(index syntax.ArithmExpr) bool {
	w, ok := index.(*syntax.Word)
	return ok && (w.Lit() == "@" || w.Lit() == "*")
}

func keysOf(v variable) []Word {
	var out []Word
	for _, k := range slices.Sorted(maps.Keys(v.list)) {
		out = append(out, Word{Text: strconv.Itoa(k), Known: true})
	}
	return out
}

func isName(text string) bool {
	for i, c := range text {
		if c != '_' && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return text != ""
}

// restless are the variables that have another value each time, or that only the shell sets.
var restless = strings.Fields("RANDOM SRANDOM SECONDS LINENO BASHPID EPOCHSECONDS EPOCHREALTIME PIPESTATUS FUNCNAME BASH_REMATCH BASH_SOURCE " +
	"BASH_LINENO BASH_COMMAND BASH_SUBSHELL BASH_VERSION BASH_VERSINFO BASH DIRSTACK GROUPS HISTCMD OPTARG OPTIND PPID SHELLOPTS BASHOPTS _ " +
	"COMP_WORDS HOSTNAME HOSTTYPE MACHTYPE OSTYPE PWD OLDPWD SHLVL TERM")

// value looks up a parameter.
func (x *follower) value(name string, index syntax.ArithmExpr, st *state, at Place) value {
	switch name {
	case "@", "*":
		return value{list: st.params, all: true, open: st.open, star: name == "*", set: len(st.params) > 0, known: !st.open}
	case "#":
		return value{known: !st.open, set: true, text: strconv.Itoa(len(st.params))}
	case "?":
		if st.status >= 0 {
			return value{known: true, set: true, text: strconv.Itoa(int(st.status))}
		}
		return value{set: true}
	case "-", "$", "!", "0":
		return value{set: true}
	}
	if n, err := strconv.Atoi(name); err == nil {
		switch {
		case n <= len(st.params):
			w := st.params[n-1]
			return value{known: w.Known, set: true, text: w.Text}
		case st.open:
			return value{outer: len(st.frames) == 0 && len(st.params) == 0}
		}
		return value{known: true}
	}
	if !isName(name) || slices.Contains(restless, name) {
		return value{}
	}
	v, there := st.vars[name]
	if index != nil && isAll(index) && !v.known {
		w, _ := index.(*syntax.Word)
		return value{all: true, open: true, star: w.Lit() == "*"}
	}
	if !there {
		switch {
		case (name == "UID" || name == "EUID") && !x.posix:
			return value{known: true, set: true, text: "0"}
		case name == "IFS":
			return value{known: true, set: true, text: " \t\n"}
		}
		return value{outer: true}
	}
	switch {
	case !v.known:
		return value{}
	case index != nil && isAll(index):
		w, _ := index.(*syntax.Word)
		out := value{known: true, all: true, star: w.Lit() == "*", set: v.set}
		if !v.isList && v.set {
			out.list = []Word{{Text: v.text, Known: true}}
		}
		for _, k := range slices.Sorted(maps.Keys(v.list)) {
			out.list = append(out.list, Word{Text: v.list[k], Known: true})
		}
		return out
	case index != nil || v.isList:
		n := int64(0)
		if index != nil {
			var certain bool
			if n, certain = x.arithm(index, st, at); !certain {
				return value{}
			}
		}
		if !v.isList {
			return value{known: true, set: v.set && n == 0, text: map[bool]string{true: v.text}[n == 0]}
		}
		if n < 0 {
			if len(v.list) == 0 {
				return value{}
			}
			n += int64(slices.Max(slices.Collect(maps.Keys(v.list)))) + 1
		}
		text, ok := v.list[int(n)]
		return value{known: true, set: ok, text: text}
	}
	return value{known: true, set: v.set, text: v.text}
}

func (v value) length(m mode) piece {
	switch {
	case v.all && !v.open:
		return expanded(strconv.Itoa(len(v.list)), m)
	case v.all || !v.known || !isASCII(v.text):
		return piece{unknown: true, quoted: true}
	}
	return expanded(strconv.Itoa(len(v.text)), m)
}

func isASCII(text string) bool {
	return strings.IndexFunc(text, func(c rune) bool { return c >= 0x80 }) < 0
}
