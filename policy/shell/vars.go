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

// declClause is export, readonly, local, declare or typeset.
func (x *follower) declClause(c *syntax.DeclClause, st *state, at Place) *state {
	st.status = OK
	d := declaration{name: c.Variant.Value}
	if d.name == "nameref" {
		x.giveUp(st, at, "what this stands for cannot be told: "+hint)
		return st
	}
	if _, ok := st.functions[d.name]; ok {
		x.giveUp(st, at, "a function of this name changes what the shell does: "+hint)
	}
	for _, a := range c.Args {
		switch {
		case a.Name == nil:
			for _, w := range x.fields([]*syntax.Word{a.Value}, st) {
				x.declareWord(&d, w, st, at)
			}
		case a.Naked:
			x.declareName(d, a.Name.Value, a.Array != nil, st, at)
		default:
			value := a.Value
			if x.posix && value != nil && !isQuoted(value) {
				if text, known := x.literal(value, st); !known || strings.ContainsAny(text, " \t\n*?[") {
					x.giveUp(st, at, "some shells split this value: put it into quotes")
				}
			}
			if v := st.vars[a.Name.Value]; v.isList && a.Array == nil && a.Index == nil && d.hides(st, a.Name.Value) {
				// The value was of the variable outside.
				x.setHidden(d, a, st, at)
				continue
			}
			x.setHidden(d, a, st, at)
		}
	}
	if d.printing {
		st.print("", false)
	}
	return st.living()
}

// declaration is one command that declares variables.
type declaration struct {
	name                                         string
	global, readonly, integer, export, odd, list bool
	printing, functions, noInteger               bool
}

func (d declaration) isLocal() bool {
	return d.name == "local" || (d.name == "declare" || d.name == "typeset") && !d.global
}

// hides reports whether a name becomes a local variable by this.
func (d declaration) hides(st *state, name string) bool {
	if !d.isLocal() || len(st.frames) == 0 {
		return false
	}
	_, ok := st.frames[len(st.frames)-1].locals[name]
	return !ok
}

// setHidden expands the value before the name is hidden.
func (x *follower) setHidden(d declaration, a *syntax.Assign, st *state, at Place) {
	name := a.Name.Value
	hides := d.hides(st, name)
	was, there := st.vars[name]
	if !hides {
		x.declareName(d, name, a.Array != nil, st, at)
		v := st.vars[name]
		v.readonly = false
		st.vars[name] = v
		x.assignOne(a, st, at)
		x.attributes(d, name, st)
		return
	}
	if was.readonly {
		x.assign(st, name, Text{}, at)
		return
	}
	if a.Index != nil || a.Append {
		x.declareName(d, name, a.Array != nil, st, at)
		st.setUnknown(name)
		return
	}
	var set variable
	if a.Array != nil {
		list, known := x.array(a.Array, st)
		set = variable{known: known, set: true, isList: known, list: list}
		if !known {
			set = variable{}
		}
	} else {
		text, known := x.literal(a.Value, st)
		set = variable{known: known, set: known, text: text}
		if !known {
			set = variable{}
		}
	}
	st.frames[len(st.frames)-1].locals[name] = outer{was, there}
	st.vars[name] = variable{}
	if set.isList || !set.known {
		st.vars[name] = set
		x.attributes(d, name, st)
		return
	}
	if d.integer {
		n, known := x.arithmText(set.text, true)
		set.text = formatNumber(n)
		if !known {
			set = variable{}
		}
	}
	st.vars[name] = set
	x.attributes(d, name, st)
}

// attributes sets what a declaration says of a variable beyond its value.
func (x *follower) attributes(d declaration, name string, st *state) {
	v := st.vars[name]
	v.readonly = v.readonly || d.readonly || d.name == "readonly"
	v.exported = v.exported || d.export || d.name == "export"
	v.integer = (v.integer || d.integer) && !d.noInteger
	v.odd = v.odd || d.odd
	if d.odd {
		v = variable{odd: true, readonly: v.readonly, exported: v.exported}
	}
	st.vars[name] = v
}

func (x *follower) declareName(d declaration, name string, list bool, st *state, at Place) {
	if d.functions || d.printing {
		return
	}
	if d.name == "local" && len(st.frames) == 0 {
		x.giveUp(st, at, "there is no function here: "+hint)
		return
	}
	if st.vars[name].readonly && d.name != "readonly" {
		x.giveUp(st, at, "this cannot be set, and what becomes of the script then cannot be told: "+hint)
		return
	}
	if d.hides(st, name) {
		v, there := st.vars[name]
		st.frames[len(st.frames)-1].locals[name] = outer{v, there}
		switch {
		case x.posix && there:
			// Some shells keep the value of the variable outside.
			st.vars[name] = variable{}
			if v.known && !v.set {
				st.vars[name] = v
			}
		case x.posix:
			delete(st.vars, name)
			st.vars[name] = variable{}
		default:
			st.vars[name] = variable{known: true}
		}
		x.attributes(d, name, st)
		if d.list {
			v := st.vars[name]
			if v.known && !v.set {
				v.isList = true
				st.vars[name] = v
			}
		}
		return
	}
	if v, there := st.vars[name]; !there {
		// It may still be in the environment.
		set := variable{}
		if d.list {
			set = variable{known: true, isList: true}
		}
		if d.name == "declare" || d.name == "typeset" || d.name == "local" {
			st.vars[name] = set
		} else if d.name == "export" || d.export {
			st.vars[name] = variable{exported: true}
		}
	} else if d.list && v.known && !v.set {
		v.isList = true
		st.vars[name] = v
	}
	if _, there := st.vars[name]; there || d.name == "readonly" || d.readonly || d.integer || d.odd {
		x.attributes(d, name, st)
	}
}

