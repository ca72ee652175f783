// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"encoding/json"
	"errors"
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

// Spelling is how a rule is written where its numbers do not tell.
type Spelling struct {
	What             string // as [Rule.What] returns it
	From, Except, To string // such as "@office,192.0.2.1"; "" where no list is named
}

// Spelling returns how the rule is written, for [RestoreRule].
func (r Rule) Spelling() Spelling {
	return Spelling{r.What(), r.lists.from, r.lists.except, r.lists.to}
}

// RestoreRule returns a rule that was kept as numbers beside its text. The
// numbers are the rule. The name of a service is shown as long as it still
// stands for them: after a change of [ServicesFile] it may stand for something
// else, or for nothing, and then the rule shows its ports. A list goes by the
// name that it had.
func RestoreRule(numbers Rule, text Spelling) (Rule, error) {
	return ruleParser{services: defaultServices}.restore(numbers, text)
}

func (in ruleParser) restore(r Rule, text Spelling) (Rule, error) {
	if err := r.check(); err != nil {
		return Rule{}, fmt.Errorf("rule %s %w", quote(text.What), err)
	}
	r.what, r.was, r.lists = "", "", listTexts{}
	for _, clause := range []struct {
		shown   *string
		text    string
		numbers []netip.Prefix
	}{{&r.lists.from, text.From, r.From}, {&r.lists.except, text.Except, r.Except}, {&r.lists.to, text.To, r.To}} {
		if clause.text == "" {
			continue
		}
		if !isListText(clause.text) || len(clause.numbers) == 0 && clause.shown != &r.lists.except {
			return Rule{}, fmt.Errorf("rule %s has the addresses %s, which name no list", quote(text.What), quote(clause.text))
		}
		*clause.shown = clause.text
	}
	if text.What == r.What() {
		return r, nil
	}
	if name, now, bad := in.parseWhat(word{text: text.What}); bad == nil && slices.Equal(now, r.Ports) {
		r.what = name
	} else if service, _, _ := strings.Cut(text.What, "/"); validServiceName(service) {
		r.was = text.What
	}
	return r, nil
}

// check says what makes numbers no rule.
func (r Rule) check() error {
	if len(r.Ports) == 0 {
		return errors.New("opens no port")
	}
	for _, p := range r.Ports {
		hasPorts := ProtocolIndex(p.Protocol) >= 0
		if p.First > p.Last || !hasPorts && p.Last != 0 || hasPorts && p.First == 0 && p.Last != 65535 {
			return fmt.Errorf("opens %s, which is no port range", p)
		}
	}
	for _, list := range [][]netip.Prefix{r.From, r.Except, r.To} {
		for _, p := range list {
			if !p.IsValid() || p != p.Masked() {
				return fmt.Errorf("has the address %s, which is no network", p)
			}
		}
	}
	for _, name := range r.On {
		if _, err := parsePattern(name); err != nil {
			return fmt.Errorf("is on an interface that cannot be: %w", err)
		}
	}
	return r.Limit.check()
}

// isWritable reports whether a text stands for the rule.
func (r Rule) isWritable() bool { return r.what != "" || isAll(r.Ports) || oneProtocol(r.Ports) }

// Spelled returns the rule as rules that a policy file can hold: itself, or one
// for each of its protocols if no text stands for all of them.
func (r Rule) Spelled() []Rule {
	if r.isWritable() {
		return []Rule{r}
	}
	var out []Rule
	for ports := canonicalPorts(r.Ports); len(ports) > 0; {
		n := 1
		for n < len(ports) && oneProtocol(ports[:n+1]) {
			n++
		}
		one := r
		one.Ports = slices.Clip(ports[:n])
		ports = ports[n:]
		out = append(out, one)
	}
	return out
}

