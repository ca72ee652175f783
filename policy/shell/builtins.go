// SPDX-License-Identifier: Apache-2.0

package shell

import (
	"slices"
	"strings"
)

var builtins = strings.Fields(": true false echo printf test [ exit return break continue shift set unset export readonly local declare typeset " +
	"read mapfile readarray eval source . exec command builtin trap alias unalias cd pwd umask ulimit wait times hash type shopt getopts " +
	"let kill enable bg fg jobs disown dirs pushd popd caller compgen complete bind history suspend logout")

func isBuiltin(name string) bool { return slices.Contains(builtins, name) }

func (x *follower) builtin(words []Word, st *state, at Place) *state {
	name, args := words[0].Text, words[1:]
	if x.posix && slices.Contains(bashCommands, name) {
		x.giveUp(st, at, "only bash has this, and the first line of the script names another shell: name bash there, or "+hint)
		return st
	}
	st.status = OK
	switch name {
	case ":", "true", "umask", "ulimit", "times", "hash", "bg", "fg", "jobs", "disown", "history", "bind", "complete":
		if name == "hash" && slices.ContainsFunc(args, func(a Word) bool { return !a.Known || strings.HasPrefix(a.Text, "-p") }) {
			x.giveUp(st, at, "which programs it runs from here on cannot be told: "+hint)
		}
		if name == "hash" && len(args) > 0 {
			st.status = x.found(args)
		}
	case "wait":
		st.status = Unknown
	case "false":
		st.status = 1
	case "cd", "pwd", "pushd", "popd", "dirs", "caller", "compgen", "type", "getopts":
		return x.told(name, args, st, at)
	case "echo":
		x.echo(args, st)
	case "printf":
		x.printf(args, st, at)
	case "test", "[":
		holds, known := x.test(words, st)
		st.status = holds
		if !known {
			st.status = Unknown
		}
	case "exit":
		x.setStatus(args, st)
		x.leave(st, at)
		return nil
	case "return":
		if x.leaves == nil {
			x.giveUp(st, at, "what this ends cannot be told: "+hint)
			return st
		}
		x.setStatus(args, st)
		*x.leaves = append(*x.leaves, end{state: st, at: at})
		return nil
	case "break", "continue":
		return x.jump(name, args, st, at)
	case "shift":
		x.shift(args, st, at)
	case "set":
		x.set(args, st, at)
	case "shopt":
		x.shopt(args, st, at)
	case "unset":
		x.unset(args, st, at)
	case "export", "readonly", "local", "declare", "typeset":
		x.declare(name, args, st, at)
	case "read":
		x.read(args, st, at)
	case "mapfile", "readarray":
		x.mapfile(args, st, at)
	case "eval":
		return x.eval(args, st, at)
	case ".", "source":
		return x.source(args, st, at)
	case "exec":
		return x.exec(args, st, at)
	case "command":
		return x.commandBuiltin(args, st, at)
	case "builtin":
		if len(args) > 0 && args[0].Known && isBuiltin(args[0].Text) {
			return x.builtin(args, st, at)
		}
		x.giveUp(st, at, "what this runs cannot be told: "+hint)
	case "trap":
		x.setTrap(args, st, at)
	case "alias":
		x.alias(args, st, at)
	case "unalias":
		for _, a := range args {
			if a.Text == "-a" || !a.Known {
				st.aliases = make(map[string]Text)
				if !a.Known {
					x.giveUp(st, at, "what this takes away cannot be told: "+hint)
				}
			}
			delete(st.aliases, a.Text)
		}
	case "kill":
		if slices.ContainsFunc(args, func(a Word) bool { return a.Text == "$$" || a.Text == "0" }) {
			x.giveUp(st, at, "it ends the script itself: "+hint)
		}
		st.status = Unknown
	default:
		x.giveUp(st, at, "what this changes cannot be told: "+hint)
	}
	return st.living()
}

// setStatus is for exit and return.
func (x *follower) setStatus(args []Word, st *state) {
	st.status = Unknown
	if len(args) == 1 && args[0].Known {
		if n, ok := number(args[0].Text); ok && n >= 0 && n < 256 {
			st.status = Status(n)
		}
	}
}

// told runs what says something, or changes what is of no interest here.
func (x *follower) told(name string, args []Word, st *state, at Place) *state {
	switch name {
	case "getopts":
		if len(args) > 1 {
			x.assign(st, args[1].Text, Text{}, at)
		}
		for _, name := range []string{"OPTARG", "OPTIND"} {
			x.assign(st, name, Text{}, at)
		}
		st.status = Unknown
	case "type":
		st.status = x.found(args)
		st.print("", false)
	case "cd":
		st.status = Assumed
		for _, name := range []string{"PWD", "OLDPWD"} {
			st.vars[name] = variable{}
		}
	default:
		st.status = Assumed
		st.print("", false)
	}
	return st
}

