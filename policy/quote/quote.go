// SPDX-License-Identifier: Apache-2.0

// Package quote makes text that others have chosen safe to show and to paste:
// names of processes, interfaces, files and tables may hold escape sequences
// that would write to the terminal of root, and characters that a shell reads
// as a command.
package quote

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// longestName is how much of a name is shown, in characters.
const longestName = 100

// Text returns the text on one line, with an escape for each character that is not printed as itself: control
// characters, those that reorder text or take no room, and bytes that are not UTF-8. What is quoted already stays as it
// is.
func Text(text string) string { return escape(text, "") }

// Name returns [Text] of a name, cut off where it is very long.
func Name(name string) string {
	runes := 0
	for i := range name {
		if runes == longestName {
			return Text(name[:i]) + "…"
		}
		runes++
	}
	return Text(name)
}

// Names returns the names as a list in a sentence.
func Names(names []string) string {
	quoted := make([]string, len(names))
	for i, name := range names {
		quoted[i] = Name(name)
	}
	return strings.Join(quoted, ", ")
}

// harmless reports whether a character is shown as itself.
func harmless(r rune, kept string) bool { return unicode.IsPrint(r) || strings.ContainsRune(kept, r) }

// escape escapes what is neither printable nor kept.
func escape(text, kept string) string {
	if first := strings.IndexFunc(text, func(r rune) bool { return r == utf8.RuneError || !harmless(r, kept) }); first < 0 {
		return text
	}
	var b strings.Builder
	for i, size := 0, 0; i < len(text); i += size {
		var r rune
		r, size = utf8.DecodeRuneInString(text[i:])
		switch named, ok := map[rune]string{'\n': `\n`, '\r': `\r`, '\t': `\t`}[r]; {
		case r == utf8.RuneError && size == 1:
			fmt.Fprintf(&b, `\x%02x`, text[i])
		case harmless(r, kept):
			b.WriteRune(r)
		case ok:
			b.WriteString(named)
		case r < ' ':
			fmt.Fprintf(&b, `\x%02x`, r)
		default: // as JSON has it, in whose strings this may stand
			for _, unit := range utf16.AppendRune(nil, r) {
				fmt.Fprintf(&b, `\u%04x`, unit)
			}
		}
	}
	return b.String()
}

// NewWriter returns a writer that escapes as [Text] does, but for line ends and tabs. It leaves JSON equal JSON. Each
// text has to be written whole.
func NewWriter(w io.Writer) io.Writer { return writer{w} }

type writer struct{ w io.Writer }

// Write implements [io.Writer].
func (w writer) Write(text []byte) (int, error) {
	const kept = "\n\t"
	// Output is mostly harmless, and may be large: it is not copied then.
	if bytes.IndexFunc(text, func(r rune) bool { return r == utf8.RuneError || !harmless(r, kept) }) < 0 {
		return w.w.Write(text)
	}
	if _, err := io.WriteString(w.w, escape(string(text), kept)); err != nil {
		return 0, err
	}
	return len(text), nil
}

// Shell returns the text as one word for a shell: bash, or another one that knows $'\x1b' where it cannot be printed.
func Shell(word string) string {
	plain := func(r rune) bool {
		return r < utf8.RuneSelf && (unicode.IsLetter(r) || unicode.IsDigit(r) || strings.ContainsRune("_@%+=:,./-", r))
	}
	switch {
	case word != "" && strings.IndexFunc(word, func(r rune) bool { return !plain(r) }) < 0:
		return word
	case Text(word) == word:
		return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
	}
	var b strings.Builder
	b.WriteString("$'")
	for i := range len(word) {
		switch c := word[i]; {
		case c == '\'' || c == '\\':
			b.WriteByte('\\')
			b.WriteByte(c)
		case c < ' ' || c >= 0x7f:
			fmt.Fprintf(&b, `\x%02x`, c)
		default:
			b.WriteByte(c)
		}
	}
	return b.String() + "'"
}

// ShellWords returns the words as arguments of a command line.
func ShellWords(words []string) string {
	quoted := make([]string, len(words))
	for i, word := range words {
		quoted[i] = Shell(word)
	}
	return strings.Join(quoted, " ")
}
