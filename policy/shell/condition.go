// SPDX-License-Identifier: Apache-2.0

package shell

import (
	"slices"
	"strings"

	"mvdan.cc/sh/v3/syntax"
)

// test is the command test, or [. It returns a status, and whether that is known.
func (x *follower) test(words []Word, st *state) (Status, bool) {
	args := words[1:]
	if words[0].Text == "[" {
		if len(args) == 0 || args[len(args)-1].Text != "]" {
			return 2, known(args)
		}
		args = args[:len(args)-1]
	}
	t := tester{x: x, st: st}
	return t.of(args)
}

// tester decides by the number of arguments, as POSIX has it.
type tester struct {
	x  *follower
	st *state
}

func (t tester) of(args []Word) (Status, bool) {
	if slices.ContainsFunc(args, func(w Word) bool { return w.many }) {
		return 0, false
	}
	text := func(i int) string {
		if args[i].Known {
			return args[i].Text
		}
		return "" // and no operator, unless it is meant to confuse
	}
	negated := func(s Status, known bool) (Status, bool) {
		if s == 2 {
			return s, known
		}
		return 1 - s, known
	}
	switch len(args) {
	case 0:
		return 1, true
	case 1:
		return truth(args[0].Text != "", true), args[0].Known
	}
	if !args[0].Known && len(args) > 2 && text(1) == "" {
		return 0, false
	}
	switch len(args) {
	case 2:
		switch {
		case !args[0].Known:
			return 0, false
		case text(0) == "!":
			return negated(t.of(args[1:]))
		}
		return t.unary(text(0), args[1])
	case 3:
		switch {
		case isBinary(text(1)):
			return t.binary(args[0], text(1), args[2])
		case !known(args):
			return 0, false
		case text(1) == "-a" || text(1) == "-o":
			return t.logical(args)
		case text(0) == "!":
			return negated(t.of(args[1:]))
		case text(0) == "(" && text(2) == ")":
			return t.of(args[1:2])
		}
		return 2, true
	}
	if len(args) == 4 && text(0) == "!" {
		return negated(t.of(args[1:]))
	}
	return t.logical(args)
}

// logical splits at -o, and then at -a. What POSIX leaves open is not known.
func (t tester) logical(args []Word) (Status, bool) {
	for _, op := range []string{"-o", "-a"} {
		i := slices.IndexFunc(args, func(w Word) bool { return w.Known && w.Text == op })
		if i < 0 {
			continue
		}
		if i == 0 || i == len(args)-1 || slices.ContainsFunc(args, func(w Word) bool { return w.Known && (w.Text == "(" || w.Text == ")") }) {
			return 0, false
		}
		left, known1 := t.of(args[:i])
		right, known2 := t.of(args[i+1:])
		switch {
		case left == 2 || right == 2:
			return 0, false
		case op == "-o" && (known1 && left == 0 || known2 && right == 0):
			return 0, true
		case op == "-a" && (known1 && left == 1 || known2 && right == 1):
			return 1, true
		case !known1 || !known2:
			return 0, false
		case op == "-o":
			return 1, true
		}
		return 0, true
	}
	return 0, false
}

func isBinary(op string) bool {
	return slices.Contains([]string{"=", "==", "!=", "-eq", "-ne", "-lt", "-le", "-gt", "-ge", "-nt", "-ot", "-ef", "<", ">"}, op)
}

func (t tester) unary(op string, arg Word) (Status, bool) {
	switch op {
	case "-z":
		return truth(arg.Text == "", true), arg.Known
	case "-n":
		return truth(arg.Text != "", true), arg.Known
	case "-x", "-e", "-f", "-r":
		if arg.Known && isIPTables(arg.Text) && strings.HasPrefix(arg.Text, "/") {
			return 0, true // it has to be there for its rules to be
		}
		if arg.Known && arg.Text == "" {
			return 1, true
		}
		return 0, false
	}
	if len(op) == 2 && op[0] == '-' {
		return 0, false
	}
	return 2, arg.Known
}

