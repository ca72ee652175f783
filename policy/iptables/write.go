// SPDX-License-Identifier: Apache-2.0

package iptables

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/portcullis-firewall/portcullis/policy/quote"
)

// maxShown is how many findings of one kind the file has; the report has all.
const maxShown = 20

// YAML returns the text of a policy file. What it comes to stands at its head, and at its end what is to be known of where
// it comes from, each thing once.
func (r *Result) YAML() []byte {
	var b bytes.Buffer
	b.WriteString("# Translated from rules of iptables by \"portcullis import\".\n")
	fmt.Fprintf(&b, "# It %s.\n", plain(r.Summary()))
	if found := len(r.Untranslated) + len(r.Stays); found > 0 {
		b.WriteString("# What it lacks stands at its end.\n")
	}
	text := r.Policy.YAML()
	// Without a name it is the interface of the default route.
	if len(r.Policy.Interfaces) == 0 {
		text = bytes.TrimPrefix(text, []byte("interfaces: []\n"))
	}
	b.Write(text)
	for _, kind := range r.kinds() {
		section(&b, kind.title, kind.findings)
	}
	return b.Bytes()
}

type kindOfFinding struct {
	title    string
	findings []Finding
}

func (r *Result) kinds() []kindOfFinding {
	return []kindOfFinding{{"Not translated", r.Untranslated}, {"Stays in netfilter", r.Stays}, {"To know", r.Notes}}
}

func section(b *bytes.Buffer, title string, list []Finding) {
	if len(list) == 0 {
		return
	}
	fmt.Fprintf(b, "#\n# %s:\n", title)
	groups := Group(list)
	for _, g := range groups[:min(len(groups), maxShown)] {
		fmt.Fprintf(b, "#   %s\n", g)
	}
	if more := len(groups) - maxShown; more > 0 {
		fmt.Fprintf(b, "#   and %d more, which \"portcullis import --report FILE\" writes\n", more)
	}
}

// Report returns all that is to be known, line by line, and the rules that stay in netfilter as iptables-restore reads
// them.
func (r *Result) Report() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "The policy %s.\n", plain(r.Summary()))
	for _, kind := range r.kinds() {
		if len(kind.findings) == 0 {
			continue
		}
		fmt.Fprintf(&b, "\n%s:\n", kind.title)
		for _, f := range kind.findings {
			fmt.Fprintf(&b, "  %s\n", f)
		}
	}
	for _, f := range families {
		if text := r.StayingRules(4 + 2*int(f)); text != "" {
			fmt.Fprintf(&b, "\nThe rules for %s that stay, as %s reads them:\n\n%s", f, [...]string{"iptables-restore", "ip6tables-restore"}[f], text)
		}
	}
	return b.Bytes()
}

// StayingRules returns the rules of a family, 4 or 6, that have to stay in netfilter, as iptables-restore reads them; ""
// if there are none.
func (r *Result) StayingRules(family int) string {
	if r.translation == nil {
		return ""
	}
	return r.translation.stayingRules(familyOfNumber(family))
}

func familyOfNumber(n int) family {
	if n == 6 {
		return v6
	}
	return v4
}

// plain is text on one line without what a terminal, or YAML, would take for
// more than text.
func plain(text string) string {
	return quote.Text(strings.ReplaceAll(text, "\t", " "))
}
