// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"sort"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"
)

// document is a policy file as a tree of nodes, each of which is known to the
// byte: editing needs the exact place of a value, and an error its column.
// It admits the part of YAML that a person writes by hand: one document of
// mappings, lists and values on one line. What makes one text look like
// another (anchors, tags, merge keys, several documents) is refused.
type document struct {
	file     string
	data     []byte
	lines    []int // offset of the start of every line
	ascii    bool
	last     mark       // that offset was asked for
	root     *yaml.Node // nil for a file without content
	bad      map[*yaml.Node]bool
	problems []*Error
	names    Names                // what a rule in it may name, once its lists are read
	texts    map[string]*ListText // of lists from elsewhere, by name
	held     map[string]*Networks // what lists hold that block or trust names
	blocks   map[string]bool      // the names of these
	admits   map[string]bool      // the names of lists that a rule or trust names; nil until they are looked for
	reader   Reader
}

func (r Reader) readDocument(file string, data []byte) *document {
	d := &document{file: file, data: data, lines: []int{0}, ascii: true, bad: make(map[*yaml.Node]bool), reader: r,
		texts: make(map[string]*ListText), held: make(map[string]*Networks), blocks: make(map[string]bool)}
	for i, c := range data {
		if c == '\n' {
			d.lines = append(d.lines, i+1)
		}
		d.ascii = d.ascii && c < utf8.RuneSelf
	}
	if !d.checkText() {
		return d
	}
	loader, err := yaml.NewLoader(bytes.NewReader(data))
	if err != nil {
		d.syntax(err)
		return d
	}
	var first, second yaml.Node
	if err := loader.Load(&first); errors.Is(err, io.EOF) {
		return d
	} else if err != nil {
		d.syntax(err)
		return d
	}
	if err := loader.Load(&second); err == nil {
		d.errorf(&second, "second document in the file: keep one")
	} else if !errors.Is(err, io.EOF) {
		d.syntax(err)
	}
	// A mark of a document alone is an empty file; a written null is a value
	// of the wrong kind.
	root := first.Content[0]
	if d.check(root); !isNull(root) || root.Value != "" {
		d.root = root
	}
	return d
}

// checkText refuses what would make lines and columns mean different things to
// different readers. It stops at the first, which tends to have many like it.
func (d *document) checkText() bool {
	for i := 0; i < len(d.data); {
		r, size := utf8.DecodeRune(d.data[i:])
		what := ""
		switch {
		case r == utf8.RuneError && size == 1:
			what = fmt.Sprintf("byte %s is not utf-8: save the file as utf-8", quote(string(d.data[i:i+1])))
		case r == 0xfeff:
			what = "byte order mark in the file: save it as utf-8 without one"
		case r == '\r' && !bytes.HasPrefix(d.data[i:], []byte("\r\n")), r == 0x85, r == 0x2028, r == 0x2029:
			what = fmt.Sprintf("line break %+q is not usual: write a newline", r)
		case r < ' ' && r != '\t' && r != '\n' && r != '\r', r == 0x7f:
			what = fmt.Sprintf("control character %+q: take it out", r)
		}
		if what != "" {
			d.errorAt(i, nil, "%s", what)
			return false
		}
		i += size
	}
	return true
}

// check walks the whole tree for forms that a policy file does not have. Nodes
// that are one are marked, so that their content is not complained about too.
func (d *document) check(n *yaml.Node) {
	refuse := func(format string, args ...any) {
		d.bad[n] = true
		d.errorf(n, format, args...)
	}
	switch {
	case n.Kind == yaml.AliasNode:
		refuse("alias %s: write the value out", quote("*"+n.Value))
	case n.Anchor != "":
		refuse("anchor %s: take it out", quote("&"+n.Anchor))
	case bytes.HasPrefix(d.data[d.offset(n.Line, n.Column):], []byte("!")):
		// The node would say so itself, but not for the tag "!".
		tag, _, _ := strings.Cut(d.lineFrom(n), " ")
		refuse("tag %s: take it out", quote(tag))
	case n.Kind == yaml.ScalarNode:
		if _, _, ok := d.span(n); !ok {
			refuse("value %s is not plainly on one line: write it on one", quote(n.Value))
		}
	}
	for i, c := range n.Content {
		if n.Kind != yaml.MappingNode || i%2 == 1 {
			d.check(c)
			continue
		}
		d.checkKey(c)
	}
}

func (d *document) checkKey(key *yaml.Node) {
	if d.check(key); d.bad[key] {
		return
	}
	switch {
	case key.Kind != yaml.ScalarNode:
		d.errorf(key, "a list or mapping as a key: write a name")
	case key.Tag == "!!merge":
		d.errorf(key, "merge key %s: write the keys out", quote(key.Value))
	default:
		if _, ok := d.colon(key); ok {
			return
		}
		d.errorf(key, "no colon after %s: write a colon and a value", quote(key.Value))
	}
	d.bad[key] = true
}

