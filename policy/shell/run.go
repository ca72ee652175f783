// SPDX-License-Identifier: Apache-2.0

package shell

import (
	"strings"

	"mvdan.cc/sh/v3/syntax"
)

// list runs statements, one after another. It returns nil if none of what comes
// behind them is run.
func (x *follower) list(stmts []*syntax.Stmt, st *state) *state {
	for _, s := range stmts {
		if st == nil {
			if x.depth == 0 && len(x.loops) == 0 && x.nested == 0 {
				x.Note(x.place(s), "nothing from here on is run: the script has ended before")
			}
			return nil
		}
		st = x.statement(s, st)
	}
	return st
}

func (x *follower) statement(s *syntax.Stmt, st *state) *state {
	at := x.place(s)
	if x.steps++; x.steps > maxSteps {
		if !x.gone {
			x.giveUp(st, at, "the script goes on for too long: "+hint)
		}
		x.gone = true
		if st.lost == nil {
			st.lost = &at
		}
		x.leave(st, at)
		return nil
	}
	if s.Coprocess {
		x.giveUp(st, at, "a coprocess cannot be followed: "+hint)
		return st
	}
	if x.posix && bashOnly(s) {
		x.giveUp(st, at, "only bash has this, and the first line of the script names another shell: name bash there, or "+hint)
		st.status = Unknown
		return st
	}
	if s.Background {
		return x.background(s, st, at)
	}
	return x.foreground(s, st, at)
}

func (x *follower) foreground(s *syntax.Stmt, st *state, at Place) *state {
	if s.Negated {
		x.tested++
		st = x.redirected(s, st, at)
		x.tested--
		if st != nil {
			st.status = st.status.negated()
		}
		return st
	}
	if st = x.redirected(s, st, at); st == nil || x.tested > 0 || !st.options.errexit {
		return st
	}
	switch s.Cmd.(type) {
	case *syntax.CallExpr, *syntax.Subshell, *syntax.ArithmCmd, *syntax.TestClause, *syntax.LetClause, *syntax.DeclClause:
		return x.onError(st, at)
	case *syntax.BinaryCmd:
		if op := s.Cmd.(*syntax.BinaryCmd).Op; op == syntax.Pipe || op == syntax.PipeAll {
			return x.onError(st, at)
		}
	}
	return st
}

// onError ends the shell under set -e if a command has failed.
func (x *follower) onError(st *state, at Place) *state {
	switch {
	case st.options.perhaps && st.status != OK && st.status != Assumed:
		x.leave(st.clone(), at)
	case st.status.fails():
		x.leave(st, at)
		return nil
	case st.status == Unknown:
		x.leave(st.clone(), at)
		st.status = OK
	}
	return st
}

func (s Status) negated() Status {
	switch {
	case s == OK:
		return 1
	case s.fails():
		return OK
	}
	return Unknown
}

// background runs what goes on beside the rest.
func (x *follower) background(s *syntax.Stmt, st *state, at Place) *state {
	before := st.world.Changes()
	beside := x.subshell(st, func(st *state) *state { return x.foreground(s, st, at) })
	if beside == nil || beside.world.Changes() != before || beside.lost != nil {
		x.giveUp(st, at, "when this is done in the background, next to what follows, cannot be told: "+hint)
	}
	st.status = OK
	return st
}

// subshell runs something in a shell of its own, from which only the world
// remains. The state it returns is that at its end.
func (x *follower) subshell(st *state, run func(*state) *state) *state {
	sub := st.clone()
	sub.trap = nil
	saved, leaves, loops, depth := x.ends, x.leaves, x.loops, x.depth
	var ends []end
	x.ends, x.leaves, x.loops = &ends, nil, nil
	x.nested++
	last := run(sub)
	x.nested--
	x.ends, x.leaves, x.loops, x.depth = saved, leaves, loops, depth
	if last != nil {
		ends = append(ends, end{state: last})
	}
	for i := range ends {
		ends[i].state = x.runTrap(ends[i].state)
	}
	return x.joinEnds(nil, ends, "this ends here")
}

// adopt takes over what a subshell has left.
func (x *follower) adopt(st, sub *state, at Place) {
	if sub == nil {
		x.giveUp(st, at, "it does not end: "+hint)
		return
	}
	st.world, st.status, st.in = sub.world, sub.status, sub.in
	if st.lost == nil && sub.lost != nil {
		st.lost = sub.lost
	}
}

func (x *follower) command(c syntax.Command, st *state, at Place) *state {
	switch c := c.(type) {
	case nil:
		st.status = OK
		return st
	case *syntax.CallExpr:
		return x.call(c, st, at)
	case *syntax.Block:
		return x.list(c.Stmts, st)
	case *syntax.Subshell:
		sub := x.subshell(st, func(st *state) *state { return x.list(c.Stmts, st) })
		if sub != nil {
			st.out = sub.out
		}
		x.adopt(st, sub, at)
		return st
	case *syntax.IfClause:
		return x.ifClause(c, st, at)
	case *syntax.WhileClause:
		return x.while(c, st, at)
	case *syntax.ForClause:
		return x.forClause(c, st, at)
	case *syntax.CaseClause:
		return x.caseClause(c, st, at)
	case *syntax.BinaryCmd:
		return x.binary(c, st, at)
	case *syntax.FuncDecl:
		return x.declareFunction(c, st, at)
	case *syntax.ArithmCmd:
		n, known := x.arithm(c.X, st, at)
		st.status = truth(n != 0, known)
		return st.living()
	case *syntax.LetClause:
		for _, e := range c.Exprs {
			if w, ok := e.(*syntax.Word); ok && !isName(w.Lit()) {
				if _, known := x.literal(w, st); !known {
					x.giveUp(st, at, "what this sets cannot be told: "+hint)
				}
			}
			n, known := x.arithm(e, st, at)
			st.status = truth(n != 0, known)
		}
		return st.living()
	case *syntax.TestClause:
		holds, known := x.testClause(c.X, st, at)
		st.status = truth(holds, known)
		return st.living()
	case *syntax.DeclClause:
		return x.declClause(c, st, at)
	case *syntax.TimeClause:
		if c.Stmt == nil {
			return st
		}
		return x.statement(c.Stmt, st)
	}
	x.giveUp(st, at, "what this does cannot be told: "+hint)
	st.status = Unknown
	return st
}

