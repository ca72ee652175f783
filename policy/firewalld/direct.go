// SPDX-License-Identifier: Apache-2.0

package firewalld

import (
	"slices"
	"strings"

	"github.com/portcullis-firewall/portcullis/policy/iptables"
)

// directChain is the chain of direct rules.
const directChain = "INPUT_direct"

// directRules writes the direct rules about packets to this host, to which a
// chain leads. With nftables as the backend, what they accept goes on to the
// zones.
func (l *lowering) directRules(f iptables.Family, from string) {
	l.out.AddChain(f, directChain)
	if l.direct == nil {
		return
	}
	l.add(f, from, "-j "+directChain)
	var rules []*node
	for _, n := range l.direct.children {
		ipv := n.attr("ipv")
		if ipv == "ipv4" && f != iptables.IPv4 || ipv == "ipv6" && f != iptables.IPv6 {
			continue
		}
		switch {
		case n.name == "rule":
			rules = append(rules, n)
		case n.name == "passthrough" && ipv != "eb":
			l.out.Lost(n.at, "%s is not followed: what it may drop is not opened", strings.TrimSpace(n.text))
			l.out.Append(f, directChain, n.at, []string{"-j", "DROP"}, "a passthrough rule")
		}
	}
	slices.SortStableFunc(rules, func(a, b *node) int { return priority(a) - priority(b) })
	for _, n := range rules {
		at := n.at
		at.Text = strings.Join(strings.Fields(n.text), " ")
		options := strings.Fields(n.text)
		chain := n.attr("chain")
		switch {
		case n.attr("table") != "filter" && n.attr("table") != "":
			l.out.Elsewhere(f, n.attr("table"), at, options)
		case strings.ContainsAny(n.text, `"'\`):
			l.out.Append(f, directChain, at, []string{"-j", "DROP"}, "a rule with quotes")
		case chain == "INPUT" || chain == directChain:
			l.out.Append(f, directChain, at, l.passedOn(options))
		case chain == "FORWARD" || chain == "OUTPUT":
			l.out.Lost(at, "a direct rule about what is routed, or sent, is not translated")
		default:
			l.out.Append(f, chain, at, l.passedOn(options))
		}
	}
}

// passedOn are the options of a rule, with what it accepts going on where the
// backend has it so.
func (l *lowering) passedOn(options []string) []string {
	if l.isIptables() {
		return options
	}
	i := slices.Index(options, "ACCEPT")
	if i < 1 || options[i-1] != "-j" && options[i-1] != "--jump" {
		return options
	}
	options = slices.Clone(options)
	options[i] = everything
	return options
}
