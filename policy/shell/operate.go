// SPDX-License-Identifier: Apache-2.0

package shell

import (
	"strings"

	"mvdan.cc/sh/v3/syntax"
)

// slice is ${name:offset:length}.
func (x *follower) slice(v value, s *syntax.Slice, st *state, m mode, at Place) []piece {
	offset, known1 := x.arithm(s.Offset, st, at)
	length, known2 := int64(maxText), true
	if s.Length != nil {
		length, known2 = x.arithm(s.Length, st, at)
	}
	if !known1 || !known2 || !v.known || v.open || !isASCII(v.text) {
		return v.unknown(m)
	}
	if v.all {
		// $0 stands in front of the parameters.
		if offset < 1 || length < 0 {
			return v.unknown(m)
		}
		first := min(int(offset)-1, len(v.list))
		v.list = v.list[first:]
		v.list = v.list[:min(int(min(length, maxText)), len(v.list))]
		return x.shown(v, st, m)
	}
	size := int64(len(v.text))
	if offset < 0 {
		offset += size
	}
	if offset < 0 || offset > size {
		return []piece{expanded("", m)}
	}
	last := min(size, offset+length)
	if length < 0 {
		last = size + length
	}
	if last < offset {
		return v.unknown(m) // an error
	}
	return []piece{expanded(v.text[offset:last], m)}
}

// replace is ${name/pattern/text}.
func (x *follower) replace(v value, r *syntax.Replace, st *state, m mode) []piece {
	pattern, known1 := x.pattern(r.Orig, st)
	with, known2 := x.literal(r.With, st)
	if !known1 || !known2 || !v.known || v.all || strings.ContainsAny(with, `&\`) || !isASCII(v.text) {
		return v.unknown(m)
	}
	atStart, atEnd := false, false
	switch {
	case r.All:
	case strings.HasPrefix(pattern, "#"):
		atStart, pattern = true, pattern[1:]
	case strings.HasPrefix(pattern, "%"):
		atEnd, pattern = true, pattern[1:]
	}
	if pattern == "" {
		if atStart || atEnd {
			return v.unknown(m)
		}
		return []piece{expanded(v.text, m)}
	}
	if len(v.text) > 4096 {
		return v.unknown(m)
	}
	var b strings.Builder
	text := v.text
	i := 0
search:
	for i < len(text) {
		for last := len(text); last > i && (!atStart || i == 0); last-- {
			matches, sure := matchGlob(pattern, text[i:last])
			if !sure {
				return v.unknown(m)
			}
			if !matches || atEnd && last < len(text) {
				continue
			}
			b.WriteString(with)
			i = last
			if !r.All {
				break search
			}
			continue search
		}
		b.WriteByte(text[i])
		i++
	}
	b.WriteString(text[i:])
	return []piece{expanded(b.String(), m)}
}

// operate is ${name:-word} and its kin.
func (x *follower) operate(name string, v value, e *syntax.Expansion, st *state, m mode, at Place) []piece {
	word := func() []piece {
		if e.Word == nil {
			return []piece{expanded("", m)}
		}
		inside := m
		if m == plain {
			inside = within
		}
		return x.pieces(e.Word.Parts, st, inside)
	}
	known, there := v.known, v.set
	switch e.Op {
	case syntax.DefaultUnsetOrNull, syntax.AlternateUnsetOrNull, syntax.AssignUnsetOrNull, syntax.ErrorUnsetOrNull:
		there = there && v.text != "" || v.all && len(v.list) > 0
		if v.all && len(v.list) == 1 && v.list[0].Text == "" {
			known = false
		}
	case syntax.DefaultUnset, syntax.AlternateUnset, syntax.AssignUnset, syntax.ErrorUnset:
		known = known || v.set
	}
	if v.outer && (e.Op == syntax.DefaultUnset || e.Op == syntax.DefaultUnsetOrNull || e.Op == syntax.AssignUnset || e.Op == syntax.AssignUnsetOrNull) {
		x.Note(at, "$"+name+" is not set by the script: it is taken for not set at all")
		known, there = true, false
	}
	switch e.Op {
	case syntax.DefaultUnset, syntax.DefaultUnsetOrNull:
		switch {
		case !known:
			word()
			return v.unknown(m)
		case there:
			return x.shown(v, st, m)
		}
		return word()
	case syntax.AlternateUnset, syntax.AlternateUnsetOrNull:
		switch {
		case !known:
			word()
			return v.unknown(m)
		case there:
			return word()
		}
		return nil
	case syntax.AssignUnset, syntax.AssignUnsetOrNull:
		if known && there {
			return x.shown(v, st, m)
		}
		text, certain := x.literal(e.Word, st)
		if v.all || !isName(name) {
			x.giveUp(st, at, "what this sets cannot be told: "+hint)
			return v.unknown(m)
		}
		x.assign(st, name, Text{text, certain && known}, at)
		if !certain || !known {
			return v.unknown(m)
		}
		return []piece{expanded(text, m)}
	case syntax.ErrorUnset, syntax.ErrorUnsetOrNull:
		switch {
		case !known:
			x.leave(st.clone(), at)
			return v.unknown(m)
		case there:
			return x.shown(v, st, m)
		}
		x.end(st, at)
		return nil
	}
	if v.all || !v.known {
		word()
		return v.unknown(m)
	}
	text, sure := v.text, false
	pattern, certain := "", true
	if e.Word != nil {
		pattern, certain = x.pattern(e.Word, st)
	}
	if !certain || !isASCII(text) {
		return v.unknown(m)
	}
	switch e.Op {
	case syntax.RemSmallPrefix, syntax.RemLargePrefix, syntax.RemSmallSuffix, syntax.RemLargeSuffix:
		text, sure = trim(text, pattern, e.Op)
	case syntax.UpperAll:
		text, sure = strings.ToUpper(text), pattern == ""
	case syntax.LowerAll:
		text, sure = strings.ToLower(text), pattern == ""
	case syntax.UpperFirst:
		text, sure = mapFirst(text, strings.ToUpper), pattern == ""
	case syntax.LowerFirst:
		text, sure = mapFirst(text, strings.ToLower), pattern == ""
	}
	if !sure {
		return v.unknown(m)
	}
	return []piece{expanded(text, m)}
}

func mapFirst(text string, with func(string) string) string {
	if text == "" {
		return ""
	}
	return with(text[:1]) + text[1:]
}

// trim takes away the shortest or the longest beginning or end that a pattern matches.
func trim(text, pattern string, op syntax.ParExpOperator) (string, bool) {
	if len(text) > 65536 {
		return "", false
	}
	for n := range len(text) + 1 {
		size := n
		if op == syntax.RemLargePrefix || op == syntax.RemLargeSuffix {
			size = len(text) - n
		}
		part, rest := text[:size], text[size:]
		if op == syntax.RemSmallSuffix || op == syntax.RemLargeSuffix {
			part, rest = text[len(text)-size:], text[:len(text)-size]
		}
		matches, sure := matchGlob(pattern, part)
		if !sure {
			return "", false
		}
		if matches {
			return rest, true
		}
	}
	return text, true
}

// asksWhetherSet reports whether an expansion is made for what may not be set.
func asksWhetherSet(op syntax.ParExpOperator) bool {
	return op <= syntax.AssignUnsetOrNull && op >= syntax.AlternateUnset
}
