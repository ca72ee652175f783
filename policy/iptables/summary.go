// SPDX-License-Identifier: Apache-2.0

package iptables

import (
	"fmt"
	"strings"

	"github.com/portcullis-firewall/portcullis/policy"
)

// maxNamed is how many rules a summary names.
const maxNamed = 12

// Summary returns in one line what comes in by the policy: "opens 22/tcp, 80/tcp to all; 3306/tcp from 10.0.0.0/8; 4 rules
// stay in netfilter".
func (r *Result) Summary() string {
	var parts []string
	if r.Policy.Input == policy.Accept {
		parts = append(parts, "lets in everything")
	} else {
		parts = append(parts, listOpen("opens", r.Policy.InputRules()))
	}
	switch forward := r.Policy.ForwardRules(); {
	case r.Policy.Forward == policy.ForwardAccept:
		parts = append(parts, "forwards everything")
	case len(forward) > 0:
		parts = append(parts, listOpen("forwards", forward))
	}
	if n := blockedBy(r.Policy); n > 0 {
		parts = append(parts, "blocks "+count(n, "network", "networks"))
	}
	if n := len(r.Stays); n > 0 {
		parts = append(parts, count(n, "rule stays", "rules stay")+" in netfilter")
	}
	if n := len(Group(r.Untranslated)); n > 0 {
		parts = append(parts, count(n, "thing is", "things are")+" not translated")
	}
	return strings.Join(parts, "; ")
}

// listOpen lists rules by whom they are for.
func listOpen(verb string, rules []policy.Rule) string {
	if len(rules) == 0 {
		return verb + " nothing"
	}
	var order []string
	what := make(map[string][]string)
	for i, r := range rules {
		if i == maxNamed {
			break
		}
		text, clauses, _ := strings.Cut(r.String(), " ")
		if what[clauses] == nil {
			order = append(order, clauses)
		}
		what[clauses] = append(what[clauses], text)
	}
	var parts []string
	for _, clauses := range order {
		to := "to all"
		if clauses != "" {
			to = short(clauses)
		}
		parts = append(parts, strings.Join(what[clauses], ", ")+" "+to)
	}
	text := verb + " " + strings.Join(parts, "; ")
	if more := len(rules) - maxNamed; more > 0 {
		text += fmt.Sprintf("; and %d more", more)
	}
	return text
}

// short shortens long lists of addresses.
func short(clauses string) string {
	const long = 80
	if len(clauses) <= long {
		return clauses
	}
	words := strings.Fields(clauses)
	for i, w := range words {
		if n := strings.Count(w, ",") + 1; n > 3 {
			words[i] = count(n, "address", "addresses")
		}
	}
	return strings.Join(words, " ")
}

func blockedBy(p *policy.Policy) (networks int) {
	for _, s := range p.Block {
		networks += len(s.Prefixes())
	}
	return networks
}

func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
