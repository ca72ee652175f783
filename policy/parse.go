// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"
)

// Load reads the policy file at path.
func Load(path string) (*Policy, error) {
	data, err := ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read policy: %w", err)
	}
	return Parse(path, data)
}

// Parse reads the text of a policy file; filename is for messages only. It
// finds all problems in one go and returns them joined, each an [*Error]. What
// the text leaves out has its default.
func Parse(filename string, data []byte) (*Policy, error) {
	_, p, err := parseDocument(filename, data)
	return p, err
}

func parseDocument(filename string, data []byte) (*document, *Policy, error) {
	d := readDocument(filename, data)
	p := Default()
	if d.root != nil {
		d.policy(p)
	}
	if err := joinErrors(d.problems); err != nil {
		return nil, nil, err
	}
	return d, p, nil
}

var policyKeys = []string{"interfaces", "input", "forward", "icmp", "open", "invalid", "flows", "timeouts"}

func (d *document) policy(p *Policy) {
	if d.bad[d.root] {
		return
	}
	if d.root.Kind != yaml.MappingNode {
		d.errorf(d.root, "%s is no policy: write keys and values, such as input: drop", d.describe(d.root))
		return
	}
	d.mapping(d.root, policyKeys, func(key, v *yaml.Node) {
		switch key.Value {
		case "interfaces":
			d.interfaces(p, key, v)
		case "input":
			d.word(key, v, verdictWords, p.Input.UnmarshalText)
		case "forward":
			d.word(key, v, forwardWords, p.Forward.UnmarshalText)
		case "icmp":
			d.icmp(p, key, v)
		case "open":
			d.open(p, key, v)
		case "invalid":
			d.word(key, v, invalidWords, p.Invalid.UnmarshalText)
		case "flows":
			d.flows(p, key, v)
		case "timeouts":
			d.timeouts(p, key, v)
		}
	})
}

// mapping calls visit for every known key once, and reports the others.
func (d *document) mapping(n *yaml.Node, known []string, visit func(key, value *yaml.Node)) {
	seen := make(map[string]int)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if d.bad[key] {
			continue
		}
		if line, dup := seen[key.Value]; dup {
			d.errorf(key, "duplicate key %s: it is on line %d already, keep one", quote(key.Value), line)
			continue
		}
		seen[key.Value] = key.Line
		if !contains(known, key.Value) {
			d.errorf(key, "unknown key %s: %s", quote(key.Value),
				didYouMean(key.Value, known, "write "+joinWords(known, "or")))
			continue
		}
		if !d.bad[value] {
			visit(key, value)
		}
	}
}

func contains(list []string, word string) bool {
	for _, w := range list {
		if w == word {
			return true
		}
	}
	return false
}

// word reads a value out of a few words.
func (d *document) word(key, v *yaml.Node, words []string, set func([]byte) error) {
	switch {
	case isNull(v):
		d.errorf(key, "no value for %s: write %s", quote(key.Value), joinWords(words, "or"))
	case v.Kind != yaml.ScalarNode:
		d.errorf(v, "%s for %s: write %s", d.describe(v), quote(key.Value), joinWords(words, "or"))
	default:
		if set([]byte(v.Value)) != nil {
			d.errorf(v, "unknown value %s for %s: write %s", quote(v.Value), quote(key.Value), joinWords(words, "or"))
		}
	}
}

// list calls visit for every entry of a list that is text.
func (d *document) list(key, v *yaml.Node, example string, visit func(item *yaml.Node)) {
	if isNull(v) {
		return
	}
	if v.Kind != yaml.SequenceNode {
		if v.Kind == yaml.ScalarNode && !strings.ContainsAny(v.Value, "\"\\,") {
			example = "[" + v.Value + "]"
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
		default:
			visit(item)
		}
	}
}

func (d *document) interfaces(p *Policy, key, v *yaml.Node) {
	seen := make(map[string]int)
	d.list(key, v, "[eth0]", func(item *yaml.Node) {
		if err := checkInterface(item.Value); err != nil {
			d.errorf(item, "%s", err)
			return
		}
		if line, dup := seen[item.Value]; dup {
			d.errorf(item, "duplicate interface %s: it is on line %d already, keep one", quote(item.Value), line)
			return
		}
		seen[item.Value] = item.Line
		p.Interfaces = append(p.Interfaces, item.Value)
	})
}

