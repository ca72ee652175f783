// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"net/netip"
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
			d.listElsewhere(name, networks, &l)
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
	switch {
	case l.URL != "":
		return fmt.Sprintf("{url: %s, every: %s}", quoteName(l.URL), formatTimeout(l.Every))
	case l.File != "":
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
