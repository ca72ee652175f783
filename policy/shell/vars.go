// SPDX-License-Identifier: Apache-2.0

package shell

import (
	"slices"
	"strings"

	"mvdan.cc/sh/v3/syntax"
)

func (st *state) setUnknown(name string) {
	v := st.vars[name]
	st.vars[name] = variable{readonly: v.readonly, integer: v.integer, exported: v.exported, odd: v.odd}
}

// fixed are the variables that cannot be set, or that change the shell when they are.
var fixed = strings.Fields("UID EUID PPID SHELLOPTS BASHOPTS POSIXLY_CORRECT BASH_COMPAT BASH_ALIASES BASH_CMDS GLOBIGNORE EXECIGNORE")

// assign sets a variable.
func (x *follower) assign(st *state, name string, to Text, at Place) {
	v := st.vars[name]
	if v.readonly || slices.Contains(fixed, name) {
		x.giveUp(st, at, "this cannot be set, and what becomes of the script then cannot be told: "+hint)
		return
	}
	if name == "PATH" && to.Known && !findsIPTables(to.Text) {
		x.giveUp(st, at, "which program iptables is then cannot be told: "+hint)
	}
	if v.isList {
		st.setUnknown(name)
		return
	}
	if v.integer {
		n, known := x.arithmText(to.Text, to.Known)
		to = Text{formatNumber(n), known}
	}
	if v.odd || !to.Known || len(to.Text) > maxText {
		st.setUnknown(name)
		return
	}
	st.vars[name] = variable{known: true, set: true, text: to.Text, integer: v.integer, exported: v.exported || st.options.export}
}

// findsIPTables reports whether PATH leads to where iptables is. Whatever stands
// there in other directories is taken for something else.
func findsIPTables(path string) bool {
	found := false
	for dir := range strings.SplitSeq(path, ":") {
		if !strings.HasPrefix(dir, "/") {
			return false
		}
		found = found || strings.HasSuffix(strings.TrimSuffix(dir, "/"), "/sbin")
	}
	return found
}

func (x *follower) assigns(list []*syntax.Assign, st *state, at Place) {
	for _, a := range list {
		if a.Name != nil && !a.Naked {
			x.assignOne(a, st, at)
		}
	}
}

// assignOne sets a variable, a list, or one element.
func (x *follower) assignOne(a *syntax.Assign, st *state, at Place) {
	name := a.Name.Value
	old := st.vars[name]
	switch {
	case old.readonly:
		x.assign(st, name, Text{}, at)
	case a.Array != nil:
		list, known := x.array(a.Array, st)
		if a.Append {
			known = known && old.known && old.isList
			next := 0
			for k := range old.list {
				next = max(next, k+1)
			}
			grown := make(map[int]string)
			for k, text := range old.list {
				grown[k] = text
			}
			for k, text := range list {
				grown[next+k] = text
			}
			list = grown
		}
		if !known || old.odd || old.integer {
			st.vars[name] = variable{odd: true, exported: old.exported}
			if !old.odd && !old.integer {
				st.vars[name] = variable{exported: old.exported}
			}
			return
		}
		st.vars[name] = variable{known: true, set: len(list) > 0, isList: true, list: list, exported: old.exported}
	case a.Index != nil:
		x.assignElement(a, st, at)
	case a.Append:
		text, known := x.literal(a.Value, st)
		known = known && old.known && !old.isList && !old.integer
		if _, there := st.vars[name]; !there {
			known = false
		}
		x.assign(st, name, Text{old.text + text, known}, at)
	default:
		text, known := x.literal(a.Value, st)
		if known && strings.Contains(":"+text, ":~") && !isQuoted(a.Value) {
			known = false
		}
		x.assign(st, name, Text{text, known}, at)
	}
}

func isQuoted(w *syntax.Word) bool {
	if w == nil || len(w.Parts) != 1 {
		return false
	}
	_, isLit := w.Parts[0].(*syntax.Lit)
	return !isLit
}

func (x *follower) assignElement(a *syntax.Assign, st *state, at Place) {
	name := a.Name.Value
	old, there := st.vars[name]
	n, known := x.arithm(a.Index, st, at)
	text, certain := x.literal(a.Value, st)
	if !known || !certain || !there || !old.known || old.odd || old.integer || a.Append || !old.isList || n < 0 || n > 1<<20 {
		st.setUnknown(name)
		return
	}
	list := make(map[int]string, len(old.list)+1)
	for k, t := range old.list {
		list[k] = t
	}
	list[int(n)] = text
	st.vars[name] = variable{known: true, set: true, isList: true, list: list, exported: old.exported}
}

// array expands (a b c).
func (x *follower) array(a *syntax.ArrayExpr, st *state) (map[int]string, bool) {
	list := make(map[int]string)
	known := true
	for _, e := range a.Elems {
		if e.Index != nil {
			known = false
			continue
		}
		for _, w := range x.fields([]*syntax.Word{e.Value}, st) {
			known = known && w.Known
			list[len(list)] = w.Text
		}
	}
	return list, known
}

func (x *follower) unset(args []Word, st *state, at Place) {
	functions := false
	for _, w := range args {
		switch {
		case !w.Known:
			x.giveUp(st, at, "what this takes away cannot be told: "+hint)
		case w.Text == "-f":
			functions = true
		case w.Text == "PATH":
			x.giveUp(st, at, "which program iptables is then cannot be told: "+hint)
		case w.Text == "-v" || w.Text == "--":
		case functions:
			delete(st.functions, w.Text)
		case st.vars[w.Text].readonly:
			st.status = 1
			if x.posix {
				x.giveUp(st, at, "this cannot be unset, and what becomes of the script then cannot be told: "+hint)
			}
		case !isName(w.Text):
			if name, _, ok := strings.Cut(w.Text, "["); ok && isName(name) {
				st.setUnknown(name)
			} else {
				x.giveUp(st, at, "what this takes away cannot be told: "+hint)
			}
		default:
			if st.isLocalSomewhere(w.Text) {
				st.setUnknown(w.Text) // the one outside may show
				continue
			}
			if _, ok := st.vars[w.Text]; !ok && st.functions[w.Text] != nil {
				delete(st.functions, w.Text)
				continue
			}
			st.vars[w.Text] = variable{known: true}
		}
	}
}

func (st *state) isLocalSomewhere(name string) bool {
	return slices.ContainsFunc(st.frames, func(f frame) bool { _, ok := f.locals[name]; return ok })
}