// declare is a declaration whose words are only known when it is run.
func (x *follower) declare(name string, args []Word, st *state, at Place) {
	d := declaration{name: name}
	for _, w := range args {
		x.declareWord(&d, w, st, at)
	}
}

// declareWord reads an option, a name, or a name with a value.
func (x *follower) declareWord(d *declaration, w Word, st *state, at Place) {
	text := w.Text
	if !w.Known {
		x.giveUp(st, at, "what this sets cannot be told: "+hint)
		return
	}
	if len(text) > 1 && (text[0] == '-' || text[0] == '+') {
		for _, c := range text[1:] {
			on := text[0] == '-'
			switch c {
			case 'r':
				d.readonly = on
			case 'i':
				d.integer, d.noInteger = on, !on
			case 'x':
				d.export = on
			case 'g':
				d.global = on
			case 'a':
				d.list = on
			case 'A', 'u', 'l', 'c':
				d.odd = d.odd || on
			case 'f', 'F':
				d.functions = true
				if d.readonly {
					x.giveUp(st, at, "what this changes cannot be told: "+hint)
				}
			case 'p':
				d.printing = true
			case '-':
			default:
				x.giveUp(st, at, "what this changes cannot be told: "+hint)
			}
		}
		if d.name == "export" && d.functions {
			return
		}
		return
	}
	name, value, has := strings.Cut(text, "=")
	switch {
	case d.functions:
	case !isName(name):
		x.giveUp(st, at, "what this sets cannot be told: "+hint)
	case !has:
		x.declareName(*d, name, false, st, at)
	default:
		x.declareName(*d, name, false, st, at)
		v := st.vars[name]
		v.readonly = v.readonly && !d.readonly && d.name != "readonly"
		st.vars[name] = v
		x.assign(st, name, Text{value, true}, at)
		x.attributes(*d, name, st)
	}
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

// set sets options and parameters.
func (x *follower) set(args []Word, st *state, at Place) {
	if len(args) == 0 {
		st.print("", false)
		return
	}
	for len(args) > 0 {
		w := args[0]
		if !w.Known {
			x.giveUp(st, at, "what this sets cannot be told: "+hint)
			return
		}
		switch {
		case w.Text == "--":
			st.setParams(args[1:])
			return
		case w.Text == "-" || len(w.Text) < 2 || w.Text[0] != '-' && w.Text[0] != '+':
			if w.Text == "-" {
				args = args[1:]
				if len(args) == 0 {
					return
				}
			}
			st.setParams(args)
			return
		}
		args = args[1:]
		on := w.Text[0] == '-'
		for _, c := range w.Text[1:] {
			switch c {
			case 'e':
				st.options.errexit, st.options.perhaps = on, false
			case 'u':
				st.options.nounset = on
			case 'f':
				st.options.noglob = on
			case 'a':
				st.options.export = on
			case 'x', 'v', 'h', 'b', 'm', 'B', 'H', 'E', 'T', 'C':
				if c == 'B' && !on || c == 'C' && on {
					x.giveUp(st, at, "what this changes cannot be told: "+hint)
				}
			case 'o':
				if len(args) == 0 {
					st.print("", false)
					return
				}
				x.setOption(args[0], on, st, at)
				args = args[1:]
			default:
				x.giveUp(st, at, "what this changes cannot be told: "+hint)
			}
		}
	}
}

func (x *follower) setOption(w Word, on bool, st *state, at Place) {
	switch w.Text {
	case "errexit":
		st.options.errexit, st.options.perhaps = on, false
	case "nounset":
		st.options.nounset = on
	case "noglob":
		st.options.noglob = on
	case "allexport":
		st.options.export = on
	case "pipefail":
		if x.posix {
			x.giveUp(st, at, "only some shells know this, and others end: "+hint)
		}
		st.options.pipefail = on
	case "xtrace", "verbose", "errtrace", "functrace", "notify", "monitor", "hashall", "emacs", "vi", "history":
	default:
		x.giveUp(st, at, "what this changes cannot be told: "+hint)
	}
}

func (x *follower) shopt(args []Word, st *state, at Place) {
	for _, w := range args {
		switch {
		case !w.Known:
			x.giveUp(st, at, "what this changes cannot be told: "+hint)
		case slices.Contains([]string{"-s", "-u", "-q", "-p", "expand_aliases", "checkwinsize", "histappend", "nullglob", "dotglob", "globstar",
			"cmdhist", "promptvars", "sourcepath"}, w.Text):
		case w.Text == "lastpipe":
			st.options.lastpipe = true
		default:
			x.giveUp(st, at, "what this changes cannot be told: "+hint)
		}
	}
	if slices.ContainsFunc(args, func(w Word) bool { return w.Text == "-q" }) {
		st.status = Unknown
	}
}
