// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"bytes"
	"fmt"
	"strings"
)

// YAML returns the policy as the text of a policy file. What a reader wants to
// know at a glance is always written out; flows and timeouts only where they
// differ from the default.
func (p *Policy) YAML() []byte {
	var b bytes.Buffer
	names := make([]string, len(p.Interfaces))
	for i, name := range p.Interfaces {
		names[i] = quoteName(name)
	}
	fmt.Fprintf(&b, "interfaces: [%s]\n", strings.Join(names, ", "))
	fmt.Fprintf(&b, "input: %s\nforward: %s\nicmp: %s\n", p.Input, p.Forward, p.ICMP)
	if len(p.Open) == 0 {
		b.WriteString("open: []\n")
	} else {
		b.WriteString("open:\n")
		for _, r := range p.Open {
			fmt.Fprintf(&b, "  - %s\n", quoteRule(r.String(), false))
		}
	}
	fmt.Fprintf(&b, "invalid: %s\n", p.Invalid)
	if p.FlowLimit() != DefaultMaxFlows {
		fmt.Fprintf(&b, "flows:\n  max: %d\n", p.FlowLimit())
	}
	header := "timeouts:\n"
	for _, t := range Timeouts {
		if d := p.Timeout(t.Name); d != t.Default {
			fmt.Fprintf(&b, "%s  %s: %s\n", header, t.Name, formatTimeout(d))
			header = ""
		}
	}
	return b.Bytes()
}

// yamlWords are plain scalars that some reader of YAML takes for something
// other than text.
const yamlWords = " null true false yes no on off y n "

// quoteRule quotes the text of a rule where plain YAML would read it as
// something else: a network that ends in a colon, a comma in a flow list.
func quoteRule(text string, inFlow bool) string {
	if strings.HasSuffix(text, ":") || inFlow && strings.ContainsAny(text, ",:") || isYAMLWord(text) {
		return `"` + text + `"`
	}
	return text
}

func isYAMLWord(text string) bool {
	return strings.Contains(yamlWords, " "+strings.ToLower(text)+" ")
}

// quoteName quotes the name of an interface, which may hold anything, unless it
// is one of the usual ones.
func quoteName(name string) string {
	plain := name != "" && !isYAMLWord(name)
	for i, c := range []byte(name) {
		letter := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || c == '_'
		plain = plain && (letter || i > 0 && ('0' <= c && c <= '9' || strings.IndexByte("-.@", c) >= 0))
	}
	if plain {
		return name
	}
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range name {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r < ' ' || r == 0x7f:
			fmt.Fprintf(&b, "\\x%02x", r)
		case r < 0x7f:
			b.WriteRune(r)
		case r <= 0xffff:
			fmt.Fprintf(&b, "\\u%04x", r)
		default:
			fmt.Fprintf(&b, "\\U%08x", r)
		}
	}
	b.WriteByte('"')
	return b.String()
}
