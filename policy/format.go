// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"strings"
)

// YAML returns the policy as the text of a policy file. What a reader wants to
// know at a glance is always written out; flows and timeouts only where they
// differ from the default.
func (p *Policy) YAML() []byte {
	var b strings.Builder
	for _, k := range keys {
		if k.always || !k.isDefault(p) {
			k.write(&b, "", k.Name, p)
		}
	}
	return []byte(b.String())
}

// yamlWords are plain scalars that some reader of YAML takes for something
// other than text.
const yamlWords = " null true false yes no on off y n "

// quoteRule quotes the text of a rule where plain YAML would read it as
// something else: a network that ends in a colon, a comma in a flow list.
func quoteRule(text string, inFlow bool) string {
	if strings.HasSuffix(text, ":") || strings.Contains(text, " #") || inFlow && strings.ContainsAny(text, ",:[]{}") || isYAMLWord(text) {
		return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(text) + `"`
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
