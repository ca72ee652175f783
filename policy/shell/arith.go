// SPDX-License-Identifier: Apache-2.0

package shell

import (
	"strconv"
	"strings"

	"mvdan.cc/sh/v3/syntax"
)

func formatNumber(n int64) string { return strconv.FormatInt(n, 10) }

// number reads a plain decimal number. Others, such as 010, mean different
// things to different commands.
func number(text string) (int64, bool) {
	n, err := strconv.ParseInt(text, 10, 64)
	return n, err == nil && formatNumber(n) == text
}

// arithm evaluates an expression.
func (x *follower) arithm(e syntax.ArithmExpr, st *state, at Place) (n int64, known bool) {
	switch e := e.(type) {
	case nil:
		return 0, true
	case *syntax.Word:
		return x.arithmWord(e, st, at)
	case *syntax.ParenArithm:
		return x.arithm(e.X, st, at)
	case *syntax.UnaryArithm:
		return x.unary(e, st, at)
	case *syntax.BinaryArithm:
		return x.binaryArithm(e, st, at)
	}
	x.giveUp(st, at, "what this computes cannot be told: "+hint)
	return 0, false
}

func (x *follower) arithmWord(w *syntax.Word, st *state, at Place) (int64, bool) {
	if name := w.Lit(); isName(name) {
		v := x.value(name, nil, st, at)
		if st.options.nounset && !v.set {
			if x.missing(st, v, at) {
				return 0, false
			}
		}
		if !v.known || v.all {
			return 0, false
		}
		return x.expression(v.text, st, at)
	}
	text, known := x.literal(w, st)
	if known && !isName(text) {
		return x.expression(text, st, at)
	}
	return x.arithmText(text, known)
}

// expression evaluates what is only known to be an expression when it is
// evaluated, such as the argument of let.
func (x *follower) expression(text string, st *state, at Place) (int64, bool) {
	if n, known := x.arithmText(text, true); known {
		return n, true
	}
	if !strings.ContainsAny(text, "=+-") || x.posix {
		return 0, false // it sets nothing
	}
	if x.depth >= maxDepth {
		return 0, false
	}
	parsed, err := syntax.NewParser(syntax.Variant(syntax.LangBash)).Parse(strings.NewReader("(("+text+"))"), "")
	if err != nil || len(parsed.Stmts) != 1 {
		x.giveUp(st, at, "what this computes cannot be told: "+hint)
		return 0, false
	}
	c, ok := parsed.Stmts[0].Cmd.(*syntax.ArithmCmd)
	if !ok {
		x.giveUp(st, at, "what this computes cannot be told: "+hint)
		return 0, false
	}
	if _, isWord := c.X.(*syntax.Word); isWord {
		return 0, false // such as -08, which is no number
	}
	x.depth++
	defer func() { x.depth-- }()
	return x.arithm(c.X, st, at)
}

// arithmText is the number that a value is.
func (x *follower) arithmText(text string, known bool) (int64, bool) {
	if text = strings.TrimSpace(text); text == "" {
		return 0, known
	}
	n, ok := number(text)
	return n, ok && known
}

func (x *follower) unary(e *syntax.UnaryArithm, st *state, at Place) (int64, bool) {
	if e.Op == syntax.Inc || e.Op == syntax.Dec {
		n, known := x.arithm(e.X, st, at)
		after := n + 1
		if e.Op == syntax.Dec {
			after = n - 1
		}
		x.arithmAssign(e.X, after, known, st, at)
		if e.Post {
			return n, known
		}
		return after, known
	}
	n, known := x.arithm(e.X, st, at)
	switch e.Op {
	case syntax.Not:
		return bit(n == 0), known
	case syntax.BitNegation:
		return ^n, known
	case syntax.Minus:
		return -n, known
	}
	return n, known
}

func bit(is bool) int64 {
	if is {
		return 1
	}
	return 0
}

func (x *follower) arithmAssign(to syntax.ArithmExpr, n int64, known bool, st *state, at Place) {
	w, ok := to.(*syntax.Word)
	if ok && isName(w.Lit()) {
		x.assign(st, w.Lit(), Text{formatNumber(n), known}, at)
		return
	}
	if ok && len(w.Parts) == 1 {
		if p, ok := w.Parts[0].(*syntax.ParamExp); ok && p.Index != nil && isName(p.Param.Value) {
			st.setUnknown(p.Param.Value)
			return
		}
	}
	x.giveUp(st, at, "what this sets cannot be told: "+hint)
}

