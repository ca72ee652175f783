// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"
)

// Rewrite returns the text of a policy file changed so that it means want. What
// means the same already stays as it is written, comments among it.
func Rewrite(filename string, data []byte, want *Policy) ([]byte, error) {
	return Reader{}.Rewrite(filename, data, want)
}

// Rewrite changes the text of a policy file so that it means want.
func (r Reader) Rewrite(filename string, data []byte, want *Policy) ([]byte, error) {
	d, have, err := r.document(filename, data)
	if err != nil {
		return nil, err
	}
	if d, have, err = r.addLists(d, have, want); err != nil {
		return nil, err
	}
	want = want.WithListsOf(have)
	for _, k := range keys {
		// A key may take several steps, each of which leaves less to do.
		for left := k.diff(k.label, have, want); len(left) > 0; {
			pieces, err := k.edit(d, []string{k.Name}, have, want)
			if err != nil {
				return nil, fmt.Errorf("%s: %s: %w", filename, left[0], err)
			}
			if d, have, err = r.document(filename, d.splice(pieces)); err != nil {
				return nil, fmt.Errorf("%s: %s: the way this file is written does not allow it, edit it by hand: %w", filename, left[0], err)
			}
			before := len(left)
			if left = k.diff(k.label, have, want); len(left) >= before {
				return nil, fmt.Errorf("%s: %s: the file would not mean what it should, edit it by hand", filename, left[0])
			}
		}
	}
	if !have.Equal(want) {
		return nil, fmt.Errorf("%s: the file would not mean what it should, edit it by hand", filename)
	}
	return d.data, nil
}

// addLists writes the lists that block and trust of want name and the file does not have.
func (r Reader) addLists(d *document, have, want *Policy) (*document, *Policy, error) {
	for _, l := range want.Named() {
		if slices.ContainsFunc(have.Lists, func(h List) bool { return h.Name == l.Name }) {
			continue
		}
		out := d.splice(d.setting(d.root, []string{"lists", l.Name}, l.value()))
		var err error
		if d, have, err = r.document(d.file, out); err != nil {
			return nil, nil, fmt.Errorf("%s: the way this file is written does not allow to add the list %s, edit it by hand: %w", d.file, quote(l.Name), err)
		}
	}
	return d, have, nil
}

// setting gives the key at the end of a path below a mapping a value.
func (d *document) setting(mapping *yaml.Node, path []string, value string) []piece {
	key, old := d.findIn(mapping, path[0])
	if len(path) > 1 {
		if key != nil && old.Kind == yaml.MappingNode {
			return d.setting(old, path[1:], value)
		}
		var inner strings.Builder
		for _, name := range path[1:] {
			inner.WriteString("{" + quoteName(name) + ": ")
		}
		value = inner.String() + value + strings.Repeat("}", len(path)-1)
	}
	text := quoteName(path[0]) + ": " + value
	inFlow := mapping.Style&yaml.FlowStyle != 0
	switch {
	case key != nil:
		return d.replacement(key, old, value)
	case inFlow && len(mapping.Content) == 0:
		return d.put(d.offset(mapping.Line, mapping.Column)+1, text)
	}
	end := d.end(mapping.Content[len(mapping.Content)-1])
	indent := strings.Repeat(" ", mapping.Column-1)
	switch {
	case inFlow:
		return d.put(end, ", "+text)
	case mapping == d.root:
		return []piece{d.appendLines(indent + text)}
	}
	return d.put(d.lineEnd(end), d.eol()+indent+text)
}

// replacement puts a value in the place of a key's old one.
func (d *document) replacement(key, old *yaml.Node, value string) []piece {
	start, end := d.offset(old.Line, old.Column), d.end(old)
	if old.Kind == yaml.ScalarNode || old.Style&yaml.FlowStyle != 0 {
		return []piece{{start, end, value}}
	}
	// A list of one entry a line goes from behind the colon to its last entry.
	colon, _ := d.colon(key)
	return []piece{{colon, end, " " + value}}
}
