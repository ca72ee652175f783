// SPDX-License-Identifier: Apache-2.0

package iptables

import (
	"errors"
	"maps"
	"path"
	"slices"
	"strings"

	"mvdan.cc/sh/v3/expand"
	"mvdan.cc/sh/v3/syntax"
)

// script follows a shell script as far as it says by itself what it does: plain
// commands, variables that it sets, loops over words, functions. What hangs on
// a condition is done doubtfully: then it may let nothing in, but may drop.
type script struct {
	*ruleset
	file      string
	lines     []string
	known     map[string]string // variables that the script has set
	functions map[string]*syntax.Stmt
	called    map[string]bool
	depth     int
	steps     int
	done      bool // by exit
}

const (
	maxDepth       = 16
	maxScriptSteps = 20000

	exportHint = "run the script, and import what iptables-save prints"
	mayRun     = ", so what is in it may drop, but lets nothing in: " + exportHint
)

func (s *ruleset) readScript(file, text string) {
	sc := &script{ruleset: s, file: file, lines: strings.Split(text, "\n"), known: make(map[string]string),
		functions: make(map[string]*syntax.Stmt), called: make(map[string]bool)}
	parsed, err := syntax.NewParser(syntax.Variant(syntax.LangBash)).Parse(strings.NewReader(text), file)
	var bad syntax.ParseError
	if errors.As(err, &bad) {
		s.lost(sc.line(int(bad.Pos.Line())), "cannot be read as a shell script, so nothing from here on is: %s", bad.Text)
	} else if err != nil {
		s.lost(place{file: file}, "cannot be read as a shell script: %s", err)
	}
	if parsed == nil {
		return
	}
	sc.run(parsed.Stmts, false)
	for name, body := range sc.functions {
		if !sc.called[name] {
			sc.note(sc.at(body), "function %s is not called", name)
		}
	}
}

func (sc *script) line(n int) place {
	text := ""
	if n >= 1 && n <= len(sc.lines) {
		text = strings.TrimSpace(sc.lines[n-1])
	}
	return place{sc.file, n, text}
}

// at is the place of a node. A command over several lines is written as one.
func (sc *script) at(n syntax.Node) place {
	p := sc.line(int(n.Pos().Line()))
	for next := p.line; strings.HasSuffix(p.text, "\\") && next < len(sc.lines); next++ {
		p.text = strings.TrimSpace(strings.TrimSuffix(p.text, "\\")) + " " + strings.TrimSpace(sc.lines[next])
	}
	return p
}

func (sc *script) run(list []*syntax.Stmt, doubtful bool) {
	for _, s := range list {
		if sc.done {
			sc.note(sc.at(s), "nothing from here on is run: the script has ended before")
			return
		}
		sc.statement(s, doubtful)
	}
}

func (sc *script) statement(s *syntax.Stmt, doubtful bool) {
	if sc.steps++; sc.steps > maxScriptSteps {
		if !sc.done {
			sc.lost(sc.at(s), "the script goes on for too long: "+exportHint)
		}
		sc.done = true
		return
	}
	switch c := s.Cmd.(type) {
	case nil:
	case *syntax.CallExpr:
		sc.call(s, c, doubtful)
	case *syntax.Block:
		sc.run(c.Stmts, doubtful)
	case *syntax.Subshell:
		sc.run(c.Stmts, doubtful)
	case *syntax.DeclClause:
		sc.assign(c.Args, doubtful)
	case *syntax.FuncDecl:
		sc.functions[c.Name.Value] = c.Body
	case *syntax.ForClause:
		sc.loop(c, s, doubtful)
	case *syntax.BinaryCmd:
		sc.binary(c, s, doubtful)
	case *syntax.TestClause, *syntax.ArithmCmd, *syntax.LetClause:
	default:
		sc.condition(s, s.Cmd, "it depends on a condition"+mayRun)
	}
}

// condition does all that stands in a part of a statement, doubtfully.
func (sc *script) condition(s *syntax.Stmt, part syntax.Node, why string) {
	syntax.Walk(part, func(n syntax.Node) bool {
		inner, ok := n.(*syntax.Stmt)
		if !ok || inner == s {
			return true
		}
		switch c := inner.Cmd.(type) {
		case *syntax.DeclClause:
			sc.assign(c.Args, true)
		case *syntax.CallExpr:
			words := sc.words(c.Args)
			if isIPTables(words) || len(words) > 0 && sc.functions[words[0].text] != nil {
				sc.lost(sc.at(s), "%s", why)
			}
			sc.statement(inner, true)
			return false
		}
		return true
	})
}

