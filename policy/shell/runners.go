// SPDX-License-Identifier: Apache-2.0

package shell

import (
	"path"
	"slices"
	"strings"

	"mvdan.cc/sh/v3/syntax"
)

// runner runs a program that runs another.
type runner func(x *follower, words []Word, st *state, at Place) *state

var runners map[string]runner

func init() {
	runners = map[string]runner{
		"sudo":    runSudo,
		"doas":    prefixed("uC", 0),
		"nice":    prefixed("n", 0),
		"ionice":  prefixed("cn", 0),
		"nohup":   prefixed("", 0),
		"time":    prefixed("fo", 0),
		"stdbuf":  prefixed("ioe", 0),
		"chrt":    prefixed("TPD", 1),
		"taskset": prefixed("", 1),
		"env":     runEnv,
		"timeout": perhaps(prefixed("ks", 1), "it may be stopped before it is done"),
		"flock":   perhaps(prefixed("wE", 1), "it may not get the lock"),
		"setsid":  perhaps(prefixed("", 0), "it may run next to what follows"),
		"chroot":  perhaps(prefixed("", 1), "what is there cannot be told"),
		"xargs":   perhaps(runXargs, "what it is run with cannot be told"),
		"bash":    perhaps(runShell, "another shell runs it"),
		"sh":      perhaps(runShell, "another shell runs it"),
		"dash":    perhaps(runShell, "another shell runs it"),
		"ip":      runIP,
		"ssh":     runElsewhere,
		"awk":     runAwk,
		"gawk":    runAwk,
		"mawk":    runAwk,
		"nawk":    runAwk,
		"find":    runFind,
		"sed":     runChecked(harmlessSed),
		"tar":     runChecked(harmlessTar),
		"sort":    runChecked(harmlessSort),
	}
}

// unclear is for a program that may run anything.
func (x *follower) unclear(st *state, at Place) *state {
	x.Lost(at, "what this runs cannot be told, so all may be dropped from here on: "+hint)
	st.world.Doubt(at)
	st.status = Unknown
	st.in = input{}
	st.print("", false)
	return st
}

// perhaps takes what a program does for doubtful.
func perhaps(run runner, why string) runner {
	return func(x *follower, words []Word, st *state, at Place) *state {
		without := st.clone()
		if st = run(x, words, st, at); st == nil {
			return without
		}
		without.in, without.out = st.in, st.out
		st = x.join(st, without, at, why+mayRun)
		st.status = Unknown
		return st
	}
}

// prefixed runs the program that stands behind options, of which some take an
// argument, and behind as many arguments as skip says.
func prefixed(takes string, skip int) runner {
	return func(x *follower, words []Word, st *state, at Place) *state {
		rest, ok := behindOptions(words[1:], takes)
		if !ok || len(rest) <= skip || !known(rest[:skip+1]) {
			return x.unclear(st, at)
		}
		return x.program(rest[skip:], st, at)
	}
}

// behindOptions leaves out the options in front.
func behindOptions(words []Word, takes string) ([]Word, bool) {
	for len(words) > 0 {
		w := words[0]
		switch {
		case !w.Known:
			return nil, false
		case w.Text == "--":
			return words[1:], true
		case len(w.Text) < 2 || w.Text[0] != '-':
			return words, true
		case strings.HasPrefix(w.Text, "--"):
			if !strings.Contains(w.Text, "=") && !slices.Contains([]string{"--foreground", "--preserve-status", "--verbose", "--nonblock", "--no-run-if-empty"}, w.Text) {
				return nil, false
			}
			words = words[1:]
			continue
		}
		words = words[1:]
		if i := strings.IndexAny(w.Text[1:], takes); takes != "" && i >= 0 && i+2 == len(w.Text) {
			if len(words) == 0 || !words[0].Known {
				return nil, false
			}
			words = words[1:]
		}
	}
	return words, true
}

func runSudo(x *follower, words []Word, st *state, at Place) *state {
	rest := words[1:]
	for len(rest) > 0 && rest[0].Known && strings.HasPrefix(rest[0].Text, "-") {
		switch rest[0].Text {
		case "-n", "-E", "-H", "-S", "-b", "--":
			if rest[0].Text == "-b" {
				return x.unclear(st, at)
			}
			rest = rest[1:]
		case "-u":
			if len(rest) < 2 || rest[1].Text != "root" {
				return x.unclear(st, at)
			}
			rest = rest[2:]
		case "-v", "-l", "-k", "-K":
			st.status = Unknown
			return st
		default:
			return x.unclear(st, at)
		}
	}
	return x.withAssignments(rest, st, at)
}

func runEnv(x *follower, words []Word, st *state, at Place) *state {
	rest := words[1:]
	for len(rest) > 0 && rest[0].Known && (rest[0].Text == "-i" || rest[0].Text == "-" || rest[0].Text == "--") {
		rest = rest[1:]
	}
	if len(rest) == 0 {
		st.print("", false)
		return st
	}
	return x.withAssignments(rest, st, at)
}

// withAssignments runs what stands behind NAME=VALUE.
func (x *follower) withAssignments(words []Word, st *state, at Place) *state {
	for len(words) > 0 && isAssignment(words[0]) {
		words = words[1:]
	}
	if len(words) == 0 || !words[0].Known || strings.HasPrefix(words[0].Text, "-") {
		return x.unclear(st, at)
	}
	return x.program(words, st, at)
}

