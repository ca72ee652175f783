// SPDX-License-Identifier: Apache-2.0

package shell

import (
	"path"
	"regexp"
	"slices"
	"strings"
	"sync"

	"mvdan.cc/sh/v3/syntax"
)

// call runs a simple command.
func (x *follower) call(c *syntax.CallExpr, st *state, at Place) *state {
	st.status = OK // until a substitution says otherwise
	words := x.fields(c.Args, st)
	if st.dead {
		return nil
	}
	if len(words) == 0 {
		x.assigns(c.Assigns, st, at)
		return st.living()
	}
	st.status = OK
	restore := x.assignFor(c.Assigns, st, at)
	if alias, ok := x.aliasOf(c, st); ok {
		return x.aliased(alias, c, st, at)
	}
	st = x.run(words, st, at)
	if st != nil && restore != nil {
		restore(st)
	}
	return st
}

// assignFor sets variables for one command.
func (x *follower) assignFor(assigns []*syntax.Assign, st *state, at Place) func(*state) {
	if len(assigns) == 0 {
		return nil
	}
	saved := make(map[string]outer)
	for _, a := range assigns {
		v, ok := st.vars[a.Name.Value]
		saved[a.Name.Value] = outer{v, ok}
	}
	x.assigns(assigns, st, at)
	return func(st *state) {
		for name, o := range saved {
			st.restore(name, o)
		}
	}
}

func (st *state) restore(name string, o outer) {
	if o.there {
		st.vars[name] = o.variable
	} else {
		delete(st.vars, name)
	}
}

// aliasOf is the alias that a command is written with.
func (x *follower) aliasOf(c *syntax.CallExpr, st *state) (Text, bool) {
	name := c.Args[0].Lit()
	text, ok := st.aliases[name]
	return text, ok && name != ""
}

var simpleAlias = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[A-Za-z0-9_/.$ ,:!-]+$`) })

// aliased runs what an alias stands for, and does without it: whether the
// shell knows of it by then depends on the shell and on its options.
func (x *follower) aliased(alias Text, c *syntax.CallExpr, st *state, at Place) *state {
	name := c.Args[0].Lit()
	if !alias.Known || !simpleAlias().MatchString(alias.Text) || strings.HasSuffix(alias.Text, " ") {
		x.giveUp(st, at, "what the alias "+name+" stands for cannot be told: "+hint)
		return st
	}
	delete(st.aliases, name)
	plain := st.clone()
	defined := x.isCommand(name, st)
	text := alias.Text
	for _, w := range c.Args[1:] {
		text += " " + source(w)
	}
	expanded := x.text(text, st, at)
	if expanded != nil {
		expanded.aliases[name] = alias
	}
	if defined {
		if plain = x.run(x.fields(c.Args, plain), plain, at); plain != nil {
			plain.aliases[name] = alias
		}
	} else {
		plain.aliases[name] = alias
		plain.status = 127
	}
	return x.join(expanded, plain, at, "whether the alias "+name+" is known here depends on the shell"+mayRun)
}

// isCommand reports whether a name is one of a command in its own right.
func (x *follower) isCommand(name string, st *state) bool {
	if _, ok := st.functions[name]; ok || isBuiltin(name) {
		return true
	}
	_, ok := st.world.Clone().Run(Program{Name: name})
	return ok || knownProgram(name)
}

// text runs a text as if it stood there.
func (x *follower) text(text string, st *state, at Place) *state {
	if len(text) > maxText || x.depth >= maxDepth {
		x.giveUp(st, at, "what this runs cannot be told: "+hint)
		return st
	}
	parsed, _, err := parse(text, "")
	if err != nil {
		x.giveUp(st, at, "cannot be read as a shell script: "+err.Error())
		return st
	}
	outside := x.at
	x.at = &at
	x.depth++
	defer func() { x.at = outside; x.depth-- }()
	st.status = OK
	return x.list(parsed.Stmts, st)
}

// run runs a command by its words, whatever kind of command that is.
func (x *follower) run(words []Word, st *state, at Place) *state {
	if !words[0].Known {
		x.giveUp(st, at, "what this runs cannot be told: "+hint)
		return st
	}
	name := words[0].Text
	if body, ok := st.functions[name]; ok {
		x.called[name] = true
		if body == nil {
			x.giveUp(st, at, "what the function "+name+" is by now cannot be told: "+hint)
			return st
		}
		return x.function(words, body, st, at)
	}
	if isBuiltin(name) {
		return x.builtin(words, st, at)
	}
	return x.program(words, st, at)
}

func (x *follower) function(words []Word, body *syntax.Stmt, st *state, at Place) *state {
	if x.depth >= maxDepth {
		x.giveUp(st, at, "functions call each other too deeply: "+hint)
		return st
	}
	f := frame{params: st.params, open: st.open, locals: make(map[string]outer)}
	st.frames = append(st.frames, f)
	st.setParams(words[1:])
	leaves, loops := x.leaves, x.loops
	var back []end
	x.leaves, x.loops = &back, nil
	x.depth++
	st = x.statement(body, st)
	x.depth--
	x.leaves, x.loops = leaves, loops
	if st != nil {
		st.popFrame()
	}
	for _, e := range back {
		e.state.popFrame()
	}
	return x.joinEnds(st, back, "the function ends here")
}

// setParams sets the parameters to words, of which one may be many.
func (st *state) setParams(words []Word) {
	st.params, st.open = nil, false
	for _, w := range words {
		if w.many {
			st.open = true
			return
		}
		st.params = append(st.params, w)
	}
}

func (st *state) popFrame() {
	last := len(st.frames) - 1
	f := st.frames[last]
	st.frames = st.frames[:last]
	st.params, st.open = f.params, f.open
	for name, o := range f.locals {
		st.restore(name, o)
	}
}

// known reports whether all words are known.
func known(words []Word) bool {
	return !slices.ContainsFunc(words, func(w Word) bool { return !w.Known })
}

// program runs a program, or another by it.
func (x *follower) program(words []Word, st *state, at Place) *state {
	if !words[0].Known {
		x.giveUp(st, at, "what this runs cannot be told: "+hint)
		return st
	}
	name := path.Base(words[0].Text)
	if words[0].Text == "" || strings.HasPrefix(words[0].Text, "-") || strings.ContainsAny(words[0].Text, " \t\n") {
		st.status = 127
		x.Lost(at, "there is no such program")
		return st
	}
	if run := runners[name]; run != nil {
		return run(x, words, st, at)
	}
	p := Program{Name: name, Args: words[1:], Input: st.in.Text, InputLine: st.in.line, At: at}
	if s, ok := st.world.Run(p); ok {
		st.status = s
		st.out.Known = false
		return st
	}
	if text, ok := printed(name, words[1:], st); ok {
		st.print(text, true)
		st.status = OK
		return st
	}
	st.print("", false)
	kind, ok := programs()[name]
	switch {
	case !ok:
		x.Lost(at, "what this does cannot be told, so all may be dropped from here on: "+hint)
		st.world.Doubt(at)
		st.status = Unknown
		st.in = input{}
		return st
	case kind == sets:
		x.Note(at, setElsewhere)
	}
	if kind == reads {
		st.in = input{}
	}
	st.status = Unknown
	if kind == sets || kind == quiet {
		st.status = Assumed
	}
	return st
}

// print adds to what a command has printed.
func (st *state) print(text string, known bool) {
	if !known || !st.out.Known || len(st.out.Text)+len(text) > maxText {
		st.out = Text{}
		return
	}
	st.out.Text += text
}