// SpellRules returns rules as a policy file can hold them, see [Rule.Spelled],
// each once.
func SpellRules(rules []Rule) []Rule {
	if !slices.ContainsFunc(rules, func(r Rule) bool { return !r.isWritable() }) {
		return rules
	}
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

// InNumbers returns a copy of the policy whose rules name ports and networks,
// and no service or list, so that its text means the same whatever
// [ServicesFile] and the files of lists say when it is read. It has the lists
// that block and trust name, which may be too long for a text.
func (p *Policy) InNumbers() *Policy {
	c := p.Clone()
	c.Lists = p.Named()
	for i := range c.Open {
		c.Open[i] = c.Open[i].inNumbers()
	}
	c.Open = SpellRules(c.Open)
	return c
}

func (r Rule) inNumbers() Rule {
	r.what, r.was, r.lists = "", "", listTexts{}
	return r
}

// storedRule is a rule in JSON: the text for a reader, the numbers for
// [RestoreRule].
type storedRule struct {
	Forward bool `json:"forward,omitempty"`

	What   string         `json:"what"`
	Ports  []string       `json:"ports"` // FIRST-LAST/PROTO, gre, proto/89 or all
	On     []string       `json:"on,omitempty"`
	From   []netip.Prefix `json:"from,omitempty"`
	Except []netip.Prefix `json:"except,omitempty"`
	To     []netip.Prefix `json:"to,omitempty"`
	Limit  string         `json:"limit,omitempty"` // RATE burst N

	FromText   string `json:"from_text,omitempty"` // with the names of lists
	ExceptText string `json:"except_text,omitempty"`
	ToText     string `json:"to_text,omitempty"`
}

// MarshalJSON writes the rule with its numbers, so that it does not change its
// meaning when [ServicesFile] or a list does.
func (r Rule) MarshalJSON() ([]byte, error) {
	s := storedRule{
		Forward: r.Forward, What: r.What(), On: r.On, From: r.From, Except: r.Except, To: r.To,
		FromText: r.lists.from, ExceptText: r.lists.except, ToText: r.lists.to,
	}
	if isAll(r.Ports) {
		s.Ports = []string{allWord}
	} else {
		for _, p := range r.Ports {
			s.Ports = append(s.Ports, p.String())
		}
	}
	if r.Limit.Count > 0 {
		s.Limit = r.Limit.String()
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
	numbers := Rule{Forward: s.Forward, On: s.On, From: s.From, Except: s.Except, To: s.To}
	for _, text := range s.Ports {
		p, err := ParseRule(text)
		if err != nil {
			return err
		}
		numbers.Ports = append(numbers.Ports, p.Ports...)
	}
	if s.Limit != "" {
		limited, err := ParseRule("all limit " + s.Limit)
		if err != nil {
			return err
		}
		numbers.Limit = limited.Limit
	}
	*r, err = RestoreRule(numbers, Spelling{s.What, s.FromText, s.ExceptText, s.ToText})
	return err
}

// CompleteYAML returns the policy without its interfaces and rules as the text
// of a policy file, with each default written out: it means the same to a
// version that has others. Of lists that block or trust names and that come
// from elsewhere it has the digest. [ParseComplete] reads it.
func (p *Policy) CompleteYAML() []byte {
	c := p.Clone()
	c.Interfaces, c.Lists, c.Open, c.Timeouts, c.MaxFlows = nil, nil, nil, nil, 0
	text := append(p.recordLists(), c.YAML()...)
	text = fmt.Appendf(text, "flows:\n  max: %d\ntimeouts:\n", p.FlowLimit())
	for _, t := range Timeouts {
		text = fmt.Appendf(text, "  %s: %s\n", t.Name, formatTimeout(p.Timeout(t.Name)))
	}
	return text
}

// recordLists returns the key lists with what lists hold that block or trust names.
func (p *Policy) recordLists() []byte {
	held := make(map[string]*Networks)
	for _, s := range slices.Concat(p.Block, p.Trust) {
		held[s.List] = s.Holds
	}
	var text []byte
	for _, l := range p.Named() {
		value, n := l.value(), held[l.Name]
		switch {
		case l.URL != "":
			value = fmt.Sprintf("{url: %s, every: %s, networks: %d, digest: %q}", quoteName(l.URL), formatTimeout(l.Every), n.Count, n.Digest)
		case l.Path != "":
			value = fmt.Sprintf("{file: %s, networks: %d, digest: %q}", quoteName(l.Path), n.Count, n.Digest)
		}
		text = fmt.Appendf(text, "  %s: %s\n", quoteName(l.Name), value)
	}
	if text == nil {
		return nil
	}
	return append([]byte("lists:\n"), text...)
}

// ParseComplete reads what [Policy.CompleteYAML] has written. No list is read: what those from elsewhere held is known by
// its digest.
func ParseComplete(filename string, data []byte) (*Policy, error) {
	return Reader{recorded: true}.Parse(filename, data)
}
