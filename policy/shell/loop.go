// SPDX-License-Identifier: Apache-2.0

package shell

import (
	"mvdan.cc/sh/v3/syntax"
)

// loop is one that is being run.
type loop struct {
	breaks, continues []end
}

const noRounds = "how often the loop runs cannot be told" + mayRun

// rounds runs a body as long as ask says so: with ask, which leaves a status,
// before each round, and next behind it.
func (x *follower) rounds(st *state, ask, next func(*state) *state, body []*syntax.Stmt, at Place) *state {
	l := &loop{}
	x.loops = append(x.loops, l)
	defer func() { x.loops = x.loops[:len(x.loops)-1] }()
	result := Status(OK)
	round := func(st *state) *state {
		st = x.list(body, st)
		st = x.joinEnds(st, l.continues, "the loop goes on here")
		l.continues = nil
		if st != nil {
			result = st.status
			st = next(st)
		}
		return st
	}
	var out *state
	for n := 0; st != nil; n++ {
		if st = ask(st); st == nil {
			break
		}
		if st.status.fails() {
			st.status = result
			out = st
			break
		}
		if st.status.unknown() || n >= maxRounds || x.gone {
			out = x.anyRounds(st, ask, round, at)
			break
		}
		st = round(st)
	}
	return x.joinEnds(out, l.breaks, "the loop ends here")
}

// anyRounds runs a loop as often as it may be. What a round adds to the world
// is in doubt from the first on, and another that does the same adds nothing:
// so it is done as soon as the variables do not change any more.
func (x *follower) anyRounds(st *state, ask, round func(*state) *state, at Place) *state {
	const enough = 12
	var out *state
	for n := 0; ; n++ {
		// st has just been asked, and may go either way.
		left := st.clone()
		left.status = Unknown
		out = x.join(out, left, Place{}, "")
		before := st.clone()
		inside := st.clone()
		inside.status = OK
		if inside = round(inside); inside == nil {
			return out
		}
		if inside = ask(inside); inside == nil {
			return out
		}
		if st.join(inside) {
			x.Lost(at, noRounds)
		}
		if n > 0 && st.sameVariables(before) {
			left := st.clone()
			left.status = Unknown
			return x.join(out, left, at, noRounds)
		}
		if n == enough {
			x.giveUp(st, at, noRounds)
			return x.join(out, st, Place{}, "")
		}
	}
}

func (x *follower) while(c *syntax.WhileClause, st *state, at Place) *state {
	ask := func(st *state) *state {
		if st = x.asked(c.Cond, st); st != nil && c.Until {
			st.status = st.status.negated()
		}
		return st
	}
	return x.rounds(st, ask, func(st *state) *state { return st }, c.Do, at)
}

func (x *follower) forClause(c *syntax.ForClause, st *state, at Place) *state {
	if c.Select {
		x.giveUp(st, at, "what is chosen cannot be told: "+hint)
		return st
	}
	if counting, ok := c.Loop.(*syntax.CStyleLoop); ok {
		return x.counting(c, counting, st, at)
	}
	items := c.Loop.(*syntax.WordIter)
	words, open := st.params, st.open
	if items.InPos.IsValid() {
		words, open = x.fields(items.Items, st), false
	}
	if st.dead {
		return nil
	}
	if open {
		words = append(words[:len(words):len(words)], Word{Text: `"$@"`, many: true})
	}
	l := &loop{}
	x.loops = append(x.loops, l)
	defer func() { x.loops = x.loops[:len(x.loops)-1] }()
	round := func(st *state, w Word) *state {
		x.assign(st, items.Name.Value, Text{w.Text, w.Known}, at)
		st = x.list(c.Do, st)
		st = x.joinEnds(st, l.continues, "the loop goes on here")
		l.continues = nil
		return st
	}
	st.status = OK
	for _, w := range words {
		if st == nil {
			break
		}
		if !w.many {
			st = round(st, w)
			continue
		}
		before := st.world.Changes()
		ask := func(st *state) *state { return st }
		st = x.anyRounds(st, ask, func(st *state) *state { return round(st, w) }, at)
		if st == nil || st.lost != nil || st.world.Changes() != before {
			x.Lost(at, "what the loop goes over cannot be told"+mayRun)
		}
	}
	return x.joinEnds(st, l.breaks, "the loop ends here")
}

func (x *follower) counting(c *syntax.ForClause, of *syntax.CStyleLoop, st *state, at Place) *state {
	evaluate := func(e syntax.ArithmExpr, st *state, none Status) *state {
		if e == nil {
			st.status = none
			return st
		}
		n, known := x.arithm(e, st, at)
		st.status = truth(n != 0, known)
		return st.living()
	}
	if st = evaluate(of.Init, st, OK); st == nil {
		return nil
	}
	ask := func(st *state) *state { return evaluate(of.Cond, st, OK) }
	next := func(st *state) *state { return evaluate(of.Post, st, OK) }
	return x.rounds(st, ask, next, c.Do, at)
}

// jump is break or continue, with how many loops it is about.
func (x *follower) jump(name string, args []Word, st *state, at Place) *state {
	n := 1
	if len(args) > 0 {
		if number, ok := number(args[0].Text); ok && args[0].Known && len(args) == 1 {
			n = int(number)
		} else {
			n = 0
		}
	}
	if n < 1 || len(x.loops) == 0 {
		x.giveUp(st, at, "which loop this is about cannot be told: "+hint)
		return st
	}
	st.status = OK
	i := max(0, len(x.loops)-n)
	l := x.loops[i]
	if name == "break" {
		l.breaks = append(l.breaks, end{state: st, at: at})
	} else {
		l.continues = append(l.continues, end{state: st, at: at})
	}
	return nil
}
