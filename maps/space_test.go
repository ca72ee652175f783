// SPDX-License-Identifier: Apache-2.0

package maps

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// What is handed out is free, in the array, and nobody else's; and as much is found as there is in one piece.
func TestSpace(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	const size = 1000
	for range 200 {
		var used [size]bool
		var sets []taken
		for at := r.IntN(50); at < size; {
			set := taken{at, min(1+r.IntN(30), size-at)}
			sets = append(sets, set)
			for i := range set.length {
				used[at+i] = true
			}
			at += set.length + r.IntN(3)*r.IntN(40)
		}
		r.Shuffle(len(sets), func(i, j int) { sets[i], sets[j] = sets[j], sets[i] })
		s := newSpace(size, sets)
		for {
			longest, run := 0, 0
			for _, u := range used {
				if run++; u {
					run = 0
				}
				longest = max(longest, run)
			}
			n := 1 + r.IntN(40)
			first, ok := s.take(n)
			if ok != (n <= longest) {
				t.Fatalf("of %d places, with %d in one piece: found %v", n, longest, ok)
			}
			if !ok {
				break
			}
			for i := range n {
				if used[first+i] {
					t.Fatalf("place %d is taken twice", first+i)
				}
				used[first+i] = true
			}
		}
	}
}

// To find a place takes no longer the more sets there are: sixty thousand beside sixty thousand are found at once, where
// to look through those that are there took minutes.
func TestSpaceForManySets(t *testing.T) {
	const sets, each = 60000, 6
	var used []taken
	for i := range sets {
		used = append(used, taken{2 * i * each, each})
	}
	s := newSpace(2*sets*each, used)
	var firsts []int
	for i := range sets {
		first, ok := s.take(each)
		if !ok {
			t.Fatalf("there is no place for set %d", i)
		}
		firsts = append(firsts, first)
	}
	slices.Sort(firsts)
	if len(slices.Compact(firsts)) != sets {
		t.Error("a place is handed out twice")
	}
	if _, ok := s.take(1); ok {
		t.Error("there is a place left")
	}
}
