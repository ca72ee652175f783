// SPDX-License-Identifier: Apache-2.0

package shell

import (
	"slices"
	"strings"

	"mvdan.cc/sh/v3/syntax"
)

// redirected runs a command with what it reads and where it prints to.
func (x *follower) redirected(s *syntax.Stmt, st *state, at Place) *state {
	in, out, mayFail, mute := st.in, st.out, false, false
	readsOwn := false
	for _, r := range s.Redirs {
		fd := ""
		if r.N != nil {
			fd = r.N.Value
		}
		if strings.HasPrefix(fd, "{") {
			x.giveUp(st, at, "where this is read from cannot be told: "+hint)
			continue
		}
		switch r.Op {
		case syntax.Hdoc, syntax.DashHdoc:
			if text, known := x.hereDocument(r, st); fd == "" || fd == "0" {
				readsOwn = true
				in = input{Text: Text{text, known}}
				if r.Hdoc != nil {
					in.line = int(r.Hdoc.Pos().Line())
				}
			}
		case syntax.WordHdoc:
			if text, known := x.literal(r.Word, st); fd == "" || fd == "0" {
				readsOwn = true
				in = input{Text{text + "\n", known}, at.Line}
			}
		case syntax.RdrIn, syntax.RdrInOut:
			name, known := x.literal(r.Word, st)
			if sub, ok := processSubstitution(r.Word); ok {
				readsOwn = true
				in = input{Text: x.substitute(sub.Stmts, st, at)}
				continue
			}
			mayFail = mayFail || !known || !slices.Contains(alwaysThere, name)
			if fd == "" || fd == "0" {
				readsOwn = true
				in = input{Text: Text{Known: known && name == "/dev/null"}}
			}
		case syntax.DplIn:
			readsOwn = true
			in = input{}
			mayFail = mayFail || !isOpen(r.Word)
		case syntax.DplOut:
			mayFail = mayFail || !isOpen(r.Word)
			if to := r.Word.Lit(); (fd == "" || fd == "1") && to != "1" {
				mute = true
			}
		case syntax.RdrOut, syntax.AppOut, syntax.ClbOut, syntax.RdrAll, syntax.AppAll:
			name, known := x.literal(r.Word, st)
			_, toCommand := processSubstitution(r.Word)
			mayFail = mayFail || !toCommand && (!known || !slices.Contains(alwaysThere, name))
			mute = mute || fd == "" || fd == "1"
			if call, ok := s.Cmd.(*syntax.CallExpr); ok && len(call.Args) > 0 && slices.Contains(writers, call.Args[0].Lit()) && !strings.HasPrefix(name, "/dev/") {
				x.Note(at, setElsewhere)
			}
		default:
			x.giveUp(st, at, "where this is read from cannot be told: "+hint)
		}
	}
	if st.dead {
		return nil
	}
	if call, ok := s.Cmd.(*syntax.CallExpr); ok && len(call.Args) > 0 && call.Args[0].Lit() == "exec" && len(call.Args) == 1 {
		for _, r := range s.Redirs {
			switch r.Op {
			case syntax.Hdoc, syntax.DashHdoc, syntax.WordHdoc, syntax.RdrIn, syntax.RdrInOut, syntax.DplIn:
				st.in = input{}
			}
		}
		st.out.Known = st.out.Known && len(s.Redirs) == 0
		st.status = OK
		if mayFail {
			st.status = Unknown
			if x.posix {
				x.leave(st.clone(), at)
			}
		}
		return st
	}
	var without *state
	if mayFail {
		without = st.clone()
		without.status = 1
		x.endsWithout(s.Cmd, without, at)
	}
	outerIn := st.in
	st.in = in
	if mute {
		st.out = Text{Known: true}
	}
	st = x.command(s.Cmd, st, at)
	if st != nil {
		if readsOwn {
			st.in = outerIn
		}
		if mute {
			st.out = out
		}
	}
	if without == nil {
		return st
	}
	if st == nil {
		return without
	}
	status := st.status
	if _, isLoop := s.Cmd.(*syntax.WhileClause); status == OK && !isLoop {
		without.status = Failed
	}
	return x.join(st, without, at, "whether the file that this reads or writes can be opened cannot be told"+mayRun)
}

// endsWithout ends the shell if that is what comes of a file that cannot be opened.
func (x *follower) endsWithout(c syntax.Command, without *state, at Place) {
	switch c := c.(type) {
	case *syntax.CallExpr:
		if x.posix && (len(c.Args) == 0 || c.Args[0].Lit() == "" || strings.Contains(specialNames, " "+strings.TrimPrefix(c.Args[0].Lit(), `\`)+" ")) {
			x.leave(without.clone(), at)
		}
	case *syntax.DeclClause:
		if x.posix {
			x.leave(without.clone(), at)
		}
	case nil, *syntax.Subshell, *syntax.ArithmCmd, *syntax.TestClause, *syntax.LetClause:
	default:
		if without.options.errexit && x.tested == 0 {
			x.leave(without.clone(), at)
		}
	}
}

// alwaysThere are the files that can be opened whatever happens.
var alwaysThere = []string{"/dev/null", "/dev/stdout", "/dev/stderr", "/dev/tty"}

// isOpen reports whether what is behind >& or <& is open for certain.
func isOpen(w *syntax.Word) bool { return slices.Contains([]string{"0", "1", "2", "-"}, w.Lit()) }

// writers print what others read, and say nothing about rules.
var writers = []string{"echo", "printf", "cat", ":"}

const setElsewhere = "no rule: what it sets has to be set without the script from now on"

func processSubstitution(w *syntax.Word) (*syntax.ProcSubst, bool) {
	if len(w.Parts) != 1 {
		return nil, false
	}
	p, ok := w.Parts[0].(*syntax.ProcSubst)
	return p, ok
}

// hereDocument is the text of one, as the command reads it.
func (x *follower) hereDocument(r *syntax.Redirect, st *state) (string, bool) {
	if r.Hdoc == nil {
		return "", true
	}
	quoted := false
	syntax.Walk(r.Word, func(n syntax.Node) bool {
		switch n := n.(type) {
		case *syntax.SglQuoted, *syntax.DblQuoted:
			quoted = true
		case *syntax.Lit:
			quoted = quoted || strings.Contains(n.Value, `\`)
		}
		return true
	})
	if quoted {
		text := r.Hdoc.Lit()
		if r.Op == syntax.DashHdoc {
			text = withoutTabs(text)
		}
		return text, true
	}
	text, known := x.joinPieces(x.pieces(r.Hdoc.Parts, st, heredoc), st)
	if r.Op == syntax.DashHdoc {
		// Tabs of values stay, and only those of the text go.
		if known = known && !strings.Contains(text, "\t"); !known && strings.Contains(r.Hdoc.Lit(), "\t") {
			text, known = withoutTabs(text), len(r.Hdoc.Parts) == 1
		}
	}
	return text, known
}

func withoutTabs(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		b.WriteString(strings.TrimLeft(line, "\t"))
	}
	return b.String()
}
