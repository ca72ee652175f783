// SPDX-License-Identifier: Apache-2.0

package differential

import (
	"reflect"
	"slices"
	"testing"
)

// moves are a sequence.
type moves []move

func (all moves) steps(h hosts) (steps []step) {
	for _, m := range all {
		steps = append(steps, m.step(h))
	}
	return steps
}

// events are what happens in a sequence beside packets.
func (all moves) events() (events []kind) {
	for _, m := range all {
		if m.kind.isEvent() {
			events = append(events, m.kind)
		}
	}
	return events
}

// segment is how many moves from one on come before the next event.
func (all moves) segment(from int) int {
	n := slices.IndexFunc(all[from:], func(m move) bool { return m.kind.isEvent() })
	if n < 0 {
		return len(all) - from
	}
	return n
}

// at says which move of which sequence a step is; all sequences share an event.
type at struct{ sequence, move int }

// interleave puts sequences with the same events side by side: all first packets, those that go out before those that
// come in, then all second ones.
func interleave(h hosts, all []moves) (steps []step, of []at) {
	from := make([]int, len(all))
	for part := range len(all[0].events()) + 1 {
		longest := 0
		for n, m := range all {
			if part > 0 {
				from[n]++
			}
			longest = max(longest, m.segment(from[n]))
		}
		if part > 0 {
			steps = append(steps, all[0][from[0]-1].step(h))
			of = append(of, at{-1, -1})
		}
		for i := range longest {
			for _, out := range []bool{true, false} {
				for n, m := range all {
					if i < m.segment(from[n]) && m[from[n]+i].out == out {
						steps = append(steps, m[from[n]+i].step(h.numbered(n)))
						of = append(of, at{n, from[n] + i})
					}
				}
			}
		}
		for n, m := range all {
			from[n] += m.segment(from[n])
		}
	}
	return steps, of
}

// beside plays sequences with the same events side by side, and returns the verdicts by side, sequence and move.
func beside(t testing.TB, sides []*side, h hosts, all []moves) [][][]verdict {
	t.Helper()
	steps, of := interleave(h, all)
	played := together(t, sides, steps)
	verdicts := make([][][]verdict, len(sides))
	for s := range sides {
		verdicts[s] = make([][]verdict, len(all))
		for n, m := range all {
			verdicts[s][n] = make([]verdict, len(m))
		}
		for i, a := range of {
			if a.sequence >= 0 {
				verdicts[s][a.sequence][a.move] = played[s][i]
			}
		}
	}
	return verdicts
}

// disagree tells whether two verdicts are neither equal nor what is documented.
func disagree(netfilter, ours verdict, row *difference) bool {
	return !(netfilter == ours || row != nil && (row.either || netfilter == row.netfilter && ours == row.ours))
}

// parting is the first move about which netfilter and Portcullis disagree, or -1.
func parting(h hosts, all moves, netfilter, ours []verdict) int {
	for i := range all {
		if disagree(netfilter[i], ours[i], nil) && disagree(netfilter[i], ours[i], differs(h, all[:i+1])) {
			return i
		}
	}
	return -1
}

// shrink leaves out what the disagreement of a pair of sides does not need: packets first, then what they wear, then
// events. It returns nil when the sequence is decided alike, played alone.
func shrink(t testing.TB, pair []*side, h hosts, all moves) moves {
	t.Helper()
	all = still(t, pair, h, []moves{all})
	for smaller := all; smaller != nil; {
		all = smaller
		for _, tries := range [][]moves{fewer(all), plainer(all), calmer(all)} {
			if smaller = still(t, pair, h, tries); smaller != nil {
				break
			}
		}
	}
	return all
}

// still is the first of some sequences about which the sides disagree, as far as that, or nil.
func still(t testing.TB, pair []*side, h hosts, tries []moves) moves {
	t.Helper()
	tries = slices.DeleteFunc(tries, func(m moves) bool { return len(m) == 0 || !allPossible(m) })
	for len(tries) > 0 {
		// At once those that can be: with the same events.
		events, alike := tries[0].events(), 1
		for alike < len(tries) && slices.Equal(tries[alike].events(), events) {
			alike++
		}
		verdicts := beside(t, pair, h, tries[:alike])
		for n, m := range tries[:alike] {
			if i := parting(h, m, verdicts[0][n], verdicts[1][n]); i >= 0 {
				return m[:i+1]
			}
		}
		tries = tries[alike:]
	}
	return nil
}

// fewer are the sequences without some packets, many first.
func fewer(all moves) (tries []moves) {
	for size := len(all) / 2; size > 0; size /= 2 {
		for from := 0; from+size <= len(all); from += max(size/2, 1) {
			less := slices.Clone(all)
			kept := slices.DeleteFunc(less[from:from+size], func(m move) bool { return !m.kind.isEvent() })
			tries = append(tries, append(append(slices.Clone(all[:from]), kept...), all[from+size:]...))
		}
	}
	return slices.DeleteFunc(tries, func(m moves) bool { return len(m) == len(all) })
}

// calmer are the sequences without one event.
func calmer(all moves) (tries []moves) {
	for i, m := range all {
		if m.kind.isEvent() {
			tries = append(tries, slices.Delete(slices.Clone(all), i, i+1))
		}
	}
	return tries
}

// plainer are the sequences in which one move wears nothing, or is plain in one respect.
func plainer(all moves) (tries []moves) {
	naked := slices.Clone(all)
	for i := range naked {
		naked[i].dress = dressing{}
	}
	if !slices.Equal(naked, all) {
		tries = append(tries, naked)
	}
	for i, m := range all {
		try := func(plain move) {
			if plain != m {
				changed := slices.Clone(all)
				changed[i] = plain
				tries = append(tries, changed)
			}
		}
		for n := range reflect.TypeFor[move]().NumField() {
			switch plain := m; reflect.TypeFor[move]().Field(n).Name {
			case "kind", "out", "what", "quotes":
			default:
				settable(reflect.ValueOf(&plain).Elem().Field(n)).SetZero()
				try(plain)
			}
		}
		for n := range reflect.TypeFor[dressing]().NumField() {
			plain := m
			settable(reflect.ValueOf(&plain.dress).Elem().Field(n)).SetZero()
			try(plain)
		}
	}
	return tries
}

// settable is a field that reflection may set although its name is not exported.
func settable(field reflect.Value) reflect.Value {
	return reflect.NewAt(field.Type(), field.Addr().UnsafePointer()).Elem()
}
