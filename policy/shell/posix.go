// SPDX-License-Identifier: Apache-2.0

package shell

import (
	"strings"

	"mvdan.cc/sh/v3/syntax"
)

// bashOnly reports whether a statement, without those in it, is none of a POSIX shell.
func bashOnly(s *syntax.Stmt) bool {
	for _, r := range s.Redirs {
		if r.Op == syntax.WordHdoc || r.Op == syntax.RdrAll || r.Op == syntax.AppAll || r.N != nil && len(r.N.Value) > 1 {
			return true
		}
	}
	switch c := s.Cmd.(type) {
	case *syntax.ArithmCmd, *syntax.TestClause, *syntax.LetClause, *syntax.CoprocClause, *syntax.TimeClause:
		return true
	case *syntax.DeclClause:
		if v := c.Variant.Value; v != "local" && v != "export" && v != "readonly" {
			return true
		}
	case *syntax.FuncDecl:
		return c.RsrvWord
	case *syntax.ForClause:
		if _, ok := c.Loop.(*syntax.CStyleLoop); ok || c.Select || c.Braces {
			return true
		}
	case *syntax.BinaryCmd:
		if c.Op == syntax.PipeAll {
			return true
		}
	case *syntax.CaseClause:
		for _, item := range c.Items {
			if item.Op != syntax.Break {
				return true
			}
		}
	}
	if s.Cmd == nil {
		return false
	}
	found := false
	syntax.Walk(s.Cmd, func(n syntax.Node) bool {
		switch n := n.(type) {
		case *syntax.Stmt:
			return false
		case *syntax.SglQuoted:
			found = found || n.Dollar
		case *syntax.DblQuoted:
			found = found || n.Dollar
		case *syntax.ProcSubst, *syntax.ExtGlob, *syntax.ArrayExpr:
			found = true
		case *syntax.Assign:
			found = found || n.Append || n.Index != nil
		case *syntax.ArithmExp:
			found = found || n.Bracket
		case *syntax.UnaryArithm:
			found = found || n.Op == syntax.Inc || n.Op == syntax.Dec
		case *syntax.BinaryArithm:
			found = found || n.Op == syntax.Pow || n.Op == syntax.Comma
		case *syntax.ParamExp:
			found = found || n.Excl || n.Index != nil || n.Slice != nil || n.Repl != nil || n.Names != 0
			if n.Exp != nil {
				switch n.Exp.Op {
				case syntax.UpperFirst, syntax.UpperAll, syntax.LowerFirst, syntax.LowerAll, syntax.OtherParamOps:
					found = true
				}
			}
		}
		return true
	})
	return found
}

// bashCommands are those that other shells do not have.
var bashCommands = strings.Fields("source declare typeset mapfile readarray shopt let builtin enable pushd popd dirs compgen complete disown")
