// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"
)

// value is the kind of a key whose value stands on one line and is replaced as
// a whole.
type value struct {
	words   []string // what may stand there, if it is one of a few words
	parse   func(d *document, p *Policy, at, v *yaml.Node)
	format  func(p *Policy) string       // as the file has it; same means same
	same    func(a, b *Policy) bool      // nil where format tells
	entries func(p *Policy) (l []string) // not nil where the value is a list
}

func (k value) read(d *document, p *Policy, at, v *yaml.Node) { k.parse(d, p, at, v) }

func (k value) diff(label string, old, new *Policy) []Change {
	a, b := k.format(old), k.format(new)
	if a == b || k.same != nil && k.same(old, new) {
		return nil
	}
	return []Change{{'~', label, a, b}}
}

func (k value) write(b *strings.Builder, indent, name string, p *Policy) {
	fmt.Fprintf(b, "%s%s: %s\n", indent, name, k.format(p))
}

func (k value) edit(d *document, path []string, _, want *Policy) ([]piece, error) {
	return d.setting(d.root, path, k.format(want)), nil
}

func (k value) text(p *Policy) string { return k.format(p) }

func (k value) choices() []string { return k.words }

func (k value) view(p *Policy) any {
	if k.entries != nil {
		if names := k.entries(p); names != nil {
			return names
		}
	}
	return k.format(p)
}

// number returns the kind of a key with a number or a duration.
func number(example string, set func(p *Policy, text string) error, format func(*Policy) string) value {
	return value{
		parse: func(d *document, p *Policy, at, v *yaml.Node) {
			switch {
			case isNull(v):
				d.errorf(at, "no value for %s: write one, such as %s", quote(at.Value), example)
			case v.Kind != yaml.ScalarNode:
				d.errorf(v, "%s for %s: write one value, such as %s", d.describe(v), quote(at.Value), example)
			default:
				if err := set(p, v.Value); err != nil {
					d.errorf(v, "%s", err)
				}
			}
		},
		format: format,
	}
}

// list is the kind of a key with a list in which the order means nothing.
type list[T any, K comparable] struct {
	field   func(*Policy) *[]T
	holds   func(T) bool // of what the field holds, what the list does; nil: all
	parse   func(d *document, text string) (T, error)
	spell   func(entry T, p *Policy) T // as the file of p can have it; nil: as it is
	id      func(T) K                  // the same for entries that mean the same
	format  func(T) string             // as a Change has it
	quote   func(entry T, inFlow bool) string
	noun    string // what an entry is
	example string
	oneLine bool // written in brackets
}

func (k list[T, K]) read(d *document, p *Policy, at, v *yaml.Node) {
	type place struct {
		text string
		line int
	}
	seen := make(map[K]place, len(v.Content))
	field := k.field(p)
	*field = slices.Grow(*field, len(v.Content))
	d.list(at, v, k.example, func(item *yaml.Node) {
		entry, err := k.parse(d, item.Value)
		if err != nil {
			d.entryError(item, err)
			return
		}
		id := k.id(entry)
		first, dup := seen[id]
		switch {
		case dup && first.text == item.Value:
			d.errorf(item, "duplicate %s %s: it is on line %d already, keep one", k.noun, quote(item.Value), first.line)
		case dup:
			d.errorf(item, "duplicate %s %s: %s on line %d means the same, keep one", k.noun, quote(item.Value), quote(first.text), first.line)
		default:
			seen[id] = place{item.Value, item.Line}
			*field = append(*field, entry)
		}
	})
}

// of returns the entries that p has.
func (k list[T, K]) of(p *Policy) []T {
	entries := *k.field(p)
	if k.holds == nil || !slices.ContainsFunc(entries, func(entry T) bool { return !k.holds(entry) }) {
		return entries
	}
	return slices.DeleteFunc(slices.Clone(entries), func(entry T) bool { return !k.holds(entry) })
}

func (k list[T, K]) diff(label string, old, new *Policy) []Change {
	before, after := k.of(old), k.of(new)
	gone, come := k.differing(before, after)
	out := make([]Change, 0, len(gone)+len(come))
	for _, i := range gone {
		out = append(out, Change{'-', label, k.format(before[i]), ""})
	}
	for _, i := range come {
		out = append(out, Change{'+', label, "", k.format(after[i])})
	}
	return slices.Compact(out)
}

