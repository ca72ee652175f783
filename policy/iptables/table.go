// SPDX-License-Identifier: Apache-2.0

package iptables

import (
	"net/netip"

	"github.com/portcullis-firewall/portcullis/policy"
)

// Table is a table in the format of iptables-save, as it stands there.
type Table struct {
	Name   string
	Chains map[string]*Chain
}

// Chain is a chain of a [Table].
type Chain struct {
	Policy string // ACCEPT or DROP of a built-in chain
	Rules  []Rule
}

// Rule is what a rule of a [Table] asks of a packet, and does with it. A negated condition counts as none.
type Rule struct {
	Protocol    policy.Protocol // 0 is any
	Destination netip.Prefix    // the zero prefix is any
	Ports       [][2]uint16     // first and last; none is any
	Sets        []string        // of ipset
	Target      string          // a verdict or a chain, or ""
	To          string          // where DNAT and REDIRECT send it: ADDRESS, ADDRESS:PORT or :PORT
}

// Tables returns the tables that iptables-save, or ip6tables-save, has printed.
func Tables(text string, ip6 bool) (tables []*Table) {
	f := v4
	if ip6 {
		f = v6
	}
	for i, l := range savedLines(text) {
		if l.begins {
			tables = append(tables, &Table{l.table, make(map[string]*Chain)})
			continue
		}
		if l.table == "" {
			continue
		}
		t := tables[len(tables)-1]
		if l.text[0] == ':' {
			if name, verdict, ok := declared(l.text[1:]); ok {
				t.chain(name).Policy = verdict
			}
		} else if c := parseSaved(l.text); c.verb == "A" {
			chain := t.chain(c.chain)
			chain.Rules = append(chain.Rules, parseRule(f, place{line: i + 1}, c.spec).shown())
		}
	}
	return tables
}

func (t *Table) chain(name string) *Chain {
	c := t.Chains[name]
	if c == nil {
		c = &Chain{}
		t.Chains[name] = c
	}
	return c
}

// shown is the rule as others see it.
func (r *rule) shown() Rule {
	out := Rule{Sets: r.sets, Target: r.target, To: r.sendsTo}
	if r.protocol != nil && !r.protocol.not && r.protocol.value > 0 {
		out.Protocol = policy.Protocol(r.protocol.value)
	}
	if r.destination != nil && !r.destination.not {
		out.Destination, _ = netip.ParsePrefix(r.destination.value)
		if a, err := netip.ParseAddr(r.destination.value); err == nil {
			out.Destination = netip.PrefixFrom(a, a.BitLen())
		}
	}
	if r.ports != nil && !r.ports.not {
		for _, p := range r.ports.value {
			out.Ports = append(out.Ports, [2]uint16{p.first, p.last})
		}
	}
	return out
}
