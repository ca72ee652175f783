// SPDX-License-Identifier: Apache-2.0

package shell

import (
	"slices"
	"strings"
)

func (x *follower) setTrap(args []Word, st *state, at Place) {
	if len(args) > 0 && args[0].Text == "--" {
		args = args[1:]
	}
	if len(args) == 0 || args[0].Text == "-l" || args[0].Text == "-p" {
		return
	}
	signals := args[1:]
	text := &Text{args[0].Text, args[0].Known}
	if len(args) == 1 || args[0].Text == "-" {
		text = nil
	}
	if len(args) == 1 {
		signals = args
	}
	for _, s := range signals {
		switch {
		case !s.Known:
			x.giveUp(st, at, "when this is run cannot be told: "+hint)
		case s.Text == "EXIT" || s.Text == "0" || s.Text == "exit":
			st.trap, st.trapAt = text, at
		case slices.Contains([]string{"ERR", "DEBUG", "RETURN"}, strings.TrimPrefix(strings.ToUpper(s.Text), "SIG")) && text != nil:
			x.giveUp(st, at, "when this is run cannot be told: "+hint)
		}
	}
}

// runTrap runs what a trap has left for the end.
func (x *follower) runTrap(st *state) *state {
	if st.trap == nil {
		return st
	}
	text, at := *st.trap, st.trapAt
	st.dead = false
	st.trap = nil
	if !text.Known {
		x.giveUp(st, at, "what is run at the end cannot be told: "+hint)
		return st
	}
	without := st.clone()
	outside, leaves, loops := x.ends, x.leaves, x.loops
	var ends []end
	x.ends, x.leaves, x.loops = &ends, nil, nil
	options := st.options
	st = x.text(text.Text, st, at)
	x.ends, x.leaves, x.loops = outside, leaves, loops
	for _, e := range ends {
		st = x.join(st, e.state, at, "whether the trap ends here cannot be told"+mayRun)
	}
	if st == nil {
		return without
	}
	without.options, st.options = options, options
	return x.join(st, without, at, "it is run at the end, or when a signal comes"+mayRun)
}
