// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"cmp"
	"math/bits"
	"net/netip"
	"slices"
)

// claim is a prefix that a rule names, by the rule's place in the list.
type claim struct {
	prefix netip.Prefix
	order  int
	except bool
}

// holder is a rule that holds for the addresses of a prefix.
type holder struct {
	order int
	bits  int // of the narrowest of its own prefixes around them
}

// before reports whether a rule counts in another's place.
func (h holder) before(o holder) bool {
	return cmp.Or(cmp.Compare(o.bits, h.bits), cmp.Compare(h.order, o.order)) < 0
}

// node is a prefix of a set, and what becomes of its addresses where no longer
// prefix of the set holds them.
type node struct {
	prefix   netip.Prefix
	decision Decision
}

// walker works out what a set decides: the prefixes that rules name, in the
// order of addresses, each within those that it follows on a stack.
type walker struct {
	states []claimState // by the place of a rule
	inside []int        // rules with a prefix around the present one, as they came
	open   []openPrefix
}

// claimState is what a rule says of the present prefix.
type claimState struct {
	from   []int // the lengths of its prefixes around it
	except int   // how many of its exceptions are around it
}

type openPrefix struct {
	prefix   netip.Prefix
	claims   []claim
	decision Decision
}

func newWalker(rules int) walker { return walker{states: make([]claimState, rules)} }

// walk returns what decide says about the addresses of each prefix, from the
// rules that hold for them. A prefix for which it says the same as for the one
// around it is left out.
func (w *walker) walk(claims []claim, decide func(holders []holder, v4 bool) (Decision, error)) ([]node, error) {
	slices.SortFunc(claims, func(x, y claim) int {
		return cmp.Or(comparePrefix(x.prefix, y.prefix), cmp.Compare(x.order, y.order))
	})
	if n := len(claims); n > 0 {
		w.grow(claims)
	}
	var nodes []node
	var holders []holder
	for first := 0; first < len(claims); {
		prefix := claims[first].prefix
		end := first + 1
		for end < len(claims) && claims[end].prefix == prefix {
			end++
		}
		for len(w.open) > 0 && !prefixWithin(prefix, w.open[len(w.open)-1].prefix) {
			w.pop()
		}
		var around Decision
		if n := len(w.open); n > 0 {
			around = w.open[n-1].decision
		}
		w.push(prefix, claims[first:end])
		holders = holders[:0]
		for _, order := range w.inside {
			if s := &w.states[order]; s.except == 0 {
				holders = append(holders, holder{order, s.from[len(s.from)-1]})
			}
		}
		decision, err := decide(holders, prefix.Addr().Is4())
		if err != nil {
			return nil, err
		}
		w.open[len(w.open)-1].decision = decision
		if decision != around {
			nodes = append(nodes, node{prefix, decision})
		}
		first = end
	}
	for len(w.open) > 0 {
		w.pop()
	}
	return nodes, nil
}

// grow makes room for the rules of claims.
func (w *walker) grow(claims []claim) {
	most := 0
	for _, c := range claims {
		most = max(most, c.order)
	}
	if most >= len(w.states) {
		w.states = append(w.states, make([]claimState, most+1-len(w.states))...)
	}
}

func (w *walker) push(prefix netip.Prefix, claims []claim) {
	for _, c := range claims {
		s := &w.states[c.order]
		if c.except {
			s.except++
			continue
		}
		if len(s.from) == 0 {
			w.inside = append(w.inside, c.order)
		}
		s.from = append(s.from, prefix.Bits())
	}
	w.open = append(w.open, openPrefix{prefix: prefix, claims: claims})
}

// pop leaves the innermost prefix: what entered with it entered last.
func (w *walker) pop() {
	last := len(w.open) - 1
	for _, c := range w.open[last].claims {
		s := &w.states[c.order]
		if c.except {
			s.except--
			continue
		}
		s.from = s.from[:len(s.from)-1]
		if len(s.from) == 0 {
			w.inside = w.inside[:len(w.inside)-1]
		}
	}
	w.open = w.open[:last]
}

// compareLimits orders limits by how much they let in: by their rates, then by
// their bursts.
func compareLimits(a, b Limit) int {
	// a.Count / a.Per against b.Count / b.Per, without rounding.
	highA, lowA := bits.Mul64(uint64(a.Count), uint64(b.Per))
	highB, lowB := bits.Mul64(uint64(b.Count), uint64(a.Per))
	return cmp.Or(cmp.Compare(highA, highB), cmp.Compare(lowA, lowB), cmp.Compare(a.Burst, b.Burst))
}