func (d *document) icmp(p *Policy, key, v *yaml.Node) {
	const want = "write accept, drop or a list of types"
	switch {
	case isNull(v):
		d.errorf(key, "no value for \"icmp\": %s", want)
	case v.Kind == yaml.MappingNode:
		d.errorf(v, "%s for \"icmp\": %s", d.describe(v), want)
	case v.Kind == yaml.ScalarNode && v.Value == "accept":
		p.ICMP = ICMP{Mode: ICMPAccept}
	case v.Kind == yaml.ScalarNode && v.Value == "drop":
		p.ICMP = ICMP{Mode: ICMPDrop}
	case v.Kind == yaml.ScalarNode:
		if t, err := ParseICMPType(v.Value); err == nil {
			d.errorf(v, "type %s alone for \"icmp\": write a list, such as [%s]", quote(v.Value), t)
			return
		}
		d.errorf(v, "unknown value %s for \"icmp\": %s", quote(v.Value), want)
	default:
		p.ICMP = ICMP{Mode: ICMPList}
		d.list(key, v, "[echo-request]", func(item *yaml.Node) {
			t, err := ParseICMPType(item.Value)
			if err != nil {
				d.errorf(item, "%s", err)
				return
			}
			for _, have := range p.ICMP.Types {
				if have.sameMessages(t) {
					d.errorf(item, "duplicate icmp type %s: the list has %s already, keep one", quote(item.Value), quote(have.text))
					return
				}
			}
			p.ICMP.Types = append(p.ICMP.Types, t)
		})
	}
}

func (d *document) open(p *Policy, key, v *yaml.Node) {
	type place struct {
		text string
		line int
	}
	seen := make(map[RuleKey]place)
	d.list(key, v, "[http, 22/tcp]", func(item *yaml.Node) {
		r, err := ParseRule(item.Value)
		if err != nil {
			d.ruleError(item, err)
			return
		}
		identity := r.Key()
		if first, dup := seen[identity]; dup {
			d.errorf(item, "duplicate rule %s: %s on line %d opens the same, keep one", quote(item.Value), quote(first.text), first.line)
			return
		}
		seen[identity] = place{item.Value, item.Line}
		p.Open = append(p.Open, r)
	})
}

// ruleError places the error at the offending word, if the text of the rule
// stands in the file as it was read: with an escape in it, columns shift.
func (d *document) ruleError(item *yaml.Node, err error) {
	start, end, _ := d.span(item)
	if item.Style&(yaml.DoubleQuotedStyle|yaml.SingleQuotedStyle) != 0 {
		start, end = start+1, end-1
	}
	column := item.Column
	var rule *RuleError
	if errors.As(err, &rule) && string(d.data[start:end]) == item.Value {
		_, column = d.position(start)
		column += utf8.RuneCountInString(item.Value[:rule.Offset])
	}
	d.problems = append(d.problems, &Error{d.file, item.Line, column, err.Error(), err})
}

func (d *document) flows(p *Policy, key, v *yaml.Node) {
	d.section(key, v, "max: 262144", []string{"max"}, func(_, v *yaml.Node) {
		n, err := strconv.ParseUint(v.Value, 10, 32)
		if err != nil && !errors.Is(err, strconv.ErrRange) {
			d.errorf(v, "flows max %s is no number: write %d to %d", quote(v.Value), MinMaxFlows, MaxMaxFlows)
			return
		}
		if err != nil || n < MinMaxFlows || n > MaxMaxFlows {
			d.errorf(v, "flows max %s is out of range: write %d to %d", v.Value, MinMaxFlows, MaxMaxFlows)
			return
		}
		p.MaxFlows = int(n)
	})
}

func (d *document) timeouts(p *Policy, key, v *yaml.Node) {
	names := make([]string, len(Timeouts))
	for i, t := range Timeouts {
		names[i] = t.Name
	}
	d.section(key, v, "udp: 30s", names, func(key, v *yaml.Node) {
		t, err := ParseDuration(v.Value)
		if err != nil {
			d.errorf(v, "%s", err)
			return
		}
		if p.Timeouts == nil {
			p.Timeouts = make(map[string]time.Duration)
		}
		p.Timeouts[key.Value] = t
	})
}

// section reads a mapping of values inside the policy.
func (d *document) section(key, v *yaml.Node, example string, known []string, visit func(key, value *yaml.Node)) {
	if isNull(v) {
		return
	}
	if v.Kind != yaml.MappingNode {
		d.errorf(v, "%s for %s: write keys and values, such as %s", d.describe(v), quote(key.Value), example)
		return
	}
	d.mapping(v, known, func(k, value *yaml.Node) {
		switch {
		case isNull(value):
			d.errorf(k, "no value for %s: write one, such as %s", quote(k.Value), example)
		case value.Kind != yaml.ScalarNode:
			d.errorf(value, "%s for %s: write one value, such as %s", d.describe(value), quote(k.Value), example)
		default:
			visit(k, value)
		}
	})
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
	text, _, _ := strings.Cut(string(d.data[d.offset(n.Line, n.Column):]), "\n")
	return strings.TrimSpace(text)
}
