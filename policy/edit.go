// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"
)

// An edit must leave every byte that it is not about as it was: the file
// belongs to the person who wrote it. Hence no tree is printed anew; pieces of
// text are put in and taken out at the places of nodes, and the result is read
// again and compared with what was meant before anyone gets to write it.

// InsertRule returns the text of a policy file with r added as the last entry
// of open, or of that of forward, in the style that the list has. Nothing else changes. If an equal
// rule is there already, it returns data itself.
func InsertRule(filename string, data []byte, r Rule) ([]byte, error) {
	return Reader{}.InsertRule(filename, data, r)
}

// InsertRule adds a rule to the text of a policy file.
func (r Reader) InsertRule(filename string, data []byte, rule Rule) ([]byte, error) {
	d, before, err := r.document(filename, data)
	if err != nil {
		return nil, err
	}
	want, added := before.WithRule(rule)
	if !added {
		return data, nil
	}
	pieces, err := rule.edit(d, before, want)
	if err == nil {
		data, err = d.apply(want, pieces)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: insert rule %s: %w", filename, quote(rule.String()), err)
	}
	return data, nil
}

// RemoveRule returns the text of a policy file without the rule that equals r.
// In a list of one entry a line, the line goes, with a comment behind the
// entry; comments on lines of their own stay, because only a person can tell
// whether they speak of one entry or of those that follow. An emptied list
// becomes []. Errors are those of [Policy.WithoutRule].
func RemoveRule(filename string, data []byte, r Rule) ([]byte, error) {
	return Reader{}.RemoveRule(filename, data, r)
}

// RemoveRule takes a rule out of the text of a policy file.
func (r Reader) RemoveRule(filename string, data []byte, rule Rule) ([]byte, error) {
	d, before, err := r.document(filename, data)
	if err != nil {
		return nil, err
	}
	want, removed, err := before.WithoutRule(rule)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", filename, err)
	}
	pieces, err := rule.edit(d, before, want)
	if err == nil {
		data, err = d.apply(want, pieces)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: remove rule %s: %w", filename, quote(removed.String()), err)
	}
	return data, nil
}

// edit takes a step towards want, which has the rule or has it no more.
func (r Rule) edit(d *document, before, want *Policy) ([]piece, error) {
	name := "open"
	if r.Forward {
		name = "forward"
	}
	return lookUp(keys, name).edit(d, []string{name}, before, want)
}

// piece replaces data[start:end] by text.
type piece struct {
	start, end int
	text       string
}

// splice returns the text with pieces of it replaced.
func (d *document) splice(pieces []piece) []byte {
	slices.SortFunc(pieces, func(a, b piece) int { return cmp.Compare(a.start, b.start) })
	var out []byte
	at := 0
	for _, p := range pieces {
		out = append(out, d.data[at:p.start]...)
		out = append(out, p.text...)
		at = p.end
	}
	return append(out, d.data[at:]...)
}

func (d *document) apply(want *Policy, pieces []piece) ([]byte, error) {
	out := d.splice(pieces)
	got, err := d.reader.Parse(d.file, out)
	if err != nil {
		return nil, fmt.Errorf("the way this file is written does not allow it, edit it by hand: %w", err)
	}
	if !got.Equal(want) {
		return nil, fmt.Errorf("the file would not mean what it should, edit it by hand")
	}
	return out, nil
}

// insertion adds n entries, each written for a list in brackets or for one of
// lines, to the list of the key at the end of a path.
func (d *document) insertion(path []string, n int, entry func(i int, inFlow bool) string) []piece {
	key, list := d.find(path)
	if key == nil && len(path) == 1 && d.root.Style&yaml.FlowStyle == 0 {
		indent := strings.Repeat(" ", d.root.Column-1)
		return []piece{d.appendLines(indent + path[0] + ":" + d.entryLines(n, indent+"  ", entry))}
	}
	texts := make([]string, n)
	for i := range texts {
		texts[i] = entry(i, true)
	}
	text := strings.Join(texts, ", ")
	switch {
	case key == nil:
		return d.setting(d.root, path, "["+text+"]")
	case list.Style&yaml.FlowStyle == 0:
		_, end, _ := d.span(list.Content[len(list.Content)-1])
		end = d.lineEnd(end)
		lines := d.entryLines(n, strings.Repeat(" ", list.Column-1), entry)
		if end == len(d.data) {
			lines += d.eol() // without it the last entry would look cut off
		}
		return d.put(end, lines)
	case len(list.Content) == 0:
		return d.put(d.offset(list.Line, list.Column)+1, text)
	}
	_, end, _ := d.span(list.Content[len(list.Content)-1])
	return d.put(end, ", "+text)
}

// entryLines returns entries one a line, each with the line break before it.
func (d *document) entryLines(n int, indent string, entry func(i int, inFlow bool) string) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(d.eol() + indent + "- " + entry(i, false))
	}
	return b.String()
}

func (d *document) put(at int, text string) []piece { return []piece{{at, at, text}} }

// appendLines adds lines at the end of the document.
func (d *document) appendLines(text string) piece {
	at := len(d.data)
	// Behind the mark of its end a document has no more content.
	for i := len(d.lines) - 1; i >= d.root.Line; i-- {
		if line := d.data[d.lines[i]:]; bytes.HasPrefix(line, []byte("...")) {
			at = d.lines[i]
		}
	}
	if d.data[at-1] != '\n' {
		text = d.eol() + text
	}
	return piece{at, at, text + d.eol()}
}

