// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"
)

// Load reads the policy file at path.
func Load(path string) (*Policy, error) { return Reader{}.Load(path) }

// Parse reads the text of a policy file. It finds all problems in one go and
// returns them joined, each an [*Error]. What the text leaves out has its
// default. filename is for messages, and says where the relative paths of list
// files begin.
func Parse(filename string, data []byte) (*Policy, error) { return Reader{}.Parse(filename, data) }

// Reader reads and edits policy files as the functions of the same names do,
// with lists from elsewhere.
type Reader struct {
	// ReadList returns the text of the list file at a path; nil stands for
	// [ReadListFile]. Who has a copy of a list for when its file is missing
	// returns that. An edit reads the same list more than once.
	ReadList func(path string) ([]byte, error)

	// ReadURL returns the text that was last fetched of a list with a URL; nil stands for none. Its error is why there is
	// none.
	ReadURL func(l List) ([]byte, error)

	// Cache, unless nil, keeps what lists hold from one reading to the next.
	Cache *ListCache

	recorded bool // lists are told by what they held
}

func (r Reader) readList(path string) ([]byte, error) {
	if r.ReadList == nil {
		return ReadListFile(path)
	}
	return r.ReadList(path)
}

// Load reads the policy file at path.
func (r Reader) Load(path string) (*Policy, error) {
	data, err := ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read policy: %w", err)
	}
	return r.Parse(path, data)
}

// Parse reads the text of a policy file.
func (r Reader) Parse(filename string, data []byte) (*Policy, error) {
	_, p, err := r.document(filename, data)
	return p, err
}

func (r Reader) document(filename string, data []byte) (*document, *Policy, error) {
	d := r.readDocument(filename, data)
	p := Default()
	d.policy(p)
	if err := joinErrors(filename, d.problems); err != nil {
		return nil, nil, err
	}
	return d, p, nil
}

func (d *document) policy(p *Policy) {
	switch {
	case d.root == nil:
		if len(d.problems) == 0 {
			d.errorAt(0, nil, "nothing in the file, as if it had been cut off: write what is open, or open: [] for nothing")
		}
	case d.bad[d.root]:
	case d.root.Kind != yaml.MappingNode:
		d.errorf(d.root, "%s is no policy: write keys and values, such as input: drop", d.describe(d.root))
	default:
		d.mapping(d.root, keys, p)
		d.judgeLists(p)
	}
}

// mapping reads each key of a mapping that is in the list, and reports the
// others.
func (d *document) mapping(n *yaml.Node, known []*key, p *Policy) {
	type entry struct {
		key   *key
		at, v *yaml.Node
	}
	var entries []entry
	d.entries(n, func(at, v *yaml.Node) {
		k := lookUp(known, at.Value)
		if k == nil {
			names := keyNames(known)
			d.errorf(at, "unknown key %s: %s", quote(at.Value), didYouMean(at.Value, names, "write "+joinWords(names, "or")))
			return
		}
		if !d.bad[v] {
			entries = append(entries, entry{k, at, v})
		}
	})
	slices.SortStableFunc(entries, func(a, b entry) int { return cmp.Compare(b.key.rank, a.key.rank) })
	for _, e := range entries {
		e.key.read(d, p, e.at, e.v)
	}
}

// entries calls visit for every key of a mapping and its value, and reports keys
// that are there twice. The value may be one that is bad.
func (d *document) entries(n *yaml.Node, visit func(at, v *yaml.Node)) {
	seen := make(map[string]int)
	for i := 0; i+1 < len(n.Content); i += 2 {
		at := n.Content[i]
		if d.bad[at] {
			continue
		}
		if line, dup := seen[at.Value]; dup {
			d.errorf(at, "duplicate key %s: it is on line %d already, keep one", quote(at.Value), line)
			continue
		}
		seen[at.Value] = at.Line
		visit(at, n.Content[i+1])
	}
}

// word reads a value out of a few words. what names it in messages.
func (d *document) word(what string, at, v *yaml.Node, words []string, set func([]byte) error) {
	switch {
	case isNull(v):
		d.errorf(at, "no value for %s: write %s", what, joinWords(words, "or"))
	case v.Kind != yaml.ScalarNode:
		d.errorf(v, "%s for %s: write %s", d.describe(v), what, joinWords(words, "or"))
	default:
		if set([]byte(v.Value)) != nil {
			d.errorf(v, "unknown value %s for %s: write %s", quote(v.Value), what, joinWords(words, "or"))
		}
	}
}