func (sc *script) binary(c *syntax.BinaryCmd, s *syntax.Stmt, doubtful bool) {
	sc.statement(c.X, doubtful)
	if c.Op != syntax.AndStmt && c.Op != syntax.OrStmt {
		sc.statement(c.Y, doubtful)
		return
	}
	call, ok := c.X.Cmd.(*syntax.CallExpr)
	succeeds := ok && !c.X.Negated && isIPTables(sc.words(call.Args)) // it has to, to be worth translating
	switch {
	case succeeds && c.Op == syntax.AndStmt:
		sc.statement(c.Y, doubtful)
	case succeeds:
		if call, ok := c.Y.Cmd.(*syntax.CallExpr); ok && isIPTables(sc.words(call.Args)) {
			sc.note(sc.at(c.Y), "run only if the command before it fails, which is taken not to happen")
		}
	default:
		sc.condition(s, c.Y, "it depends on the command before it"+mayRun)
	}
}

func (sc *script) loop(c *syntax.ForClause, s *syntax.Stmt, doubtful bool) {
	items, ok := c.Loop.(*syntax.WordIter)
	if !ok || c.Select {
		sc.condition(s, c, "how often the loop runs cannot be told"+mayRun)
		return
	}
	for _, w := range sc.words(items.Items) {
		if w.hidden {
			delete(sc.known, items.Name.Value)
			sc.condition(s, c, "what the loop goes over cannot be told"+mayRun)
			return
		}
		sc.known[items.Name.Value] = w.text
		sc.run(c.Do, doubtful)
	}
}

// silent are commands that say nothing about packets.
var silent = []string{"echo", "printf", "set", "true", ":", "test", "[", "sleep", "umask", "shift", "which", "logger", "trap",
	"log_daemon_msg", "log_end_msg", "log_action_msg", "break", "continue", "return"}

func (sc *script) call(s *syntax.Stmt, c *syntax.CallExpr, doubtful bool) {
	if len(c.Args) == 0 {
		sc.assign(c.Assigns, doubtful)
		return
	}
	words := withoutPrefix(sc.words(c.Args))
	if len(words) == 0 {
		return
	}
	at, name := sc.at(s), path.Base(words[0].text)
	switch body := sc.functions[words[0].text]; {
	case isIPTables(words):
		sc.iptables(name, words[1:], s, at, doubtful)
	case body != nil && !words[0].hidden:
		sc.function(words, body, at, doubtful)
	case name == "exit":
		sc.done = !doubtful
	case name == "." || name == "source" || name == "eval" || words[0].hidden:
		sc.lost(at, "what this runs cannot be told: "+exportHint)
	case slices.Contains([]string{"nft", "ebtables", "arptables", "ipset", "firewall-cmd", "ufw"}, name):
		sc.lost(at, "%s is not iptables", name)
	case slices.Contains(silent, name) && !slices.ContainsFunc(s.Redirs, writesFile):
	case name == "read" || name == "unset" || name == "getopts":
		for _, w := range words[1:] {
			delete(sc.known, w.text)
		}
	default:
		sc.note(at, "no rule: what it sets has to be set without the script from now on")
	}
}

// writesFile reports whether a redirection puts something into a file that
// matters.
func writesFile(r *syntax.Redirect) bool {
	switch r.Op {
	case syntax.RdrOut, syntax.AppOut, syntax.RdrAll, syntax.AppAll:
		return r.Word != nil && r.Word.Lit() != "/dev/null"
	}
	return false
}

// positional are the parameters of a function.
var positional = strings.Fields("1 2 3 4 5 6 7 8 9")

func (sc *script) function(words []word, body *syntax.Stmt, at place, doubtful bool) {
	sc.called[words[0].text] = true
	if sc.depth >= maxDepth {
		sc.lost(at, "functions call each other too deeply: "+exportHint)
		return
	}
	outer := maps.Clone(sc.known)
	for i, name := range positional {
		delete(sc.known, name)
		if i+1 < len(words) && !words[i+1].hidden {
			sc.known[name] = words[i+1].text
		}
	}
	sc.depth++
	sc.statement(body, doubtful)
	sc.depth--
	for _, name := range positional {
		delete(sc.known, name)
		if value, ok := outer[name]; ok {
			sc.known[name] = value
		}
	}
}

// withoutPrefix leaves out what only says how a command is run.
func withoutPrefix(words []word) []word {
	for len(words) > 1 && !words[0].hidden && slices.Contains([]string{"sudo", "command", "exec", "nice", "doas", "env"}, path.Base(words[0].text)) {
		words = words[1:]
		for len(words) > 1 && strings.HasPrefix(words[0].text, "-") {
			words = words[1:]
		}
	}
	return words
}

