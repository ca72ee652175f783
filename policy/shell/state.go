// SPDX-License-Identifier: Apache-2.0

package shell

import (
	"maps"
	"slices"

	"mvdan.cc/sh/v3/syntax"
)

// state is all that a shell knows at one moment.
type state struct {
	world     World
	vars      map[string]variable     // that the script has set
	functions map[string]*syntax.Stmt // nil: whether there is one, and which, is not known
	aliases   map[string]Text
	params    []Word
	open      bool // there may be more parameters
	frames    []frame
	options   options
	status    Status
	out       Text // what was printed, if somebody reads it
	in        input
	trap      *Text // at the end
	trapAt    Place
	lost      *Place // from where on nothing is certain
	dead      bool   // the shell has ended within a command
}

// variable is what a script has set. What it has not set may be in the environment.
type variable struct {
	known    bool
	set      bool
	text     string
	list     map[int]string // of an array
	isList   bool
	readonly bool
	integer  bool
	exported bool
	odd      bool // what is assigned to it changes on the way
}

// frame is one call of a function.
type frame struct {
	params []Word
	open   bool
	locals map[string]outer
}

// outer is what a local variable hides.
type outer struct {
	variable
	there bool
}

// options are those of set that matter. Which are not known is not followed.
type options struct {
	errexit, nounset, noglob, pipefail, lastpipe, export bool
	perhaps                                              bool // errexit and nounset, if the first line counts
}

// input is what the standard input of a command holds.
type input struct {
	Text
	line int // of the script, at which it begins
}

func newState(w World) *state {
	return &state{world: w, vars: make(map[string]variable), functions: make(map[string]*syntax.Stmt), aliases: make(map[string]Text),
		open: true, out: Text{Known: true}}
}

func (st *state) clone() *state {
	c := *st
	c.world = st.world.Clone()
	c.vars = maps.Clone(st.vars)
	c.functions = maps.Clone(st.functions)
	c.aliases = maps.Clone(st.aliases)
	c.params = slices.Clone(st.params)
	c.frames = slices.Clone(st.frames)
	for i := range c.frames {
		c.frames[i].locals = maps.Clone(c.frames[i].locals)
	}
	return &c
}

// forget is for what may have set anything.
func (st *state) forget() {
	for name, v := range st.vars {
		st.vars[name] = variable{exported: v.exported}
	}
	st.params, st.open = nil, true
	st.status = Unknown
	st.in = input{}
	st.out.Known = false
}

func (v variable) equal(w variable) bool {
	return v.known == w.known && v.set == w.set && v.text == w.text && maps.Equal(v.list, w.list) && v.isList == w.isList &&
		v.readonly == w.readonly && v.integer == w.integer && v.exported == w.exported && v.odd == w.odd
}

func (v variable) join(w variable) variable {
	if v.equal(w) {
		return v
	}
	return variable{readonly: v.readonly || w.readonly, odd: v.odd || w.odd || v.integer != w.integer, integer: v.integer && w.integer,
		exported: v.exported && w.exported}
}

// join keeps what two states have in common, and reports whether their worlds differ.
func (st *state) join(o *state) (differs bool) {
	differs = st.world.Join(o.world)
	st.vars = joinVariables(st.vars, o.vars)
	for name, body := range st.functions {
		if other, ok := o.functions[name]; !ok || other != body {
			st.functions[name] = nil
		}
	}
	for name := range o.functions {
		if _, ok := st.functions[name]; !ok {
			st.functions[name] = nil
		}
	}
	for name, text := range o.aliases {
		if st.aliases[name] != text {
			st.aliases[name] = Text{}
		}
	}
	for name := range st.aliases {
		if _, ok := o.aliases[name]; !ok {
			st.aliases[name] = Text{}
		}
	}
	st.params, st.open = joinParams(st.params, st.open, o.params, o.open)
	for i := range min(len(st.frames), len(o.frames)) {
		a, b := &st.frames[i], o.frames[i]
		for name, saved := range b.locals {
			if mine, ok := a.locals[name]; !ok {
				a.locals[name] = outer{variable: variable{odd: true}, there: true}
			} else if mine.there != saved.there || !mine.equal(saved.variable) {
				a.locals[name] = outer{variable: mine.join(saved.variable), there: true}
			}
		}
		for name := range a.locals {
			if _, ok := b.locals[name]; !ok {
				a.locals[name] = outer{variable: variable{odd: true}, there: true}
			}
		}
	}
	if st.status != o.status {
		st.status = Unknown
	}
	if st.out != o.out {
		st.out = Text{}
	}
	if st.in != o.in {
		st.in = input{}
	}
	if st.lost == nil {
		st.lost = o.lost
	}
	switch {
	case st.trap == nil && o.trap == nil || st.trap != nil && o.trap != nil && *st.trap == *o.trap:
	default:
		at := o.trapAt
		if o.trap == nil {
			at = st.trapAt
		}
		st.trap, st.trapAt = &Text{}, at
	}
	if st.options != o.options {
		// Either may be in force: that is too much to keep.
		if st.lost == nil {
			st.lost = &Place{}
		}
		st.options = options{}
		differs = true
	}
	return differs
}

func joinVariables(a, b map[string]variable) map[string]variable {
	for name, v := range a {
		w, ok := b[name]
		if !ok {
			w = variable{}
		}
		a[name] = v.join(w)
	}
	for name, w := range b {
		if _, ok := a[name]; !ok {
			a[name] = w.join(variable{})
		}
	}
	return a
}

func joinParams(a []Word, aOpen bool, b []Word, bOpen bool) ([]Word, bool) {
	open := aOpen || bOpen || len(a) != len(b)
	n := min(len(a), len(b))
	for i := range n {
		if a[i] != b[i] {
			a[i] = Word{Text: "$" + string(rune('0'+min(i+1, 9)))}
		}
	}
	return a[:n], open
}

// sameVariables reports whether nothing has changed that a further round of a loop would see.
func (st *state) sameVariables(o *state) bool {
	return maps.EqualFunc(st.vars, o.vars, variable.equal) && maps.Equal(st.functions, o.functions) && slices.Equal(st.params, o.params) &&
		st.open == o.open && st.in == o.in && st.out == o.out && maps.Equal(st.aliases, o.aliases)
}