// list calls visit for every entry of a list that is text.
func (d *document) list(key, v *yaml.Node, example string, visit func(item *yaml.Node)) {
	if isNull(v) {
		d.errorf(key, "no value for %s: write %s: [], or a list, such as %s", quote(key.Value), key.Value, example)
		return
	}
	if v.Kind != yaml.SequenceNode {
		if v.Kind == yaml.ScalarNode && isPlain(v.Value) {
			example = "[" + strings.Join(entriesOf(v.Value), ", ") + "]"
		}
		d.errorf(v, "%s for %s: write a list, such as %s", d.describe(v), quote(key.Value), example)
		return
	}
	for _, item := range v.Content {
		switch {
		case d.bad[item]:
		case isNull(item):
			d.errorf(item, "empty entry in %s: take it out", quote(key.Value))
		case item.Kind != yaml.ScalarNode:
			d.errorf(item, "%s in %s: write every entry as one line of text", d.describe(item), quote(key.Value))
		case d.isCutOff(v, item):
			d.errorf(item, "no newline after %s, as if the file had been cut off: add one", quote(item.Value))
		default:
			visit(item)
		}
	}
}

// entriesOf returns what somebody probably meant as entries of a list when he wrote them on one line: words, but for those
// of a rule with clauses.
func entriesOf(text string) []string {
	words := strings.Fields(text)
	if slices.ContainsFunc(words, isClauseWord) {
		words = []string{text}
	}
	for i, w := range words {
		words[i] = quoteSource(w)
	}
	return words
}

// isCutOff reports whether an entry is the last of a file and may have gone on:
// 22/tcp may have been the start of 22/tcp from 203.0.113.0/24.
func (d *document) isCutOff(list, item *yaml.Node) bool {
	if list.Style&yaml.FlowStyle != 0 || item.Style&(yaml.DoubleQuotedStyle|yaml.SingleQuotedStyle) != 0 {
		return false
	}
	_, end, _ := d.span(item)
	return len(bytes.Trim(d.data[end:], " \t\r")) == 0
}

// isPlain reports whether text can be shown as it is, and needs no quotes in a
// list.
func isPlain(text string) bool {
	const most = 60
	return len(text) <= most && !strings.ContainsFunc(text, func(r rune) bool {
		return r <= ' ' && r != ' ' || r >= 0x7f || strings.ContainsRune("\"\\,", r)
	})
}

// icmp reads what is accepted of ICMP. what names it in messages.
func (d *document) icmp(what string, key, v *yaml.Node, out *ICMP) {
	const want = "write accept, drop or a list of types"
	switch {
	case isNull(v):
		d.errorf(key, "no value for %s: %s", what, want)
	case v.Kind == yaml.MappingNode:
		d.errorf(v, "%s for %s: %s", d.describe(v), what, want)
	case v.Kind == yaml.ScalarNode && v.Value == "accept":
		*out = ICMP{Mode: ICMPAccept}
	case v.Kind == yaml.ScalarNode && v.Value == "drop":
		*out = ICMP{Mode: ICMPDrop}
	case v.Kind == yaml.ScalarNode:
		if t, err := ParseICMPType(v.Value); err == nil {
			d.errorf(v, "type %s alone for %s: write a list, such as [%s]", quote(v.Value), what, t)
			return
		}
		d.errorf(v, "unknown value %s for %s: %s", quote(v.Value), what, want)
	default:
		*out = ICMP{Mode: ICMPList}
		d.list(key, v, "[echo-request]", func(item *yaml.Node) {
			t, err := ParseICMPType(item.Value)
			if err != nil {
				d.errorf(item, "%s", err)
				return
			}
			for _, have := range out.Types {
				if have.sameMessages(t) {
					d.errorf(item, "duplicate icmp type %s: the list has %s already, keep one", quote(item.Value), quote(have.text))
					return
				}
			}
			out.Types = append(out.Types, t)
		})
	}
}

// entryError places the error of a rule at the offending word, if its text
// stands in the file as it was read: with an escape in it, columns shift.
func (d *document) entryError(item *yaml.Node, err error) {
	start, end, _ := d.span(item)
	if item.Style&(yaml.DoubleQuotedStyle|yaml.SingleQuotedStyle) != 0 {
		start, end = start+1, end-1
	}
	column := item.Column
	var rule *RuleError
	if errors.As(err, &rule) && rule.reported {
		return
	}
	if rule != nil && string(d.data[start:end]) == item.Value {
		_, column = d.position(start)
		column += utf8.RuneCountInString(item.Value[:rule.Offset])
	}
	d.problems = append(d.problems, &Error{d.file, item.Line, column, err.Error(), err})
}

// describe names a node of the wrong kind by what stands in the file.
func (d *document) describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.SequenceNode:
		return "list " + quote(d.lineFrom(n))
	case yaml.MappingNode:
		return "mapping " + quote(d.lineFrom(n))
	}
	return "value " + quote(n.Value)
}

func (d *document) lineFrom(n *yaml.Node) string {
	text, _, _ := bytes.Cut(d.data[d.offset(n.Line, n.Column):], []byte("\n"))
	return strings.TrimSpace(string(text))
}
