// SPDX-License-Identifier: Apache-2.0

package shell

import (
	"errors"
	"path"
	"slices"
	"strings"

	"mvdan.cc/sh/v3/syntax"
)

const (
	maxSteps    = 50_000 // of statements in one script
	maxDepth    = 32     // of functions that call each other
	maxRounds   = 4_000  // of one loop
	maxText     = 1 << 20
	maxComments = 200 // that end in a backslash

	hint   = "run the script, and import what iptables-save prints"
	mayRun = ", so what is in it may drop, but lets nothing in: " + hint
)

// follower follows one script.
type follower struct {
	Listener
	lines  []string
	posix  bool // the shell may be any, such as dash
	tested int  // how many commands around are asked for their status
	steps  int
	depth  int
	at     *Place // of what a string holds
	called map[string]bool
	ends   *[]end // of the shell or the subshell
	leaves *[]end // of the function
	loops  []*loop
	nested int  // subshells
	gone   bool // it is followed no longer
}

// end is a state in which something was left before its end.
type end struct {
	*state
	at Place
}

// Follow follows a script, from a world on, and returns what that has become.
func Follow(file, text string, w World, l Listener) World {
	x := &follower{Listener: l, lines: strings.Split(text, "\n"), called: make(map[string]bool)}
	st := newState(w)
	x.interpret(st)
	if at, bad := x.carriage(text); bad {
		x.giveUp(st, at, "the line ends in a carriage return, which the shell takes for a part of the command: write all lines as Unix does")
	}
	parsed, text, err := parse(text, file)
	x.lines = strings.Split(text, "\n")
	var bad syntax.ParseError
	switch {
	case errors.As(err, &bad):
		x.giveUp(st, x.line(int(bad.Pos.Line())), "cannot be read as a shell script, so nothing from here on is, and nothing is opened: "+bad.Text)
	case err != nil:
		x.giveUp(st, Place{}, "cannot be read as a shell script: "+err.Error())
	}
	if parsed == nil {
		return x.finish(st)
	}
	var ends []end
	x.ends = &ends
	functions := make(map[string]*syntax.Stmt)
	if st = x.list(parsed.Stmts, st); st != nil {
		ends = append(ends, end{state: st})
	}
	syntax.Walk(parsed, func(n syntax.Node) bool {
		if f, ok := n.(*syntax.FuncDecl); ok {
			functions[f.Name.Value] = f.Body
		}
		return true
	})
	final := x.conclude(ends)
	for name, body := range functions {
		if !x.called[name] {
			x.Note(x.place(body), "function "+name+" is not called")
		}
	}
	return final
}

// parse reads a script. To the parser, a backslash at the end of a comment goes
// on with the next line in which nothing is a comment any more, and to shells it
// is a part of the comment: what is read has a blank there.
func parse(text, file string) (f *syntax.File, read string, err error) {
	for range maxComments {
		parsed, err := syntax.NewParser(syntax.Variant(syntax.LangBash), syntax.KeepComments(true)).Parse(strings.NewReader(text), file)
		if parsed == nil {
			return nil, text, err
		}
		first := len(text) // what is behind it was read in another way
		syntax.Walk(parsed, func(n syntax.Node) bool {
			if c, ok := n.(*syntax.Comment); ok {
				begin := int(c.Hash.Offset())
				if end := strings.IndexByte(text[begin:], '\n') + begin; end > begin && text[end-1] == '\\' {
					first = min(first, end-1)
				}
			}
			return true
		})
		if first == len(text) {
			return parsed, text, err
		}
		text = text[:first] + " " + text[first+1:]
	}
	return nil, text, errors.New("too many comments end in a backslash")
}

// conclude joins the states in which a script may have ended.
func (x *follower) conclude(ends []end) World {
	var st *state
	var open *state
	for _, e := range slices.Backward(ends) { // the end of the file first, which has no line
		e.state = x.runTrap(e.state)
		w := x.finish(e.state)
		switch {
		case w.Open():
			open = e.state // whatever else comes in, comes in here, too
		case st == nil:
			st = e.state
		case st.world.Join(w):
			if e.at.Line > 0 {
				x.Lost(e.at, "whether the script ends here cannot be told, so what follows may drop, but lets nothing in: "+hint)
			}
		}
	}
	if st == nil {
		return open.world
	}
	return st.world
}

