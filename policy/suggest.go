// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
)

// suggest returns the known words that word is probably a slip of, the closest
// first, at most three.
func suggest(word string, known []string) []string {
	const most = 3
	word = strings.ToLower(word)
	limit := 2
	if len(word) <= 3 {
		limit = 1
	}
	type candidate struct {
		word     string
		distance int
	}
	var found []candidate
	for _, k := range known {
		if n := len(k) - len(word); n > limit || -n > limit {
			continue
		}
		if d := editDistance(word, strings.ToLower(k)); d <= limit {
			found = append(found, candidate{k, d})
		}
	}
	slices.SortFunc(found, func(a, b candidate) int {
		return cmp.Or(cmp.Compare(a.distance, b.distance), cmp.Compare(a.word, b.word))
	})
	var out []string
	for _, c := range found {
		// A worse match beside a better one is noise.
		if c.distance > found[0].distance || len(out) == most {
			break
		}
		out = append(out, c.word)
	}
	return out
}

// DidYouMean returns what completes a message about an unknown word: the closest known ones, or otherwise if none is
// close.
func DidYouMean(word string, known []string, otherwise string) string {
	return didYouMean(word, known, otherwise)
}

// didYouMean completes a message with the closest known words, or with
// otherwise if there are none.
func didYouMean(word string, known []string, otherwise string) string {
	close := suggest(word, known)
	if len(close) == 0 {
		return otherwise
	}
	for i, w := range close {
		close[i] = strconv.Quote(w)
	}
	return "did you mean " + joinWords(close, "or") + "?"
}

// editDistance counts inserted, deleted, changed and swapped bytes.
func editDistance(a, b string) int {
	before, prev, cur := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := 1; i <= len(a); i++ {
		cur[0] = i
		for j := 1; j <= len(b); j++ {
			change := 1
			if a[i-1] == b[j-1] {
				change = 0
			}
			cur[j] = min(prev[j]+1, cur[j-1]+1, prev[j-1]+change)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				cur[j] = min(cur[j], before[j-2]+1)
			}
		}
		before, prev, cur = prev, cur, before
	}
	return prev[len(b)]
}