// span returns where the text of a scalar starts and ends, quotes included, if
// it is all on one line.
func (d *document) span(n *yaml.Node) (start, end int, ok bool) {
	start = d.offset(n.Line, n.Column)
	text, _, _ := bytes.Cut(d.data[start:], []byte("\n"))
	switch {
	case n.Style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0:
		return start, start, false
	case n.Style&yaml.DoubleQuotedStyle != 0:
		end = closingQuote(text, '"')
	case n.Style&yaml.SingleQuotedStyle != 0:
		end = closingQuote(text, '\'')
	case bytes.HasPrefix(text, []byte(n.Value)):
		end = len(n.Value)
	default:
		end = -1
	}
	return start, start + end, end >= 0
}

func closingQuote(text []byte, quote byte) int {
	if len(text) == 0 || text[0] != quote {
		return -1
	}
	for i := 1; i < len(text); i++ {
		switch {
		case text[i] == '\\' && quote == '"':
			i++
		case text[i] != quote:
		case quote == '\'' && i+1 < len(text) && text[i+1] == quote:
			i++
		default:
			return i + 1
		}
	}
	return -1
}

// colon returns the offset behind the colon of a key.
func (d *document) colon(key *yaml.Node) (int, bool) {
	_, end, ok := d.span(key)
	for ok && end < len(d.data) && (d.data[end] == ' ' || d.data[end] == '\t') {
		end++
	}
	if !ok || end == len(d.data) || d.data[end] != ':' {
		return 0, false
	}
	return end + 1, true
}

func (d *document) offset(line, column int) int {
	if line < 1 || line > len(d.lines) {
		return len(d.data)
	}
	at, from := d.lines[line-1], 1
	if d.ascii {
		return min(at+column-1, len(d.data))
	}
	// Of a long line, one place is asked for after the other.
	if d.last.line == line && d.last.column <= column {
		at, from = d.last.offset, d.last.column
	}
	for range column - from {
		_, size := utf8.DecodeRune(d.data[at:])
		at += size
	}
	d.last = mark{line, column, at}
	return at
}

// mark is a place in the text, and its offset.
type mark struct{ line, column, offset int }

func (d *document) position(offset int) (line, column int) {
	line = sort.Search(len(d.lines), func(i int) bool { return d.lines[i] > offset })
	return line, utf8.RuneCount(d.data[d.lines[line-1]:offset]) + 1
}

func (d *document) errorf(n *yaml.Node, format string, args ...any) {
	d.problems = append(d.problems, &Error{d.file, n.Line, n.Column, fmt.Sprintf(format, args...), nil})
}

func (d *document) errorAt(offset int, err error, format string, args ...any) {
	line, column := d.position(offset)
	d.problems = append(d.problems, &Error{d.file, line, column, fmt.Sprintf(format, args...), err})
}

const noToken = "cannot start any token"

// plainWords says what to write for what the YAML reader stumbles on most.
var plainWords = map[string]string{
	noToken:                              "a tab begins it: indent with spaces",
	"did not find expected node content": "something is missing here, or a bracket is not closed",
	"did not find expected ',' or ']'":   "a bracket is not closed, or a comma is missing",
	"exceeded max depth":                 "it is nested too deep: no policy is",
	"unknown anchor":                     "a policy file has no anchors and aliases: write the value out, or quote a pattern that begins with *",
	"did not find expected alphabetic":   "a policy file has no anchors and aliases: write the value out, or quote a pattern that begins with *",
	"incompatible YAML document":         "leave out the line that begins with %YAML",
}

// syntax reports what the YAML reader could not read, with the line it gave up
// on: its own words seldom say enough.
func (d *document) syntax(err error) {
	line, column, msg := 1, 1, err.Error()
	var load *yaml.LoadError
	if errors.As(err, &load) {
		msg = load.Message
		if load.ContextMsg != "" {
			msg = load.ContextMsg + ": " + msg
		}
		mark := load.Mark
		// At the end of the file the reader stands behind what it misses the
		// end of.
		if mark.Line >= len(d.lines) && load.ContextMark.Line > 0 {
			mark = load.ContextMark
		}
		line, column = max(mark.Line, 1), max(mark.Column, 1)
	}
	for theirs, ours := range plainWords {
		if strings.Contains(msg, theirs) {
			msg = ours
		}
	}
	text := ""
	if line <= len(d.lines) {
		rest := d.data[d.lines[line-1]:]
		first, _, _ := bytes.Cut(rest, []byte("\n"))
		text = strings.TrimSpace(string(first))
		if reserved := reservedWord(first, column); reserved != "" && msg == plainWords[noToken] {
			msg = fmt.Sprintf("what begins with %s needs quotes: write %q", reserved[:1], reserved)
		}
	}
	d.problems = append(d.problems, &Error{d.file, line, column, fmt.Sprintf("cannot read %s: %s", quote(text), msg), nil})
}

// reservedWord returns the word at a column of a line that begins with a character that YAML reserves, or "".
func reservedWord(line []byte, column int) string {
	runes := []rune(string(line))
	if column > len(runes) || !strings.ContainsRune("@`%", runes[column-1]) {
		return ""
	}
	word := string(runes[column-1:])
	if end := strings.IndexAny(word, " \t\r,[]{}\"'"); end >= 0 {
		word = word[:end]
	}
	return word
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.Tag == "!!null" }