// differing returns the places of entries of a that are not in b, and of those of b that are not in a. What an entry means
// takes time to find out, so that is done once.
func (k list[T, K]) differing(a, b []T) (notInB, notInA []int) {
	ids := func(entries []T) (all []K, known map[K]bool) {
		all, known = make([]K, len(entries)), make(map[K]bool, len(entries))
		for i, entry := range entries {
			all[i] = k.id(entry)
			known[all[i]] = true
		}
		return all, known
	}
	of := func(all []K, known map[K]bool) (places []int) {
		for i, id := range all {
			if !known[id] {
				places = append(places, i)
			}
		}
		return places
	}
	idsOfA, inA := ids(a)
	idsOfB, inB := ids(b)
	return of(idsOfA, inB), of(idsOfB, inA)
}

// missing returns the entries of a that are not in b.
func (k list[T, K]) missing(a, b []T) []T {
	places, _ := k.differing(a, b)
	var out []T
	for _, i := range places {
		out = append(out, a[i])
	}
	return out
}

func (k list[T, K]) write(b *strings.Builder, indent, name string, p *Policy) {
	entries := k.spelled(k.of(p), p)
	if k.oneLine || len(entries) == 0 {
		texts := make([]string, len(entries))
		for i, entry := range entries {
			texts[i] = k.quote(entry, true)
		}
		fmt.Fprintf(b, "%s%s: [%s]\n", indent, name, strings.Join(texts, ", "))
		return
	}
	fmt.Fprintf(b, "%s%s:\n", indent, name)
	for _, entry := range entries {
		fmt.Fprintf(b, "%s  - %s\n", indent, k.quote(entry, false))
	}
}

// edit adds first, and removes in a later step: with its last entry a list
// would lose its style.
func (k list[T, K]) edit(d *document, path []string, have, want *Policy) ([]piece, error) {
	if add := k.spelled(k.missing(k.of(want), k.of(have)), have); len(add) > 0 {
		return d.insertion(path, len(add), func(i int, inFlow bool) string { return k.quote(add[i], inFlow) }), nil
	}
	gone := make(map[K]bool)
	for _, entry := range k.missing(k.of(have), k.of(want)) {
		gone[k.id(entry)] = true
	}
	return d.removal(path, func(text string) bool {
		entry, err := k.parse(d, text)
		return err == nil && gone[k.id(entry)]
	})
}

// spelled returns entries as the file of p can have them.
func (k list[T, K]) spelled(entries []T, p *Policy) []T {
	if k.spell == nil {
		return entries
	}
	out := make([]T, len(entries))
	for i, entry := range entries {
		out[i] = k.spell(entry, p)
	}
	return out
}

func (k list[T, K]) view(p *Policy) any {
	out := []string{}
	for _, entry := range k.of(p) {
		out = append(out, k.format(entry))
	}
	return out
}

// section is the kind of a key with keys inside, each of which has a value.
type section struct {
	example string
	keys    []*key
}

func (k section) read(d *document, p *Policy, at, v *yaml.Node) {
	if isNull(v) {
		d.errorf(at, "no value for %s: write %s: {}, or keys and values, such as %s", quote(at.Value), at.Value, k.example)
		return
	}
	if v.Kind != yaml.MappingNode {
		d.errorf(v, "%s for %s: write keys and values, such as %s", d.describe(v), quote(at.Value), k.example)
		return
	}
	d.mapping(v, k.keys, p)
}

func (k section) diff(_ string, old, new *Policy) []Change {
	var out []Change
	for _, inner := range k.keys {
		out = append(out, inner.diff(inner.label, old, new)...)
	}
	return out
}

func (k section) write(b *strings.Builder, indent, name string, p *Policy) {
	fmt.Fprintf(b, "%s%s:\n", indent, name)
	for _, inner := range k.keys {
		if inner.always || !inner.isDefault(p) {
			inner.write(b, indent+"  ", inner.Name, p)
		}
	}
}

func (k section) edit(d *document, path []string, have, want *Policy) ([]piece, error) {
	for _, inner := range k.keys {
		if len(inner.diff(inner.label, have, want)) > 0 {
			return inner.edit(d, append(slices.Clone(path), inner.Name), have, want)
		}
	}
	return nil, nil
}

func (k section) view(p *Policy) any { return settings(k.keys, p) }
