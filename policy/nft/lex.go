// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"fmt"
	"net/netip"
	"regexp"
	"strings"
	"sync"
)

// token is a word, a text in quotes, a sign, or the end of a command.
type token struct {
	text       string
	quoted     bool
	line       int
	start, end int // where it is in the text
}

// ends reports whether the token ends a command: a line or a semicolon does.
func (t token) ends() bool { return !t.quoted && (t.text == ";" || t.text == "\n") }

func (t token) is(text string) bool { return !t.quoted && t.text == text }

// addressLike is what may be an address with colons, and around it.
var addressLike = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*(/[0-9]+)?(-[0-9A-Fa-f:.]+)?`)
})

// hiddenPart is how some versions of nft print what iptables-nft has put into a
// rule. Behind it the rule goes on, or ends, in a way that is not shown.
var hiddenPart = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^# ?(xt_|match |target )`) })

const wordRunes = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./-*\\@$%+?~"

// lex splits the text of a file.
func lex(file, text string) ([]token, error) {
	var out []token
	line := 1
	add := func(text string, isQuoted bool, start, end int) {
		out = append(out, token{text, isQuoted, line, start, end})
	}
	for i := 0; i < len(text); {
		c := text[i]
		switch {
		case c == '\\' && strings.HasPrefix(text[i:], "\\\n"):
			line++
			i += 2
		case c == '\n':
			add("\n", false, i, i+1)
			line++
			i++
		case c == ' ' || c == '\t' || c == '\r':
			i++
		case c == '#':
			if hiddenPart().MatchString(text[i:min(len(text), i+20)]) {
				add("xt", false, i, i)
				add("target", false, i, i)
			}
			for i < len(text) && text[i] != '\n' {
				i++
			}
		case c == '"':
			end := strings.IndexByte(text[i+1:], '"')
			if end < 0 {
				return nil, fmt.Errorf("%s:%d: the quotes are not closed", file, line)
			}
			inner := text[i+1 : i+1+end]
			add(inner, true, i, i+end+2)
			line += strings.Count(inner, "\n")
			i += end + 2
		default:
			if word := addressAt(text[i:]); word != "" {
				add(word, false, i, i+len(word))
				i += len(word)
				continue
			}
			end := i
			for end < len(text) && strings.IndexByte(wordRunes, text[end]) >= 0 && !strings.HasPrefix(text[end:], "\\\n") {
				end++
			}
			if end == i {
				end = i + signAt(text[i:])
			}
			add(text[i:end], false, i, end)
			i = end
		}
	}
	return append(out, token{text: "\n", line: line, start: len(text), end: len(text)}), nil
}

// addressAt is the address with colons at the beginning of a text, or "".
func addressAt(text string) string {
	const longest = 100
	word := addressLike().FindString(text[:min(len(text), longest)])
	for ; word != ""; word = word[:len(word)-1] {
		if isAddress(word) {
			return word
		}
		// A colon behind it is the sign between a key and a value.
		if last := word[len(word)-1]; last != ':' && last != '.' && last != '-' {
			break
		}
	}
	return ""
}

func isAddress(word string) bool {
	if first, last, isRange := strings.Cut(word, "-"); isRange {
		return isAddress(first) && isAddress(last)
	}
	if strings.Contains(word, "/") {
		_, err := netip.ParsePrefix(word)
		return err == nil
	}
	_, err := netip.ParseAddr(word)
	return err == nil || strings.Count(word, ":") == 5 && len(word) <= 17
}

// signAt is the length of the sign at the beginning of a text.
func signAt(text string) int {
	for _, two := range []string{"==", "!=", "<=", ">=", "<<", ">>"} {
		if strings.HasPrefix(text, two) {
			return 2
		}
	}
	for i := range text {
		if i > 0 {
			return i // one rune
		}
	}
	return len(text)
}