func (x *follower) binaryArithm(e *syntax.BinaryArithm, st *state, at Place) (int64, bool) {
	switch e.Op {
	case syntax.Assgn:
		n, known := x.arithm(e.Y, st, at)
		x.arithmAssign(e.X, n, known, st, at)
		return n, known
	case syntax.AddAssgn, syntax.SubAssgn, syntax.MulAssgn, syntax.QuoAssgn, syntax.RemAssgn, syntax.AndAssgn, syntax.OrAssgn,
		syntax.XorAssgn, syntax.ShlAssgn, syntax.ShrAssgn:
		a, known1 := x.arithm(e.X, st, at)
		b, known2 := x.arithm(e.Y, st, at)
		op := map[syntax.BinAritOperator]syntax.BinAritOperator{syntax.AddAssgn: syntax.Add, syntax.SubAssgn: syntax.Sub, syntax.MulAssgn: syntax.Mul,
			syntax.QuoAssgn: syntax.Quo, syntax.RemAssgn: syntax.Rem, syntax.AndAssgn: syntax.And, syntax.OrAssgn: syntax.Or,
			syntax.XorAssgn: syntax.Xor, syntax.ShlAssgn: syntax.Shl, syntax.ShrAssgn: syntax.Shr}[e.Op]
		n, ok := x.compute(op, a, b, known1 && known2, st, at)
		x.arithmAssign(e.X, n, ok, st, at)
		return n, ok
	case syntax.AndArit, syntax.OrArit, syntax.TernQuest:
		return x.choice(e, st, at)
	}
	a, known1 := x.arithm(e.X, st, at)
	b, known2 := x.arithm(e.Y, st, at)
	return x.compute(e.Op, a, b, known1 && known2, st, at)
}

// choice is what evaluates one side only. If it is not known which, that must not set anything.
func (x *follower) choice(e *syntax.BinaryArithm, st *state, at Place) (int64, bool) {
	a, known := x.arithm(e.X, st, at)
	if !known {
		if setsSomething(e.Y) {
			x.giveUp(st, at, "what this sets cannot be told: "+hint)
		}
		return 0, false
	}
	switch e.Op {
	case syntax.AndArit:
		if a == 0 {
			return 0, true
		}
	case syntax.OrArit:
		if a != 0 {
			return 1, true
		}
	default:
		branches, ok := e.Y.(*syntax.BinaryArithm)
		if !ok || branches.Op != syntax.TernColon {
			return 0, false
		}
		if a != 0 {
			return x.arithm(branches.X, st, at)
		}
		return x.arithm(branches.Y, st, at)
	}
	b, known := x.arithm(e.Y, st, at)
	return bit(b != 0), known
}

func setsSomething(e syntax.ArithmExpr) bool {
	sets := false
	syntax.Walk(e, func(n syntax.Node) bool {
		switch n := n.(type) {
		case *syntax.UnaryArithm:
			sets = sets || n.Op == syntax.Inc || n.Op == syntax.Dec
		case *syntax.BinaryArithm:
			sets = sets || n.Op == syntax.Assgn || n.Op >= syntax.AddAssgn && n.Op <= syntax.ShrAssgn
		case *syntax.CmdSubst:
			sets = true
		}
		return true
	})
	return sets
}

func (x *follower) compute(op syntax.BinAritOperator, a, b int64, known bool, st *state, at Place) (int64, bool) {
	switch op {
	case syntax.Add:
		return a + b, known
	case syntax.Sub:
		return a - b, known
	case syntax.Mul:
		return a * b, known
	case syntax.Quo, syntax.Rem:
		if b == 0 || a == -1<<63 {
			if known {
				x.giveUp(st, at, "it divides by zero: "+hint)
			}
			return 0, false
		}
		if op == syntax.Quo {
			return a / b, known
		}
		return a % b, known
	case syntax.Pow:
		if b < 0 || b > 62 {
			return 0, false
		}
		n := int64(1)
		for range b {
			n *= a
		}
		return n, known
	case syntax.Eql:
		return bit(a == b), known
	case syntax.Neq:
		return bit(a != b), known
	case syntax.Lss:
		return bit(a < b), known
	case syntax.Leq:
		return bit(a <= b), known
	case syntax.Gtr:
		return bit(a > b), known
	case syntax.Geq:
		return bit(a >= b), known
	case syntax.And:
		return a & b, known
	case syntax.Or:
		return a | b, known
	case syntax.Xor:
		return a ^ b, known
	case syntax.Shl, syntax.Shr:
		if b < 0 || b > 62 {
			return 0, false
		}
		if op == syntax.Shl {
			return a << b, known
		}
		return a >> b, known
	case syntax.Comma:
		return b, known
	}
	x.giveUp(st, at, "what this computes cannot be told: "+hint)
	return 0, false
}
