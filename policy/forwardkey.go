// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"
)

const forwardExample = "{policy: drop, open: [all on eth1]}"

// forward is the kind of the key of that name: a word, or a word and rules as
// in [forwardExample].
type forward struct {
	word value
	section
}

const (
	forwardWordKey  = "policy"
	forwardRulesKey = "open"
)

func newForward() forward {
	word := oneOf(forwardWords, func(p *Policy) *ForwardPolicy { return &p.Forward })
	return forward{word, section{"policy: drop", []*key{
		{Key: Key{Name: forwardWordKey}, label: "forward", always: true, kind: word},
		{Key: Key{Name: forwardRulesKey}, label: "forward open", always: true, kind: rules(true, "[all on eth1]")},
	}}}
}

func (k forward) read(d *document, p *Policy, at, v *yaml.Node) {
	switch {
	case v.Kind != yaml.MappingNode:
		forms := append(slices.Clone(forwardWords), forwardExample)
		d.word(quote(at.Value), at, v, forms, func(text []byte) error { return unmarshalEnum(forwardWords, &p.Forward, text) })
	case len(v.Content) == 0:
		d.errorf(v, "nothing in the braces of %s: write one word, or such as %s", quote(at.Value), forwardExample)
	default:
		k.section.read(d, p, at, v)
	}
}

func (k forward) write(b *strings.Builder, indent, name string, p *Policy) {
	if len(p.ForwardRules()) == 0 {
		k.word.write(b, indent, name, p)
		return
	}
	k.section.write(b, indent, name, p)
}

// edit keeps what a file has. A word becomes a mapping when the first rule
// comes; a mapping stays one.
func (k forward) edit(d *document, path []string, have, want *Policy) ([]piece, error) {
	at, v := d.find(path)
	switch {
	case at != nil && v.Kind == yaml.MappingNode:
		return k.section.edit(d, path, have, want)
	case len(want.ForwardRules()) == 0:
		return k.word.edit(d, path, have, want)
	}
	rules := lookUp(k.keys, forwardRulesKey).kind.(list[Rule, string])
	entries := rules.spelled(want.ForwardRules(), have)
	entry := func(i int, inFlow bool) string { return rules.quote(entries[i], inFlow) }
	policy := forwardWordKey + ": " + k.word.format(want)
	if d.root.Style&yaml.FlowStyle != 0 {
		texts := make([]string, len(entries))
		for i := range texts {
			texts[i] = entry(i, true)
		}
		return d.setting(d.root, path, "{"+policy+", "+forwardRulesKey+": ["+strings.Join(texts, ", ")+"]}"), nil
	}
	column := d.root.Column - 1
	if at == nil {
		indent := d.eol() + strings.Repeat(" ", column+2)
		return []piece{d.appendLines(strings.Repeat(" ", column) + path[0] + ":" + indent + policy +
			indent + forwardRulesKey + ":" + d.entryLines(len(entries), strings.Repeat(" ", column+4), entry))}, nil
	}
	// A comment behind the word stays there.
	start, end, _ := d.span(v)
	lead := ""
	if column += 2; v.Line == at.Line {
		start, _ = d.colon(at)
		lead = d.eol() + strings.Repeat(" ", column)
	} else {
		column = v.Column - 1
	}
	indent := strings.Repeat(" ", column)
	lines := d.eol() + indent + forwardRulesKey + ":" + d.entryLines(len(entries), indent+"  ", entry)
	behind := d.lineEnd(end)
	if behind == len(d.data) {
		lines += d.eol() // without it the last entry would look cut off
	}
	return []piece{{start, end, lead + policy}, {behind, behind, lines}}, nil
}

func (k forward) text(p *Policy) string { return k.word.text(p) }

func (k forward) choices() []string { return nil }

func (k forward) view(p *Policy) any { return k.word.view(p) }