func isAssignment(w Word) bool {
	name, _, ok := strings.Cut(w.Text, "=")
	return ok && !w.many && isName(name)
}

func runXargs(x *follower, words []Word, st *state, at Place) *state {
	rest, replaced := words[1:], ""
	for len(rest) > 0 && rest[0].Known && strings.HasPrefix(rest[0].Text, "-") {
		option := rest[0].Text
		rest = rest[1:]
		switch {
		case option == "-i":
			replaced = "{}"
		case strings.HasPrefix(option, "-I") && len(option) > 2:
			replaced = option[2:]
		case slices.Contains([]string{"-I", "-n", "-L", "-P", "-d", "-s", "-a"}, option):
			if len(rest) == 0 || !rest[0].Known {
				return x.unclear(st, at)
			}
			if option == "-I" {
				replaced = rest[0].Text
			}
			rest = rest[1:]
		case slices.Contains([]string{"-0", "-r", "-t"}, option) || len(option) > 2 && strings.ContainsAny(option[1:2], "nLPds"):
		default:
			return x.unclear(st, at)
		}
	}
	st.in = input{}
	if len(rest) == 0 || !rest[0].Known {
		return x.unclear(st, at)
	}
	command := slices.Clone(rest)
	for i, w := range command {
		if replaced != "" && strings.Contains(w.Text, replaced) {
			command[i].Known = false
		}
	}
	if replaced == "" {
		command = append(command, Word{Text: "...", many: true})
	}
	st = x.program(command, st, at)
	return st
}

// runShell runs what a shell is given as its argument.
func runShell(x *follower, words []Word, st *state, at Place) *state {
	if len(words) < 3 || !words[1].Known || !words[2].Known || !slices.Contains([]string{"-c", "-ec", "-xc", "-exc"}, words[1].Text) {
		return x.unclear(st, at)
	}
	inner := newState(st.world)
	inner.in, inner.out = st.in, st.out
	inner.options.errexit = strings.Contains(words[1].Text, "e")
	for name, v := range st.vars {
		if v.exported {
			v.readonly = false
			inner.vars[name] = v
		} else {
			inner.vars[name] = variable{}
		}
	}
	if len(words) > 3 {
		inner.setParams(words[4:])
	} else {
		inner.open = false
	}
	posix, tested := x.posix, x.tested
	x.posix, x.tested = path.Base(words[0].Text) != "bash", 0
	sub := x.subshell(inner, func(inner *state) *state { return x.text(words[2].Text, inner, at) })
	x.posix, x.tested = posix, tested
	if sub != nil {
		st.out = sub.out
	}
	x.adopt(st, sub, at)
	return st
}

func runIP(x *follower, words []Word, st *state, at Place) *state {
	asked := false
	for i, w := range words[1:] {
		asked = asked || w.Text == "show" || w.Text == "get" || w.Text == "list"
		if w.Text != "exec" && w.Known {
			continue
		}
		if i > 0 && words[i].Text == "netns" {
			x.Lost(at, "this is for another network namespace, and not for this host")
			st.status = Unknown
			st.print("", false)
			return st
		}
		if w.Text == "exec" {
			return x.unclear(st, at)
		}
	}
	st.status = Assumed
	if asked {
		st.status = Unknown
	} else {
		x.Note(at, setElsewhere)
	}
	st.print("", false)
	return st
}

func runElsewhere(x *follower, words []Word, st *state, at Place) *state {
	for _, w := range words[1:] {
		if !w.Known || strings.Contains(w.Text, "localhost") || strings.Contains(w.Text, "127.0.0.1") || w.Text == "::1" {
			return x.unclear(st, at)
		}
	}
	x.Lost(at, "this runs on another host")
	st.status = Unknown
	st.in = input{}
	st.print("", false)
	return st
}

func runAwk(x *follower, words []Word, st *state, at Place) *state {
	program := false // it was there
	for i, w := range words[1:] {
		value := i > 0 && !program && (words[i].Text == "-v" || words[i].Text == "-F")
		option := strings.HasPrefix(w.Text, "-") && !program && !value
		_, printing, _ := strings.Cut(strings.ReplaceAll(w.Text, "||", ""), "print")
		switch {
		case w.many && !program, !w.Known && !value && !program,
			strings.Contains(w.Text, "system") || strings.Contains(w.Text, "getline") || strings.Contains(printing, "|") || strings.Contains(w.Text, "@"),
			option && !strings.HasPrefix(w.Text, "-F") && !strings.HasPrefix(w.Text, "-v") && w.Text != "--":
			return x.unclear(st, at)
		}
		program = program || !option && !value
	}
	st.status = Unknown
	st.in = input{}
	st.print("", false)
	return st
}

func runFind(x *follower, words []Word, st *state, at Place) *state {
	for i, w := range words[1:] {
		if !w.Known && (w.many || i > 0 && !strings.HasPrefix(words[i].Text, "-")) || strings.HasPrefix(w.Text, "-exec") || strings.HasPrefix(w.Text, "-ok") {
			return x.unclear(st, at)
		}
	}
	st.status = Unknown
	st.print("", false)
	return st
}

// substitute is what commands print.
func (x *follower) substitute(stmts []*syntax.Stmt, st *state, at Place) Text {
	from := st.clone()
	from.out = Text{Known: true}
	if !x.posix {
		from.options.errexit = false
	}
	sub := x.subshell(from, func(st *state) *state { return x.list(stmts, st) })
	x.adopt(st, sub, at)
	if sub == nil {
		return Text{}
	}
	return sub.out
}