// found is the status of what asks whether there are commands.
func (x *follower) found(args []Word) Status {
	for _, a := range args {
		if a.Known && strings.HasPrefix(a.Text, "-") {
			continue
		}
		if !a.Known || !isIPTables(a.Text) && !isBuiltin(a.Text) {
			return Unknown
		}
	}
	return OK
}

func (x *follower) echo(args []Word, st *state) {
	newline := "\n"
	for len(args) > 0 && args[0].Known && args[0].Text == "-n" {
		args, newline = args[1:], ""
	}
	texts := make([]string, len(args))
	certain := known(args)
	for i, a := range args {
		texts[i] = a.Text
		certain = certain && !strings.Contains(a.Text, `\`)
	}
	if len(args) > 0 && strings.HasPrefix(args[0].Text, "-") {
		certain = false
	}
	st.print(strings.Join(texts, " ")+newline, certain)
}

func (x *follower) shift(args []Word, st *state, at Place) {
	n := int64(1)
	if len(args) > 0 {
		var ok bool
		if n, ok = number(args[0].Text); !ok || !args[0].Known || len(args) > 1 || n < 0 {
			st.params, st.open, st.status = nil, true, Unknown
			return
		}
	}
	switch {
	case n <= int64(len(st.params)):
		st.params = slices.Clone(st.params[n:])
	case st.open:
		if x.posix {
			x.leave(st.clone(), at) // some shells end if there is nothing left to shift
		}
		st.params, st.status = nil, Unknown
	case x.posix:
		x.giveUp(st, at, "there is nothing left to shift, which ends some shells: "+hint)
	default:
		st.status = 1
	}
}

func (x *follower) eval(args []Word, st *state, at Place) *state {
	if !known(args) {
		x.giveUp(st, at, "what this runs cannot be told: "+hint)
		return st
	}
	texts := make([]string, len(args))
	for i, a := range args {
		texts[i] = a.Text
	}
	return x.text(strings.Join(texts, " "), st, at)
}

// harmlessFiles are those that only define functions to print messages with.
var harmlessFiles = []string{"/lib/lsb/init-functions", "/etc/rc.d/init.d/functions", "/etc/init.d/functions", "/lib/init/vars.sh"}

func (x *follower) source(args []Word, st *state, at Place) *state {
	if len(args) == 1 && args[0].Known && slices.Contains(harmlessFiles, args[0].Text) {
		st.status = Assumed
		return st
	}
	x.giveUp(st, at, "what is in this file cannot be told, so nothing from here on is opened: put it into the script, or "+hint)
	return st
}

func (x *follower) exec(args []Word, st *state, at Place) *state {
	for len(args) > 0 && (args[0].Text == "-c" || args[0].Text == "-l" || args[0].Text == "--") {
		args = args[1:]
	}
	if len(args) == 0 {
		return st
	}
	if args[0].Text == "-a" {
		x.giveUp(st, at, "what this runs cannot be told: "+hint)
		return st
	}
	if st = x.program(args, st, at); st != nil {
		st.trap = nil
		x.leave(st, at)
	}
	return nil
}

func (x *follower) commandBuiltin(args []Word, st *state, at Place) *state {
	if len(args) > 0 && args[0].Known && (args[0].Text == "-v" || args[0].Text == "-V") {
		st.status = x.found(args[1:])
		if args[0].Text == "-v" && len(args) == 2 && args[1].Known && isIPTables(args[1].Text) {
			if _, ok := st.functions[args[1].Text]; !ok {
				st.print("/usr/sbin/"+strings.TrimPrefix(args[1].Text, "/usr/sbin/")+"\n", !strings.Contains(args[1].Text, "/"))
				return st
			}
		}
		st.print("", false)
		return st
	}
	for len(args) > 0 && args[0].Known && (args[0].Text == "-p" || args[0].Text == "--") {
		args = args[1:]
	}
	switch {
	case len(args) == 0:
		return st
	case args[0].Known && isBuiltin(args[0].Text):
		return x.builtin(args, st, at)
	}
	return x.program(args, st, at)
}

func (x *follower) alias(args []Word, st *state, at Place) {
	for _, a := range args {
		name, text, defines := strings.Cut(a.Text, "=")
		switch {
		case !a.Known:
			x.giveUp(st, at, "what this stands for cannot be told: "+hint)
		case defines:
			st.aliases[name] = Text{text, true}
		}
	}
}
