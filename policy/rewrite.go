// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"
)

// Rewrite returns the text of a policy file changed so that it means want. What
// means the same already stays as it is written, comments among it.
func Rewrite(filename string, data []byte, want *Policy) ([]byte, error) {
	have, err := Parse(filename, data)
	if err != nil {
		return nil, err
	}
	// What goes out of a list goes in the end: with its last entry the list
	// would lose its style.
	changes := Diff(have, want)
	slices.SortStableFunc(changes, func(a, b Change) int {
		return strings.IndexByte("+~-", a.Op) - strings.IndexByte("+~-", b.Op)
	})
	out := data
	for _, c := range changes {
		switch {
		case c.Key == "interface":
			out, err = editInterfaces(filename, out, c)
		case c.Key == "open" && c.Op == '+':
			out, err = editRule(InsertRule, filename, out, c.New)
		case c.Key == "open":
			out, err = editRule(RemoveRule, filename, out, c.Old)
		default:
			out, err = setKey(filename, out, c.Key, want)
		}
		if err != nil {
			return nil, err
		}
	}
	got, err := Parse(filename, out)
	if err == nil && !got.Equal(want) {
		err = errors.New("the file would not mean what it should")
	}
	if err != nil {
		return nil, fmt.Errorf("%s: edit it by hand: %w", filename, err)
	}
	return out, nil
}

func editRule(edit func(string, []byte, Rule) ([]byte, error), filename string, data []byte, text string) ([]byte, error) {
	r, err := ParseRule(text)
	if err != nil {
		return nil, err
	}
	return edit(filename, data, r)
}

// editInterfaces adds or removes one interface, which a Change has in quotes
// where a file needs them.
func editInterfaces(filename string, data []byte, c Change) ([]byte, error) {
	d, _, err := parseDocument(filename, data)
	if err != nil {
		return nil, err
	}
	if c.Op == '+' {
		return d.splice(d.insertion("interfaces", func(bool) string { return c.New })), nil
	}
	pieces, err := d.removal("interfaces", func(text string) bool { return quoteName(text) == c.Old })
	if err != nil {
		return nil, fmt.Errorf("%s: remove interface %s: %w", filename, c.Old, err)
	}
	return d.splice(pieces), nil
}

// setKey writes what want says about the key of a Change.
func setKey(filename string, data []byte, key string, want *Policy) ([]byte, error) {
	d, _, err := parseDocument(filename, data)
	if err != nil {
		return nil, err
	}
	path, value := []string{key}, ""
	switch key {
	case "input":
		value = want.Input.String()
	case "forward":
		value = want.Forward.String()
	case "icmp":
		value = want.ICMP.String()
	case "invalid":
		value = want.Invalid.String()
	case "flows max":
		path, value = []string{"flows", "max"}, strconv.Itoa(want.FlowLimit())
	default:
		name := strings.TrimPrefix(key, "timeout ")
		path, value = []string{"timeouts", name}, formatTimeout(want.Timeout(name))
	}
	return d.splice(d.setting(d.root, path, value)), nil
}

// setting gives the key at the end of a path below a mapping a value.
func (d *document) setting(mapping *yaml.Node, path []string, value string) []piece {
	if mapping != nil {
		if key, old := d.findIn(mapping, path[0]); key != nil && len(path) > 1 && old.Kind == yaml.MappingNode {
			return d.setting(old, path[1:], value)
		}
	}
	if len(path) > 1 {
		value = "{" + path[1] + ": " + value + "}"
	}
	text := path[0] + ": " + value
	if mapping == nil {
		return []piece{d.appendLines(text)}
	}
	key, old := d.findIn(mapping, path[0])
	inFlow := mapping.Style&yaml.FlowStyle != 0
	switch {
	case key != nil:
		return d.replacement(key, old, value)
	case inFlow && len(mapping.Content) == 0:
		return d.put(d.offset(mapping.Line, mapping.Column)+1, text)
	}
	n := len(mapping.Content)
	end := d.end(mapping.Content[n-2], mapping.Content[n-1])
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
	switch {
	case isNull(old) && old.Value == "":
		colon, _ := d.colon(key)
		return d.put(colon, " "+value)
	case old.Kind == yaml.ScalarNode:
		start, end, _ := d.span(old)
		return []piece{{start, end, value}}
	case old.Style&yaml.FlowStyle != 0:
		return []piece{{d.offset(old.Line, old.Column), d.end(key, old), value}}
	}
	// A list of one entry a line goes from behind the colon to its last entry.
	colon, _ := d.colon(key)
	_, end, _ := d.span(old.Content[len(old.Content)-1])
	return []piece{{colon, end, " " + value}}
}
