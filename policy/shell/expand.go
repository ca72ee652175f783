// SPDX-License-Identifier: Apache-2.0

package shell

import (
	"strings"

	"mvdan.cc/sh/v3/expand"
	"mvdan.cc/sh/v3/syntax"
)

// piece is a part of a word, in which all has been expanded.
type piece struct {
	text    string
	quoted  bool
	split   bool // into fields
	unknown bool
	many    bool // it is unknown, and may be no field, or several
	next    bool // here begins the next field
}

// mode is where a word stands.
type mode uint8

const (
	plain mode = iota
	quoted
	heredoc
	within // the word of an expansion that is split
)

func unknownPiece(m mode) piece {
	return piece{unknown: true, quoted: m == quoted || m == heredoc, many: m == plain || m == within}
}

// source is a word as it is written.
func source(w *syntax.Word) string {
	var b strings.Builder
	_ = syntax.NewPrinter().Print(&b, w)
	return b.String()
}

// fields expands words to those of a command.
func (x *follower) fields(words []*syntax.Word, st *state) (out []Word) {
	for _, w := range words {
		expanded, ok := x.braces(w)
		if !ok {
			out = append(out, Word{Text: source(w), many: true})
			continue
		}
		for _, w := range expanded {
			out = append(out, x.split(x.pieces(w.Parts, st, plain), st, w)...)
		}
	}
	return out
}

