// SPDX-License-Identifier: Apache-2.0

package iptables

import (
	"bytes"
	"cmp"
	"fmt"
	"strings"

	"github.com/portcullis-firewall/portcullis/policy/quote"
)

// YAML returns the text of a policy file, headed by all that is to be known of
// where it comes from, so that nobody overlooks it.
func (r *Result) YAML() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "# Translated from %s by \"portcullis import\".\n", cmp.Or(r.source, "rules of iptables"))
	section(&b, "Not translated", r.Untranslated)
	section(&b, "To know", r.Notes)
	text := r.Policy.YAML()
	// Without a name it is the interface of the default route.
	if len(r.Policy.Interfaces) == 0 {
		text = bytes.TrimPrefix(text, []byte("interfaces: []\n"))
	}
	b.Write(text)
	return b.Bytes()
}

func section(b *bytes.Buffer, title string, list []Finding) {
	if len(list) == 0 {
		return
	}
	fmt.Fprintf(b, "#\n# %s:\n", title)
	for _, f := range list {
		fmt.Fprintf(b, "#   %s\n", f)
	}
}

// plain is text on one line without what a terminal, or YAML, would take for
// more than text.
func plain(text string) string {
	return quote.Text(strings.ReplaceAll(text, "\t", " "))
}
