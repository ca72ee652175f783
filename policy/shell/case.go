// SPDX-License-Identifier: Apache-2.0

package shell

import "mvdan.cc/sh/v3/syntax"

func (x *follower) caseClause(c *syntax.CaseClause, st *state, at Place) *state {
	if x.isFirstArgument(c.Word) && st.open && len(st.params) == 0 && len(st.frames) == 0 && st.world.Open() && st.lost == nil && hasStart(c) {
		x.Note(at, `the script is followed as called with "start"`)
		st.params, st.open = []Word{{Text: "start", Known: true}}, false
	}
	text, known := x.literal(c.Word, st)
	if st.dead {
		return nil
	}
	var joined *state
	for _, item := range c.Items {
		if st == nil {
			break
		}
		if item.Op != syntax.Break {
			x.giveUp(st, at, "how this case goes on cannot be told: "+hint)
			return st
		}
		may, must := false, false
		for _, w := range item.Patterns {
			pattern, ok := x.pattern(w, st)
			switch matches, sure := matchGlob(pattern, text); {
			case !known && ok && pattern == "*":
				may, must = true, true
			case !known || !ok || !sure:
				may = true
			case matches:
				may, must = true, true
			}
		}
		if !may {
			continue
		}
		run := st
		if must {
			st = nil
		} else {
			st = st.clone()
		}
		run.status = OK
		joined = x.join(joined, x.list(item.Stmts, run), at, "it depends on a condition"+mayRun)
	}
	if st != nil {
		st.status = OK
	}
	return x.join(joined, st, at, "it depends on a condition"+mayRun)
}

// isFirstArgument reports whether a word is $1, which scripts of init are given.
func (x *follower) isFirstArgument(w *syntax.Word) bool {
	if len(w.Parts) != 1 {
		return false
	}
	part := w.Parts[0]
	if q, ok := part.(*syntax.DblQuoted); ok && len(q.Parts) == 1 {
		part = q.Parts[0]
	}
	p, ok := part.(*syntax.ParamExp)
	return ok && p.Param.Value == "1" && isPlain(p)
}

func hasStart(c *syntax.CaseClause) bool {
	for _, item := range c.Items {
		for _, w := range item.Patterns {
			if w.Lit() == "start" {
				return true
			}
		}
	}
	return false
}
