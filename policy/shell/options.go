// SPDX-License-Identifier: Apache-2.0

package shell

import "slices"

// set sets options and parameters.
func (x *follower) set(args []Word, st *state, at Place) {
	if len(args) == 0 {
		st.print("", false)
		return
	}
	for len(args) > 0 {
		w := args[0]
		if !w.Known {
			x.giveUp(st, at, "what this sets cannot be told: "+hint)
			return
		}
		switch {
		case w.Text == "--":
			st.setParams(args[1:])
			return
		case w.Text == "-" || len(w.Text) < 2 || w.Text[0] != '-' && w.Text[0] != '+':
			if w.Text == "-" {
				args = args[1:]
				if len(args) == 0 {
					return
				}
			}
			st.setParams(args)
			return
		}
		args = args[1:]
		on := w.Text[0] == '-'
		for _, c := range w.Text[1:] {
			switch c {
			case 'e':
				st.options.errexit, st.options.perhaps = on, false
			case 'u':
				st.options.nounset = on
			case 'f':
				st.options.noglob = on
			case 'a':
				st.options.export = on
			case 'x', 'v', 'h', 'b', 'm', 'B', 'H', 'E', 'T', 'C':
				if c == 'B' && !on || c == 'C' && on {
					x.giveUp(st, at, "what this changes cannot be told: "+hint)
				}
			case 'o':
				if len(args) == 0 {
					st.print("", false)
					return
				}
				x.setOption(args[0], on, st, at)
				args = args[1:]
			default:
				x.giveUp(st, at, "what this changes cannot be told: "+hint)
			}
		}
	}
}

func (x *follower) setOption(w Word, on bool, st *state, at Place) {
	switch w.Text {
	case "errexit":
		st.options.errexit, st.options.perhaps = on, false
	case "nounset":
		st.options.nounset = on
	case "noglob":
		st.options.noglob = on
	case "allexport":
		st.options.export = on
	case "pipefail":
		if x.posix {
			x.giveUp(st, at, "only some shells know this, and others end: "+hint)
		}
		st.options.pipefail = on
	case "xtrace", "verbose", "errtrace", "functrace", "notify", "monitor", "hashall", "emacs", "vi", "history":
	default:
		x.giveUp(st, at, "what this changes cannot be told: "+hint)
	}
}

func (x *follower) shopt(args []Word, st *state, at Place) {
	for _, w := range args {
		switch {
		case !w.Known:
			x.giveUp(st, at, "what this changes cannot be told: "+hint)
		case slices.Contains([]string{"-s", "-u", "-q", "-p", "expand_aliases", "checkwinsize", "histappend", "nullglob", "dotglob", "globstar",
			"cmdhist", "promptvars", "sourcepath"}, w.Text):
		case w.Text == "lastpipe":
			st.options.lastpipe = true
		default:
			x.giveUp(st, at, "what this changes cannot be told: "+hint)
		}
	}
	if slices.ContainsFunc(args, func(w Word) bool { return w.Text == "-q" }) {
		st.status = Unknown
	}
}