// finish is the world behind a state.
func (x *follower) finish(st *state) World {
	if st.lost != nil {
		st.world.Doubt(*st.lost)
	}
	return st.world
}

// interpret reads the first line, which says by what a script is run. That is
// if it is not run by bash FILE: so what else it says may hold, or not.
func (x *follower) interpret(st *state) {
	line, ok := strings.CutPrefix(x.lines[0], "#!")
	words := strings.Fields(line)
	if !ok || len(words) == 0 {
		return
	}
	if path.Base(words[0]) == "env" {
		if words = words[1:]; len(words) > 0 && words[0] == "-S" {
			words = words[1:]
		}
	}
	if len(words) == 0 || !slices.Contains([]string{"bash", "sh", "dash", "ash"}, path.Base(words[0])) {
		x.giveUp(st, x.line(1), "only sh and bash are followed: "+hint)
		return
	}
	x.posix = path.Base(words[0]) != "bash"
	for _, w := range words[1:] {
		for _, c := range strings.TrimPrefix(w, "-") {
			switch c {
			case 'e':
				st.options.errexit, st.options.perhaps = true, true
			case 'u':
				st.options.nounset, st.options.perhaps = true, true
			case 'x', 'v', 'l':
			default:
				x.giveUp(st, x.line(1), "what this changes cannot be told: "+hint)
			}
		}
	}
}

// carriage finds a line that ends as on Windows.
func (x *follower) carriage(text string) (Place, bool) {
	for i, line := range x.lines {
		if strings.ContainsAny(line, "\r\x00") {
			return x.line(i + 1), true
		}
	}
	return Place{}, false
}

func (x *follower) line(n int) Place {
	text := ""
	if n >= 1 && n <= len(x.lines) {
		text = strings.TrimSpace(x.lines[n-1])
	}
	return Place{n, text}
}

// place is where a node stands. A command over several lines is written as one.
func (x *follower) place(n syntax.Node) Place {
	if x.at != nil {
		return *x.at
	}
	p := x.line(int(n.Pos().Line()))
	for next := p.Line; strings.HasSuffix(p.Text, "\\") && next < len(x.lines); next++ {
		p.Text = strings.TrimSpace(strings.TrimSuffix(p.Text, "\\")) + " " + strings.TrimSpace(x.lines[next])
	}
	return p
}

// giveUp says that what the script does from here on cannot be told, so that
// whatever comes may be held back.
func (x *follower) giveUp(st *state, at Place, why string) {
	x.Lost(at, why)
	if st.lost == nil {
		st.lost = &at
	}
	st.forget()
}

// join takes what differs between two ways for doubtful.
func (x *follower) join(a, b *state, at Place, why string) *state {
	switch {
	case a == nil:
		return b
	case b == nil || a == b:
		return a
	}
	if a.join(b) && at.Line > 0 {
		x.Lost(at, why)
	}
	return a
}

// joinEnds joins those who have left something with those who have come to its end.
func (x *follower) joinEnds(st *state, ends []end, what string) *state {
	for _, e := range ends {
		st = x.join(st, e.state, e.at, "whether "+what+" cannot be told, so what follows may drop, but lets nothing in: "+hint)
	}
	return st
}

// maxEnds bounds how many states are kept apart in which the shell may have ended.
const maxEnds = 64

// leave ends the shell, or the subshell, in a state.
func (x *follower) leave(st *state, at Place) {
	if n := len(*x.ends); n >= maxEnds {
		x.join((*x.ends)[n-1].state, st, at, "whether the script ends here cannot be told, so what follows may drop, but lets nothing in: "+hint)
		return
	}
	*x.ends = append(*x.ends, end{state: st, at: at})
}