// living is the state, unless the shell has ended within an expansion.
func (st *state) living() *state {
	if st.dead {
		return nil
	}
	return st
}

func truth(holds, known bool) Status {
	switch {
	case !known:
		return Unknown
	case holds:
		return OK
	}
	return 1
}

// asked runs statements for their status.
func (x *follower) asked(stmts []*syntax.Stmt, st *state) *state {
	x.tested++
	defer func() { x.tested-- }()
	return x.list(stmts, st)
}

func (x *follower) ifClause(c *syntax.IfClause, st *state, at Place) *state {
	if st = x.asked(c.Cond, st); st == nil {
		return nil
	}
	otherwise := func(st *state) *state {
		switch {
		case c.Else == nil:
			st.status = OK
			return st
		case len(c.Else.Cond) == 0:
			return x.list(c.Else.Then, st)
		}
		return x.ifClause(c.Else, st, at)
	}
	switch {
	case st.status == OK:
		return x.list(c.Then, st)
	case st.status.fails():
		return otherwise(st)
	}
	other := st.clone()
	st.status, other.status = OK, Failed
	return x.join(x.list(c.Then, st), otherwise(other), at, "it depends on a condition"+mayRun)
}

func (x *follower) binary(c *syntax.BinaryCmd, st *state, at Place) *state {
	if c.Op == syntax.Pipe || c.Op == syntax.PipeAll {
		return x.pipeline(c, st, at)
	}
	x.tested++
	st = x.statement(c.X, st)
	x.tested--
	if st == nil {
		return nil
	}
	and := c.Op == syntax.AndStmt
	switch {
	case st.status == OK && and || st.status.fails() && !and:
		return x.statement(c.Y, st)
	case !st.status.unknown():
		return st
	}
	other := st.clone()
	if and {
		st.status, other.status = OK, Failed
	} else {
		st.status, other.status = Failed, OK
	}
	return x.join(x.statement(c.Y, st), other, at, "it depends on the command before it"+mayRun)
}

// pipeline runs commands that read one from another, all in subshells.
func (x *follower) pipeline(c *syntax.BinaryCmd, st *state, at Place) *state {
	stages, both := stagesOf(c)
	outside := st.out
	changed := 0
	statuses := OK
	for i, s := range stages {
		before := st.world.Changes()
		lastStage := i == len(stages)-1
		from := st.clone()
		if !lastStage {
			from.out = Text{Known: true}
		}
		sub := x.subshell(from, func(st *state) *state { return x.statement(s, st) })
		if sub == nil {
			x.giveUp(st, at, "it does not end: "+hint)
			return st
		}
		if st.world = sub.world; st.world.Changes() != before {
			changed++
		}
		if st.lost == nil {
			st.lost = sub.lost
		}
		st.status = sub.status
		if sub.status != OK && sub.status != Assumed {
			statuses = Unknown
		}
		if lastStage {
			outside = sub.out
			if st.options.lastpipe || x.posix {
				// It may have been this shell that ran it.
				st.vars = joinVariables(st.vars, sub.vars)
			}
			break
		}
		st.in = input{Text: sub.out}
		if both {
			st.in = input{} // errors are among it
		}
	}
	st.out, st.in = outside, input{}
	if st.options.pipefail && st.status == OK {
		st.status = statuses
	}
	if changed > 1 {
		x.giveUp(st, at, "these run at the same time, so which comes first cannot be told: "+hint)
	}
	return st
}

// stagesOf are the commands of a pipeline, in their order.
func stagesOf(c *syntax.BinaryCmd) (stages []*syntax.Stmt, both bool) {
	both = c.Op == syntax.PipeAll
	for _, s := range []*syntax.Stmt{c.X, c.Y} {
		inner, ok := s.Cmd.(*syntax.BinaryCmd)
		if !ok || inner.Op != syntax.Pipe && inner.Op != syntax.PipeAll || len(s.Redirs) > 0 || s.Negated {
			stages = append(stages, s)
			continue
		}
		more, bothInside := stagesOf(inner)
		stages, both = append(stages, more...), both || bothInside
	}
	return stages, both
}

// specialNames are the commands that a function does not replace in every shell.
const specialNames = " break : continue . eval exec exit export readonly return set shift times trap unset "

func (x *follower) declareFunction(c *syntax.FuncDecl, st *state, at Place) *state {
	if name := c.Name.Value; strings.Contains(specialNames, " "+name+" ") || name == "[" || name == "test" || name == "builtin" || name == "command" {
		x.giveUp(st, at, "a function of this name changes what the shell does: "+hint)
	}
	st.functions[c.Name.Value] = c.Body
	st.status = OK
	return st
}