func (t tester) binary(a Word, op string, b Word) (Status, bool) {
	if !a.Known || !b.Known {
		return 0, false
	}
	switch op {
	case "==":
		if t.x.posix {
			return 0, false
		}
		return truth(a.Text == b.Text, true), true
	case "=":
		return truth(a.Text == b.Text, true), true
	case "!=":
		return truth(a.Text != b.Text, true), true
	}
	if strings.HasPrefix(op, "-") && op != "-nt" && op != "-ot" && op != "-ef" {
		m, ok1 := number(a.Text)
		n, ok2 := number(b.Text)
		if !ok1 || !ok2 {
			return 0, false
		}
		return truth(compare(op, m, n), true), true
	}
	return 0, false
}

func compare(op string, m, n int64) bool {
	switch op {
	case "-eq":
		return m == n
	case "-ne":
		return m != n
	case "-lt":
		return m < n
	case "-le":
		return m <= n
	case "-gt":
		return m > n
	}
	return m >= n
}

// testClause is [[ ]].
func (x *follower) testClause(e syntax.TestExpr, st *state, at Place) (holds, known bool) {
	switch e := e.(type) {
	case *syntax.Word:
		text, known := x.literal(e, st)
		return text != "", known
	case *syntax.ParenTest:
		return x.testClause(e.X, st, at)
	case *syntax.UnaryTest:
		return x.unaryTest(e, st, at)
	case *syntax.BinaryTest:
		return x.binaryTest(e, st, at)
	}
	return false, false
}

func (x *follower) unaryTest(e *syntax.UnaryTest, st *state, at Place) (holds, known bool) {
	if e.Op == syntax.TsNot {
		holds, known = x.testClause(e.X, st, at)
		return !holds, known
	}
	w, ok := e.X.(*syntax.Word)
	if !ok {
		return false, false
	}
	text, certain := x.literal(w, st)
	switch e.Op {
	case syntax.TsEmpStr:
		return text == "", certain
	case syntax.TsNempStr:
		return text != "", certain
	case syntax.TsVarSet:
		if certain && isName(text) {
			if v := x.value(text, nil, st, at); v.known {
				return v.set, true
			}
		}
	case syntax.TsExec, syntax.TsExists, syntax.TsRegFile, syntax.TsRead:
		if certain && isIPTables(text) && strings.HasPrefix(text, "/") {
			return true, true
		}
	}
	return false, false
}

func (x *follower) binaryTest(e *syntax.BinaryTest, st *state, at Place) (holds, known bool) {
	if e.Op == syntax.AndTest || e.Op == syntax.OrTest {
		return x.logicalTest(e, st, at)
	}
	a, ok1 := e.X.(*syntax.Word)
	b, ok2 := e.Y.(*syntax.Word)
	if !ok1 || !ok2 {
		return false, false
	}
	left, known1 := x.literal(a, st)
	switch e.Op {
	case syntax.TsMatch, syntax.TsMatchShort, syntax.TsNoMatch:
		pattern, known2 := x.pattern(b, st)
		matches, sure := matchGlob(pattern, left)
		return matches == (e.Op != syntax.TsNoMatch), known1 && known2 && sure
	case syntax.TsReMatch:
		_, _ = x.literal(b, st)
		return false, false
	case syntax.TsEql, syntax.TsNeq, syntax.TsLeq, syntax.TsGeq, syntax.TsLss, syntax.TsGtr:
		right, known2 := x.literal(b, st)
		// Names are evaluated, and all else that is no number is not followed.
		m, ok1 := number(left)
		n, ok2 := number(right)
		return compare(e.Op.String(), m, n), known1 && known2 && ok1 && ok2
	}
	_, _ = x.literal(b, st)
	return false, false
}

func (x *follower) logicalTest(e *syntax.BinaryTest, st *state, at Place) (holds, known bool) {
	a, known1 := x.testClause(e.X, st, at)
	decides := e.Op == syntax.OrTest
	if known1 && a == decides {
		return decides, true
	}
	b, known2 := x.testClause(e.Y, st, at)
	switch {
	case known2 && b == decides && !known1:
		return decides, true
	case !known1 || !known2:
		return false, false
	}
	return b, true
}