// isIPTables reports whether a command is one of iptables, in any of its kinds.
func isIPTables(words []word) bool {
	words = withoutPrefix(words)
	if len(words) == 0 || words[0].hidden {
		return false
	}
	name := plainName(path.Base(words[0].text))
	return name == "iptables" || name == "ip6tables" || isSave(name) || isRestore(name)
}

// plainName is that of iptables-legacy, iptables-nft-save and so on without
// what they work by.
func plainName(name string) string {
	return strings.NewReplacer("-legacy", "", "-nft", "").Replace(name)
}

func isSave(name string) bool    { return name == "iptables-save" || name == "ip6tables-save" }
func isRestore(name string) bool { return name == "iptables-restore" || name == "ip6tables-restore" }

// iptables does what one command of the script says.
func (sc *script) iptables(name string, args []word, s *syntax.Stmt, at place, doubtful bool) {
	name = plainName(name)
	f := v4
	if strings.HasPrefix(name, "ip6") {
		f = v6
	}
	switch {
	case isSave(name):
		sc.note(at, "Portcullis keeps what is open in its policy file: there is nothing to save")
		return
	case isRestore(name):
		adds := slices.ContainsFunc(args, func(w word) bool { return w.text == "-n" || w.text == "--noflush" })
		sc.restore(f, s, at, doubtful, adds)
		return
	}
	c := parseCommand(args)
	if c.verb == "" && slices.ContainsFunc(args, func(w word) bool { return w.hidden }) {
		c.bad = "what the command does, only the script knows"
	}
	sc.apply(f, c, at, doubtful)
}

// restore reads rules that stand in the script itself.
func (sc *script) restore(f family, s *syntax.Stmt, at place, doubtful, adds bool) {
	for _, r := range s.Redirs {
		if r.Hdoc == nil || doubtful {
			continue
		}
		if text, ok := sc.literal(r.Hdoc); ok {
			sc.load(f, sc.file, int(r.Hdoc.Pos().Line()), text, "", adds)
			return
		}
	}
	sc.lost(at, "which rules these are cannot be told: import the file that they are in")
}

// environment is that of the script, of which only what it sets itself is known.
type environment map[string]string

func (e environment) Get(name string) expand.Variable {
	if name == "IFS" {
		return expand.Variable{Set: true, Kind: expand.String, Str: " \t\n"}
	}
	value, ok := e[name]
	return expand.Variable{Set: ok, Kind: expand.String, Str: value}
}

func (e environment) Each(f func(string, expand.Variable) bool) {
	for name := range e {
		if !f(name, e.Get(name)) {
			return
		}
	}
}

func (sc *script) config() *expand.Config {
	return &expand.Config{Env: environment(sc.known), NoUnset: true}
}

// words expands the words of a command. What cannot be known is hidden.
func (sc *script) words(list []*syntax.Word) (out []word) {
	for _, w := range list {
		if sc.isKnown(w) {
			if fields, err := expand.Fields(sc.config(), w); err == nil {
				out = append(out, wordsOf(fields...)...)
				continue
			}
		}
		var text strings.Builder
		syntax.NewPrinter().Print(&text, w)
		out = append(out, word{text.String(), true})
	}
	return out
}

// literal expands what is not split into words.
func (sc *script) literal(w *syntax.Word) (string, bool) {
	if !sc.isKnown(w) {
		return "", false
	}
	text, err := expand.Literal(sc.config(), w)
	return text, err == nil
}

// isKnown reports whether all that a word is made of is known: text, and plain
// variables that the script has set.
func (sc *script) isKnown(w *syntax.Word) bool {
	known := true
	syntax.Walk(w, func(n syntax.Node) bool {
		switch n := n.(type) {
		case *syntax.ParamExp:
			_, set := sc.known[n.Param.Value]
			known = known && set && !n.Excl && !n.Length && !n.Width && n.Index == nil && n.Slice == nil && n.Repl == nil &&
				n.Names == 0 && n.Exp == nil
		case *syntax.CmdSubst, *syntax.ProcSubst, *syntax.ArithmExp, *syntax.ExtGlob, *syntax.BraceExp:
			known = false
		}
		return known
	})
	return known
}

func (sc *script) assign(list []*syntax.Assign, doubtful bool) {
	for _, a := range list {
		if a.Name == nil || a.Naked {
			continue
		}
		delete(sc.known, a.Name.Value)
		if doubtful || a.Array != nil || a.Index != nil || a.Append {
			continue
		}
		if a.Value == nil {
			sc.known[a.Name.Value] = ""
		} else if text, ok := sc.literal(a.Value); ok {
			sc.known[a.Name.Value] = text
		}
	}
}