// braces expands {a,b} and {1..3}, if it is known that the shell does.
func (x *follower) braces(w *syntax.Word) ([]*syntax.Word, bool) {
	open, closes, plainText := false, false, true
	for _, part := range w.Parts {
		lit, ok := part.(*syntax.Lit)
		if !ok {
			plainText = false
			continue
		}
		open = open || strings.Contains(lit.Value, "{")
		closes = closes || strings.Contains(lit.Value, "}")
	}
	if !open || !closes {
		return []*syntax.Word{w}, true
	}
	if !plainText || x.posix || strings.Contains(w.Lit(), `\`) {
		return nil, false
	}
	parts := *w
	if !syntax.SplitBraces(&parts) {
		return []*syntax.Word{w}, true
	}
	if inner := w.Lit(); strings.Contains(inner, "..") && (strings.Contains(inner, "{0") || strings.Contains(inner, "..0") || strings.Count(inner, "..") > 1 || strings.Contains(inner, "-")) {
		return nil, false // zeros in front, and steps
	}
	if braced(&parts) > maxRounds {
		return nil, false
	}
	return expand.Braces(&parts), true
}

// braced is how many words come of one with braces, up to some more than are expanded.
func braced(w *syntax.Word) int {
	words := 1
	for _, part := range w.Parts {
		b, ok := part.(*syntax.BraceExp)
		if !ok {
			continue
		}
		n := 0
		if b.Sequence {
			n = maxRounds + 1
			if first, ok := number(b.Elems[0].Lit()); ok && len(b.Elems) == 2 {
				if last, ok := number(b.Elems[1].Lit()); ok {
					n = int(min(max(first-last, last-first), maxRounds)) + 1
				}
			} else if len(b.Elems[0].Lit()) == 1 {
				n = 256 // letters
			}
		} else {
			for _, e := range b.Elems {
				n = min(n+braced(e), maxRounds+1)
			}
		}
		words = min(words*n, maxRounds+1)
	}
	return words
}

// pieces expands the parts of a word.
func (x *follower) pieces(parts []syntax.WordPart, st *state, m mode) (out []piece) {
	for i, part := range parts {
		switch p := part.(type) {
		case *syntax.Lit:
			out = append(out, x.literalPieces(p.Value, m, i == 0)...)
		case *syntax.SglQuoted:
			if p.Dollar && strings.Contains(p.Value, `\`) || m == quoted || m == heredoc {
				out = append(out, unknownPiece(quoted))
				break
			}
			out = append(out, piece{text: p.Value, quoted: true})
		case *syntax.DblQuoted:
			inside := x.pieces(p.Parts, st, quoted)
			if len(inside) == 0 && !onlyAll(p.Parts) {
				inside = []piece{{quoted: true}}
			}
			out = append(out, inside...)
		case *syntax.ParamExp:
			out = append(out, x.parameter(p, st, m)...)
		case *syntax.CmdSubst:
			out = append(out, x.substitution(p, st, m))
		case *syntax.ArithmExp:
			n, known := x.arithm(p.X, st, x.place(p))
			if !known {
				out = append(out, piece{unknown: true, quoted: true})
				break
			}
			out = append(out, expanded(formatNumber(n), m))
		default:
			if sub, ok := part.(*syntax.ProcSubst); ok {
				x.besides(sub, st)
			}
			out = append(out, unknownPiece(m))
		}
	}
	return out
}

// besides runs what goes on in a process substitution.
func (x *follower) besides(sub *syntax.ProcSubst, st *state) {
	at := x.place(sub)
	before := st.world.Changes()
	inside := x.subshell(st, func(st *state) *state {
		st.in = input{}
		return x.list(sub.Stmts, st)
	})
	if inside == nil || inside.world.Changes() != before || inside.lost != nil {
		x.giveUp(st, at, "when this is done, next to what follows, cannot be told: "+hint)
	}
}

// onlyAll reports whether there is nothing but "$@" or the like, which may be no field.
func onlyAll(parts []syntax.WordPart) bool {
	if len(parts) == 0 {
		return false
	}
	for _, part := range parts {
		p, ok := part.(*syntax.ParamExp)
		if !ok {
			return false
		}
		index, _ := p.Index.(*syntax.Word)
		if p.Param.Value != "@" && (index == nil || index.Lit() != "@") {
			return false
		}
	}
	return true
}

// expanded is what an expansion has come to.
func expanded(text string, m mode) piece {
	in := m == quoted || m == heredoc
	return piece{text: text, quoted: in, split: !in}
}

// literalPieces takes away the backslashes.
func (x *follower) literalPieces(text string, m mode, first bool) (out []piece) {
	if first && (m == plain || m == within) && strings.HasPrefix(text, "~") {
		return []piece{{unknown: true, quoted: true}}
	}
	quotes := "$`\"\\"
	if m == heredoc {
		quotes = "$`\\"
	}
	var b strings.Builder
	flush := func() {
		if b.Len() > 0 {
			out = append(out, piece{text: b.String(), quoted: m == quoted || m == heredoc, split: m == within})
			b.Reset()
		}
	}
	for i := 0; i < len(text); i++ {
		if text[i] != '\\' || i+1 == len(text) {
			b.WriteByte(text[i])
			continue
		}
		next := text[i+1]
		switch {
		case next == '\n':
			i++
		case m == quoted || m == heredoc:
			if strings.IndexByte(quotes, next) < 0 {
				b.WriteByte('\\')
			}
			b.WriteByte(next)
			i++
		default:
			flush()
			// The whole character, of however many bytes.
			rest := []rune(text[i+1:])
			out = append(out, piece{text: string(rest[0]), quoted: true})
			i += len(string(rest[0]))
		}
	}
	flush()
	return out
}

// substitution is what commands print, without the newlines at its end.
func (x *follower) substitution(c *syntax.CmdSubst, st *state, m mode) piece {
	at := x.place(c)
	if len(c.Stmts) == 0 {
		return expanded("", m)
	}
	if c.TempFile || c.ReplyVar {
		x.giveUp(st, at, "what this prints cannot be told: "+hint)
		return unknownPiece(m)
	}
	out := x.substitute(c.Stmts, st, at)
	if len(c.Stmts) == 1 && c.Stmts[0].Cmd == nil && len(c.Stmts[0].Redirs) > 0 {
		out = Text{} // of a file
	}
	if !out.Known || strings.Contains(out.Text, "\x00") {
		return unknownPiece(m)
	}
	return expanded(strings.TrimRight(out.Text, "\n"), m)
}

// separators are what values are split at.
func (st *state) separators() (string, bool) {
	v, ok := st.vars["IFS"]
	switch {
	case !ok || v.known && !v.set:
		return " \t\n", true
	case !v.known || v.isList:
		return "", false
	}
	return v.text, true
}

// split makes fields of the pieces of a word.
func (x *follower) split(pieces []piece, st *state, w *syntax.Word) (out []Word) {
	separators, certain := st.separators()
	var text, bare strings.Builder // bare has no quoted characters
	has, hidden, many, behindSpace := false, false, false, false
	flush := func() {
		if has {
			word := Word{Text: text.String(), Known: !hidden, many: many}
			if !st.options.noglob && isPattern(bare.String()) {
				word.Known, word.many = false, true
			}
			if !word.Known {
				word.Text = source(w)
			}
			out = append(out, word)
		}
		text.Reset()
		bare.Reset()
		has, hidden, many = false, false, false
	}
	for _, p := range pieces {
		switch {
		case p.next:
			flush()
		case p.unknown:
			has, hidden, many = true, true, many || p.many
		case p.quoted:
			text.WriteString(p.text)
			bare.WriteString(strings.Repeat("x", len(p.text)))
			has = true
		case !p.split:
			text.WriteString(p.text)
			bare.WriteString(p.text)
			has = has || p.text != ""
		case !certain && p.text != "":
			has, hidden, many = true, true, true
		default:
			for _, c := range p.text {
				switch {
				case !strings.ContainsRune(separators, c):
					text.WriteRune(c)
					bare.WriteRune(c)
					has, behindSpace = true, false
				case c == ' ' || c == '\t' || c == '\n':
					behindSpace = behindSpace || has
					flush()
				case behindSpace:
					behindSpace = false
				default:
					has = true
					flush()
				}
			}
		}
	}
	flush()
	return out
}

// isPattern reports whether a word may stand for names of files.
func isPattern(text string) bool {
	if strings.ContainsAny(text, "*?") {
		return true
	}
	i := strings.IndexByte(text, '[')
	return i >= 0 && strings.IndexByte(text[i:], ']') > 0
}

// joinPieces is a word that is not split.
func (x *follower) joinPieces(pieces []piece, st *state) (string, bool) {
	var b strings.Builder
	certain := true
	for _, p := range pieces {
		if p.next {
			b.WriteByte(' ')
		}
		b.WriteString(p.text)
		certain = certain && !p.unknown
	}
	return b.String(), certain && b.Len() <= maxText
}

// literal expands what is not split into fields, such as a value.
func (x *follower) literal(w *syntax.Word, st *state) (string, bool) {
	if w == nil {
		return "", true
	}
	return x.joinPieces(x.pieces(w.Parts, st, plain), st)
}

// pattern expands a pattern, in which what was quoted stands for itself.
func (x *follower) pattern(w *syntax.Word, st *state) (string, bool) {
	if w == nil {
		return "", true
	}
	var b strings.Builder
	certain := true
	for _, p := range x.pieces(w.Parts, st, plain) {
		if p.quoted {
			b.WriteString(quotePattern(p.text))
		} else {
			b.WriteString(p.text)
		}
		certain = certain && !p.unknown
	}
	return b.String(), certain
}
