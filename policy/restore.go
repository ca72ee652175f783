// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// What returns the part of the rule's text that names the ports: a service, if
// need be one that is gone, or the ports themselves.
func (r Rule) What() string {
	if r.was != "" {
		return r.was
	}
	return Rule{Ports: r.Ports, what: r.what}.String()
}

// RestoreRule returns a rule that was kept as numbers beside its text. The
// numbers are the rule; what, as [Rule.What] returned it, is shown as long as it
// still stands for them. After a change of [ServicesFile] a name may stand for
// something else, or for nothing: then the rule shows its ports.
func RestoreRule(what string, ports []PortRange, from []netip.Prefix) (Rule, error) {
	return ruleParser{defaultServices}.restore(what, ports, from)
}

func (in ruleParser) restore(what string, ports []PortRange, from []netip.Prefix) (Rule, error) {
	if len(ports) == 0 {
		return Rule{}, fmt.Errorf("rule %s opens no port", quote(what))
	}
	for _, p := range ports {
		if ProtocolIndex(p.Protocol) < 0 || p.First == 0 || p.First > p.Last {
			return Rule{}, fmt.Errorf("rule %s opens %s, which is no port range", quote(what), p)
		}
	}
	for _, p := range from {
		if !p.IsValid() || p != p.Masked() {
			return Rule{}, fmt.Errorf("rule %s has the source %s, which is no network", quote(what), p)
		}
	}
	r := Rule{Ports: ports, From: from}
	if len(ports) == 1 && what == ports[0].String() {
		r.what = what
		return r, nil
	}
	if name, now, bad := in.parseWhat(word{text: what}); bad == nil && slices.Equal(now, ports) {
		r.what = name
	} else if service, _, _ := strings.Cut(what, "/"); validServiceName(service) {
		r.was = what
	}
	return r, nil
}

// Spelled returns the rule as rules that a policy file can hold: itself, or one
// for each of its ports if no text stands for all of them.
func (r Rule) Spelled() []Rule {
	if r.what != "" || len(r.Ports) == 1 {
		return []Rule{r}
	}
	var out []Rule
	for _, p := range r.Ports {
		out = append(out, Rule{Ports: []PortRange{p}, From: r.From})
	}
	return out
}

// SpellRules returns rules as a policy file can hold them, see [Rule.Spelled],
// each once.
func SpellRules(rules []Rule) []Rule {
	var out []Rule
	for _, r := range rules {
		out = append(out, r.Spelled()...)
	}
	if len(out) == len(rules) {
		return rules
	}
	index, i := IndexRules(out), -1
	return slices.DeleteFunc(out, func(r Rule) bool {
		i++
		return index[r.Key()] != i
	})
}

// InNumbers returns a copy of the policy whose rules name ports and no service,
// so that its text means the same whatever [ServicesFile] says when it is read.
func (p *Policy) InNumbers() *Policy {
	c := p.Clone()
	for i := range c.Open {
		c.Open[i].what = ""
	}
	c.Open = SpellRules(c.Open)
	return c
}

// storedRule is a rule in JSON: the text for a reader, the numbers for
// [RestoreRule].
type storedRule struct {
	What  string         `json:"what"`
	Ports []string       `json:"ports"` // FIRST-LAST/PROTO
	From  []netip.Prefix `json:"from,omitempty"`
}

// MarshalJSON writes the rule with its numbers, so that it does not change its
// meaning when [ServicesFile] does.
func (r Rule) MarshalJSON() ([]byte, error) {
	s := storedRule{What: r.What(), From: r.From}
	for _, p := range r.Ports {
		s.Ports = append(s.Ports, p.String())
	}
	return json.Marshal(s)
}

// UnmarshalJSON reads what MarshalJSON has written, or the text of a rule, as
// older versions wrote it.
func (r *Rule) UnmarshalJSON(data []byte) (err error) {
	var text string
	if json.Unmarshal(data, &text) == nil {
		*r, err = ParseRule(text)
		return err
	}
	var s storedRule
	if err := json.Unmarshal(data, &s); err != nil {
		return err
	}
	var ports []PortRange
	for _, text := range s.Ports {
		p, err := ParseRule(text)
		if err != nil {
			return err
		}
		ports = append(ports, p.Ports...)
	}
	*r, err = RestoreRule(s.What, ports, s.From)
	return err
}

// CompleteYAML returns the policy without its interfaces and rules as the text
// of a policy file, with each default written out: it means the same to a
// version that has others.
func (p *Policy) CompleteYAML() []byte {
	c := p.Clone()
	c.Interfaces, c.Open, c.Timeouts, c.MaxFlows = nil, nil, nil, 0
	text := fmt.Appendf(c.YAML(), "flows:\n  max: %d\ntimeouts:\n", p.FlowLimit())
	for _, t := range Timeouts {
		text = fmt.Appendf(text, "  %s: %s\n", t.Name, formatTimeout(p.Timeout(t.Name)))
	}
	return text
}
