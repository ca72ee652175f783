// SPDX-License-Identifier: Apache-2.0

package maps

import (
	"cmp"
	"container/heap"
	"slices"
)

// space hands out places in an array, from the largest gap each time: so what fits is found at once, however many sets
// there are.
type space []taken // gaps, as a heap

type taken struct{ first, length int }

// newSpace returns what is free in an array of that size.
func newSpace(size int, used []taken) *space {
	slices.SortFunc(used, func(a, b taken) int { return cmp.Compare(a.first, b.first) })
	s, at := &space{}, 0
	for _, u := range append(used, taken{first: size}) {
		if u.first > at {
			*s = append(*s, taken{at, u.first - at})
		}
		at = max(at, u.first+u.length)
	}
	heap.Init(s)
	return s
}

func (s *space) take(n int) (first int, ok bool) {
	if n == 0 {
		return 0, true
	}
	if len(*s) == 0 || (*s)[0].length < n {
		return 0, false
	}
	largest := &(*s)[0]
	first = largest.first
	largest.first, largest.length = first+n, largest.length-n
	heap.Fix(s, 0)
	return first, true
}

// Len, Less, Swap, Push and Pop are for the heap: the largest gap comes first, of equal ones the lowest.
func (s *space) Len() int { return len(*s) }

func (s *space) Less(i, j int) bool {
	a, b := (*s)[i], (*s)[j]
	return cmp.Or(cmp.Compare(b.length, a.length), cmp.Compare(a.first, b.first)) < 0
}

func (s *space) Swap(i, j int) { (*s)[i], (*s)[j] = (*s)[j], (*s)[i] }
func (s *space) Push(x any)    { *s = append(*s, x.(taken)) }

func (s *space) Pop() any {
	last := (*s)[len(*s)-1]
	*s = (*s)[:len(*s)-1]
	return last
}
