// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"
)

// lists is the kind of the key of that name. What lists hold counts through the
// rules that name them, so they make no difference of their own.
type lists struct{}

const listExample = "office: [203.0.113.0/24, \"2001:db8::/32\"]"

func (lists) read(d *document, p *Policy, at, v *yaml.Node) {
	if isNull(v) {
		d.errorf(at, "no value for %s: write %s: {}, or names and networks, such as %s", quote(at.Value), at.Value, listExample)
		return
	}
	if v.Kind != yaml.MappingNode {
		d.errorf(v, "%s for %s: write names and networks, such as %s", d.describe(v), quote(at.Value), listExample)
		return
	}
	d.entries(v, func(name, networks *yaml.Node) {
		if !validListName(name.Value) {
			d.errorf(name, "list name %s is not possible: write letters, digits, -, _ and ., a letter first, %d at most", quote(name.Value), maxListName)
			return
		}
		l := List{Name: name.Value}
		before := len(d.problems)
		switch {
		case d.bad[networks]:
			l.broken = true
		case networks.Kind == yaml.MappingNode:
			d.listFile(name, networks, &l)
		default:
			d.listHere(name, networks, &l)
		}
		l.broken = l.broken || len(d.problems) > before
		p.Lists = append(p.Lists, l)
	})
	d.names.Lists = p.Lists
}

// listHere reads the networks of a list that stand in the policy file.
func (d *document) listHere(name, v *yaml.Node, l *List) {
	if v.Kind == yaml.ScalarNode && !isNull(v) {
		if _, bad := parsePrefix(word{text: v.Value}); bad != nil {
			d.errorf(v, "%s for list %s: write networks, such as %s, or {file: /etc/portcullis/partners.txt}", d.describe(v), quote(name.Value), listExample)
			return
		}
	}
	set := newPrefixSet(len(v.Content))
	lines := make(map[netip.Prefix]int, len(v.Content))
	d.list(name, v, "[203.0.113.0/24]", func(item *yaml.Node) {
		if strings.HasPrefix(item.Value, listMark) {
			d.errorf(item, "list %s in a list: write its networks", quote(item.Value))
			return
		}
		p, bad := parsePrefix(word{text: item.Value})
		switch {
		case bad != nil:
			d.entryError(item, bad)
		case !set.add(p):
			d.errorf(item, "duplicate network %s: it is on line %d already, keep one", quote(item.Value), lines[p])
		default:
			lines[p] = item.Line
		}
	})
	l.Networks = set.prefixes
}

// listFile reads {file: PATH}. A relative path begins where the policy file is.
func (d *document) listFile(name, v *yaml.Node, l *List) {
	var file *yaml.Node
	d.entries(v, func(key, value *yaml.Node) {
		if key.Value != "file" {
			d.errorf(key, "unknown key %s in list %s: write file: and a path", quote(key.Value), quote(name.Value))
			return
		}
		file = value
	})
	switch {
	case file == nil:
		if len(v.Content) == 0 {
			d.errorf(v, "nothing in the braces of list %s: write {file: PATH}, or [] for no networks", quote(name.Value))
		}
		return
	case d.bad[file]:
		l.broken = true
		return
	case isNull(file) || file.Kind != yaml.ScalarNode || file.Value == "":
		d.errorf(v, "no path of a file for list %s: write file: /etc/portcullis/partners.txt", quote(name.Value))
		return
	}
	l.File, l.Path = file.Value, file.Value
	if !filepath.IsAbs(l.Path) {
		l.Path = filepath.Join(filepath.Dir(d.file), l.Path)
	}
	data, err := d.reader.readList(l.Path)
	if err != nil {
		// The error itself is left out: that a list is missing is not that the policy file is.
		hint := ""
		if errors.Is(err, fs.ErrNotExist) {
			hint = ": put the file there, or name another"
		}
		d.errorf(file, "cannot read list %s: %s%s", quote(name.Value), err, hint)
		return
	}
	var problems []*Error
	l.Networks, problems = parseList(l.Path, data)
	d.problems = append(d.problems, problems...)
}

func (lists) diff(string, *Policy, *Policy) []Change { return nil }

func (lists) isDefault(p *Policy) bool { return len(p.Lists) == 0 }

func (lists) write(b *strings.Builder, indent, name string, p *Policy) {
	fmt.Fprintf(b, "%s%s:\n", indent, name)
	for _, l := range p.Lists {
		fmt.Fprintf(b, "%s  %s: %s\n", indent, quoteName(l.Name), l.value())
	}
}

// value returns what stands behind the name of the list in a file.
func (l List) value() string {
	if l.File != "" {
		return "{file: " + quoteName(l.File) + "}"
	}
	texts := make([]string, len(l.Networks))
	for i, p := range l.Networks {
		texts[i] = quoteRule(PrefixText(p), true)
	}
	return "[" + strings.Join(texts, ", ") + "]"
}

func (lists) edit(*document, []string, *Policy, *Policy) ([]piece, error) { return nil, nil }

func (lists) view(p *Policy) any {
	names := []string{}
	for _, l := range p.Lists {
		names = append(names, l.Name)
	}
	return names
}

// named returns the rule with the names of lists only where these hold what the
// rule says: a file that has other lists, or none, gets the numbers.
func (r Rule) named(known []List) Rule {
	if r.lists == (listTexts{}) {
		return r
	}
	in := ruleParser{lists: known}
	for _, clause := range []struct {
		text    *string
		keyword string
		numbers []netip.Prefix
	}{{&r.lists.from, "from", r.From}, {&r.lists.except, "except", r.Except}, {&r.lists.to, "to", r.To}} {
		if *clause.text == "" {
			continue
		}
		now, _, bad := in.parseAddresses(clause.keyword, word{text: *clause.text})
		if bad != nil || !slices.Equal(now, clause.numbers) && !slices.Equal(canonicalPrefixes(now), canonicalPrefixes(clause.numbers)) {
			*clause.text = ""
		}
	}
	return r
}
