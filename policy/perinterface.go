// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"
)

// defaultWord stands for all interfaces that nothing else is said about. The
// kernel gives no interface this name.
const defaultWord = "default"

// perInterface is the kind of a key with one value, or with one for each of some
// interfaces: input: {default: drop, eth1: accept}.
type perInterface[T any] struct {
	field  func(*Policy) *T
	on     func(*Policy) *map[string]T
	words  []string                                                 // what may stand there, if it is one of a few words
	parse  func(d *document, what string, at, v *yaml.Node, out *T) // what names the value in messages
	format func(T) string                                           // as the file has it
	same   func(a, b T) bool
	names  func(T) []string // of a value that is a list; nil: none is
}

// oneOf returns the kind of a key with one of a few words.
func oneOf[T ~uint8](words []string, field func(*Policy) *T) value {
	return value{
		words: words,
		parse: func(d *document, p *Policy, at, v *yaml.Node) {
			d.word(quote(at.Value), at, v, words, func(text []byte) error { return unmarshalEnum(words, field(p), text) })
		},
		format: func(p *Policy) string { return enumWord(words, *field(p)) },
	}
}

// oneOfPerInterface is oneOf for a key that interfaces may have values of.
func oneOfPerInterface[T ~uint8](words []string, field func(*Policy) *T, on func(*Policy) *map[string]T) perInterface[T] {
	return perInterface[T]{
		field: field, on: on, words: words,
		parse: func(d *document, what string, at, v *yaml.Node, out *T) {
			d.word(what, at, v, words, func(text []byte) error { return unmarshalEnum(words, out, text) })
		},
		format: func(v T) string { return enumWord(words, v) },
		same:   func(a, b T) bool { return a == b },
	}
}

func (k perInterface[T]) read(d *document, p *Policy, at, v *yaml.Node) {
	if v.Kind != yaml.MappingNode {
		k.parse(d, quote(at.Value), at, v, k.field(p))
		return
	}
	if len(v.Content) == 0 {
		d.errorf(v, "nothing in the braces of %s: write one value, or some such as {%s: %s, eth1: accept}", quote(at.Value), defaultWord, k.format(*k.field(Default())))
		return
	}
	d.entries(v, func(name, v *yaml.Node) {
		if d.bad[v] {
			return
		}
		if name.Value == defaultWord {
			k.parse(d, quote(at.Value)+" by default", name, v, k.field(p))
			return
		}
		pattern, err := parsePattern(name.Value)
		if err == nil && strings.Trim(pattern, "*") == "" {
			err = fmt.Errorf("%s stands for every interface: write %s", quote(pattern), defaultWord)
		}
		if err != nil {
			d.errorf(name, "%s", err)
			return
		}
		var out T
		k.parse(d, quote(at.Value)+" on "+quote(pattern), name, v, &out)
		on := k.on(p)
		if *on == nil {
			*on = make(map[string]T)
		}
		(*on)[pattern] = out
	})
}

func (k perInterface[T]) diff(label string, old, new *Policy) []Change {
	var out []Change
	if a, b := *k.field(old), *k.field(new); !k.same(a, b) {
		out = append(out, Change{'~', label, k.format(a), k.format(b)})
	}
	before, after := *k.on(old), *k.on(new)
	for _, pattern := range union(before, after) {
		a, had := before[pattern]
		b, has := after[pattern]
		label := label + " on " + pattern
		switch {
		case !had:
			out = append(out, Change{'+', label, "", k.format(b)})
		case !has:
			out = append(out, Change{'-', label, k.format(a), ""})
		case !k.same(a, b):
			out = append(out, Change{'~', label, k.format(a), k.format(b)})
		}
	}
	return out
}

// union returns the keys of both maps, sorted.
func union[T any](a, b map[string]T) []string {
	return slices.Compact(slices.Sorted(func(yield func(string) bool) {
		for _, m := range []map[string]T{a, b} {
			for name := range m {
				if !yield(name) {
					return
				}
			}
		}
	}))
}

// text returns the value as it stands behind the key.
func (k perInterface[T]) text(p *Policy) string {
	on := *k.on(p)
	if len(on) == 0 {
		return k.format(*k.field(p))
	}
	texts := []string{defaultWord + ": " + k.format(*k.field(p))}
	for _, pattern := range slices.Sorted(maps.Keys(on)) {
		texts = append(texts, quoteName(pattern)+": "+k.format(on[pattern]))
	}
	return "{" + strings.Join(texts, ", ") + "}"
}

func (k perInterface[T]) choices() []string { return k.words }

func (k perInterface[T]) write(b *strings.Builder, indent, name string, p *Policy) {
	fmt.Fprintf(b, "%s%s: %s\n", indent, name, k.text(p))
}

func (k perInterface[T]) edit(d *document, path []string, have, want *Policy) ([]piece, error) {
	key, v := d.find(path)
	whole := d.setting(d.root, path, k.text(want))
	if key == nil || v.Kind != yaml.MappingNode || len(*k.on(want)) == 0 {
		return whole, nil
	}
	if a, b := *k.field(have), *k.field(want); !k.same(a, b) {
		return d.setting(d.root, append(slices.Clone(path), defaultWord), k.format(b)), nil
	}
	before, after := *k.on(have), *k.on(want)
	for _, pattern := range union(before, after) {
		a, had := before[pattern]
		b, has := after[pattern]
		switch {
		case !has && v.Style&yaml.FlowStyle != 0:
			return whole, nil
		case !has:
			return d.entryRemoval(v, pattern), nil
		case !had || !k.same(a, b):
			return d.setting(d.root, append(slices.Clone(path), pattern), k.format(b)), nil
		}
	}
	return nil, nil
}

// entryRemoval takes a key and its value, which have lines of their own, out of
// a mapping.
func (d *document) entryRemoval(mapping *yaml.Node, name string) []piece {
	key, v := d.findIn(mapping, name)
	return []piece{{d.lines[key.Line-1], d.nextLine(d.end(v)), ""}}
}

func (k perInterface[T]) view(p *Policy) any {
	one := func(v T) any {
		if k.names != nil {
			if names := k.names(v); names != nil {
				return names
			}
		}
		return k.format(v)
	}
	on := *k.on(p)
	if len(on) == 0 {
		return one(*k.field(p))
	}
	out := Settings{{defaultWord, one(*k.field(p))}}
	for _, pattern := range slices.Sorted(maps.Keys(on)) {
		out = append(out, Setting{pattern, one(on[pattern])})
	}
	return out
}