// removal takes the entries that are meant out of the list of a key: all of
// them where they stand one a line, and the first of a list in brackets.
func (d *document) removal(path []string, meant func(text string) bool) ([]piece, error) {
	key, list := d.find(path)
	var pieces []piece
	for i, item := range list.Content {
		if !meant(item.Value) {
			continue
		}
		if list.Style&yaml.FlowStyle != 0 {
			return d.flowRemoval(list, i), nil
		}
		start, end, _ := d.span(item)
		line := d.lines[item.Line-1]
		if strings.TrimSpace(string(d.data[line:start])) != "-" {
			return nil, fmt.Errorf("the dash of the entry on line %d is on another line: put them on one", item.Line)
		}
		pieces = append(pieces, piece{line, d.nextLine(end), ""})
	}
	if len(pieces) == len(list.Content) {
		colon, _ := d.colon(key)
		pieces = append(pieces, piece{colon, colon, " []"})
	}
	return pieces, nil
}

// flowRemoval takes entry i out of a list in brackets, and one comma with it.
func (d *document) flowRemoval(list *yaml.Node, i int) []piece {
	start, end, _ := d.span(list.Content[i])
	next := d.skip(end)
	comma := d.data[next] == ','
	if len(list.Content) == 1 {
		open, closing := d.offset(list.Line, list.Column)+1, next
		if comma {
			closing = d.skip(next + 1)
		}
		if !bytes.ContainsAny(d.data[open:closing], "#\n") {
			return []piece{{open, closing, ""}}
		}
	}
	if !comma {
		if i > 0 && list.Content[i-1].Line == list.Content[i].Line {
			_, start, _ = d.span(list.Content[i-1])
			return []piece{{start, end, ""}}
		}
		// The comma before the entry stays, which YAML allows at the end.
		return []piece{d.wholeLine(piece{start, end, ""})}
	}
	if bytes.ContainsAny(d.data[end:next], "#\n") {
		return []piece{{start, end, ""}, {next, next + 1, ""}}
	}
	cut := d.wholeLine(piece{start, next + 1, ""})
	if after := d.skip(cut.end); cut.start == start && !bytes.ContainsAny(d.data[cut.end:after], "#\n") {
		cut.end = after
	}
	return []piece{cut}
}

// wholeLine widens a cut to the line it is on, if nothing but a comment would
// be left of that.
func (d *document) wholeLine(p piece) piece {
	line := bytes.LastIndexByte(d.data[:p.start], '\n') + 1
	rest := strings.TrimSpace(string(d.data[p.end:d.lineEnd(p.end)]))
	if len(bytes.TrimSpace(d.data[line:p.start])) > 0 || rest != "" && rest[0] != '#' {
		return p
	}
	return piece{line, d.nextLine(p.end), ""}
}

// find returns the key at the end of a path and its value, or nil.
func (d *document) find(path []string) (key, value *yaml.Node) {
	value = d.root
	for _, name := range path {
		if value == nil || value.Kind != yaml.MappingNode {
			return nil, nil
		}
		key, value = d.findIn(value, name)
	}
	return key, value
}

func (d *document) findIn(mapping *yaml.Node, name string) (key, value *yaml.Node) {
	for i := 0; i+1 < len(mapping.Content); i += 2 {
		if mapping.Content[i].Value == name {
			return mapping.Content[i], mapping.Content[i+1]
		}
	}
	return nil, nil
}

// end returns the offset behind a value, or behind the last one of a mapping
// or list.
func (d *document) end(n *yaml.Node) int {
	if n.Kind == yaml.ScalarNode {
		_, end, _ := d.span(n)
		return end
	}
	inFlow := n.Style&yaml.FlowStyle != 0
	at := d.offset(n.Line, n.Column)
	if inFlow {
		at++
	}
	if last := len(n.Content) - 1; last >= 0 {
		at = d.end(n.Content[last])
	}
	if !inFlow {
		return at
	}
	if at = d.skip(at); at < len(d.data) && d.data[at] == ',' {
		at = d.skip(at + 1)
	}
	return at + 1
}

// skip goes over blanks, line ends and comments.
func (d *document) skip(at int) int {
	for at < len(d.data) {
		switch c := d.data[at]; {
		case c == '#':
			at = d.lineEnd(at)
		case strings.IndexByte(blanks, c) >= 0:
			at++
		default:
			return at
		}
	}
	return at
}

func (d *document) eol() string {
	if i := bytes.IndexByte(d.data, '\n'); i > 0 && d.data[i-1] == '\r' {
		return "\r\n"
	}
	return "\n"
}

// lineEnd returns the offset of the line break at or behind at.
func (d *document) lineEnd(at int) int {
	i := bytes.IndexByte(d.data[at:], '\n')
	switch {
	case i < 0:
		return len(d.data)
	case d.data[at+i-1] == '\r':
		return at + i - 1
	}
	return at + i
}

func (d *document) nextLine(at int) int {
	if i := bytes.IndexByte(d.data[at:], '\n'); i >= 0 {
		return at + i + 1
	}
	return len(d.data)
}
