// SPDX-License-Identifier: Apache-2.0

package shell

import "strings"

func quotePattern(text string) string {
	var b strings.Builder
	for _, c := range text {
		b.WriteRune('\\')
		b.WriteRune(c)
	}
	return b.String()
}

// matchGlob reports whether a pattern of the shell matches a text, and whether
// that is certain.
func matchGlob(pattern, text string) (matches, sure bool) {
	p := []rune(pattern)
	var items []item
	for i := 0; i < len(p); i++ {
		switch p[i] {
		case '\\':
			if i++; i == len(p) {
				return false, false
			}
			items = append(items, item{only: string(p[i])})
		case '*':
			items = append(items, item{star: true})
		case '?':
			items = append(items, item{any: true})
		case '[':
			it, size, ok := bracket(p[i:])
			if !ok {
				return false, false
			}
			items = append(items, it)
			i += size - 1
		case '(', ')', '|':
			return false, false // extglob, perhaps
		default:
			items = append(items, item{only: string(p[i])})
		}
	}
	return matchItems(items, []rune(text)), true
}

// item matches one character, or any number of them.
type item struct {
	only   string // one of these
	not    bool
	ranges [][2]rune
	any    bool
	star   bool
}

func (it item) matches(c rune) bool {
	if it.any {
		return true
	}
	in := strings.ContainsRune(it.only, c)
	for _, r := range it.ranges {
		in = in || r[0] <= c && c <= r[1]
	}
	return in != it.not
}

// bracket reads [abc], [a-c] and [!abc]. Classes are left out.
func bracket(p []rune) (it item, size int, ok bool) {
	i := 1
	if i < len(p) && (p[i] == '!' || p[i] == '^') {
		it.not = true
		i++
	}
	for first := true; i < len(p); first = false {
		c := p[i]
		switch {
		case c == ']' && !first:
			return it, i + 1, true
		case c == '[' || c == '/':
			return it, 0, false
		case c == '\\':
			if i++; i == len(p) {
				return it, 0, false
			}
			c = p[i]
		}
		if i+2 < len(p) && p[i+1] == '-' && p[i+2] != ']' {
			if p[i+2] == '\\' || p[i+2] == '[' || !digitRange(c, p[i+2]) {
				return it, 0, false // how letters are ordered depends on the language
			}
			it.ranges = append(it.ranges, [2]rune{c, p[i+2]})
			i += 3
			continue
		}
		it.only += string(c)
		i++
	}
	return it, 0, false
}

func digitRange(a, b rune) bool { return '0' <= a && a <= b && b <= '9' }

func matchItems(items []item, text []rune) bool {
	// back is where to go on behind the last star with one character more.
	i, j, back, behind := 0, 0, -1, 0
	for j < len(text) {
		switch {
		case i < len(items) && items[i].star:
			back, behind = i, j
			i++
		case i < len(items) && items[i].matches(text[j]):
			i++
			j++
		case back >= 0:
			behind++
			i, j = back+1, behind
		default:
			return false
		}
	}
	for i < len(items) && items[i].star {
		i++
	}
	return i == len(items)
}
