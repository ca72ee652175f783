// SPDX-License-Identifier: Apache-2.0

package shell

import (
	"strings"

	"mvdan.cc/sh/v3/syntax"
)

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
	for _, a := range x.declared(c.Args, st, at) {
		switch {
		case a.Assign == nil:
			for _, w := range a.words {
				x.declareWord(&d, w, st, at)
			}
		case a.Naked:
			x.declareName(d, a.Name.Value, a.Array != nil, st, at)
		default:
			x.setHidden(d, a.Assign, st, at)
		}
	}
	if d.printing {
		st.print("", false)
	}
	st.status = OK // whatever a substitution in it has ended with
	return st.living()
}

// declaredArg is one argument of a declaration: words, or what is set.
type declaredArg struct {
	*syntax.Assign
	words []Word
}

// declared expands all arguments, as the shell does before it sets the first.
func (x *follower) declared(args []*syntax.Assign, st *state, at Place) (out []declaredArg) {
	for _, a := range args {
		if a.Name == nil {
			out = append(out, declaredArg{words: x.fields([]*syntax.Word{a.Value}, st)})
			continue
		}
		set := *a
		if value := a.Value; value != nil {
			text, known := x.literal(value, st)
			switch {
			case isQuoted(value):
			case x.posix && (!known || strings.ContainsAny(text, " \t\n*?[")):
				x.giveUp(st, at, "some shells split this value: put it into quotes")
			case strings.Contains(":"+text, ":~"):
				known = false
			}
			set.Value = expandedWord(value, text, known)
		}
		if a.Array != nil {
			list := *a.Array
			list.Elems = nil
			for _, e := range a.Array.Elems {
				if e.Index != nil || e.Value == nil {
					list.Elems = append(list.Elems, e)
					continue
				}
				for _, w := range x.fields([]*syntax.Word{e.Value}, st) {
					list.Elems = append(list.Elems, &syntax.ArrayElem{Value: expandedWord(e.Value, w.Text, w.Known)})
				}
			}
			set.Array = &list
		}
		out = append(out, declaredArg{Assign: &set})
	}
	return out
}

// expandedWord is a word that stands for a text, or for one that is not known.
func expandedWord(w *syntax.Word, text string, known bool) *syntax.Word {
	if !known {
		return &syntax.Word{Parts: []syntax.WordPart{&syntax.Lit{ValuePos: w.Pos(), ValueEnd: w.End(), Value: "~"}}} // as the name of somebody's directory is
	}
	return &syntax.Word{Parts: []syntax.WordPart{&syntax.SglQuoted{Left: w.Pos(), Right: w.End(), Value: text}}}
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
