// SPDX-License-Identifier: Apache-2.0

package firewalld

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/portcullis-firewall/portcullis/policy/iptables"
)

// actions are what a rich rule does.
var actions = []string{"accept", "reject", "drop", "mark"}

// richRules are the rules of a zone in their order.
func (l *lowering) richRules(n *node) (list []*node) {
	for _, c := range n.children {
		if c.name == "rule" {
			list = append(list, c)
		}
	}
	slices.SortStableFunc(list, func(a, b *node) int { return priority(a) - priority(b) })
	return list
}

func priority(n *node) int {
	p, _ := strconv.Atoi(n.attr("priority"))
	return p
}

// denies reports whether a rule of priority 0 stands among those that deny.
func denies(r *node) bool {
	return r.child("reject", "drop") != nil || r.child("icmp-block") != nil && r.child("accept", "mark") == nil
}

// textOf is a rule on one line.
func textOf(r *node) string {
	var b strings.Builder
	b.WriteString(strings.TrimSuffix(r.String(), "/>") + ">")
	for _, c := range r.children {
		b.WriteString(c.String())
	}
	return b.String() + "</rule>"
}

// rich writes one rule.
func (l *lowering) rich(f iptables.Family, chain string, r *node, inverted bool) {
	at := r.at
	at.Text = textOf(r)
	if family := r.attr("family"); family == "ipv4" && f != iptables.IPv4 || family == "ipv6" && f != iptables.IPv6 {
		return
	}
	base := some{}
	kinds := []some{{}}
	for _, c := range r.children {
		switch c.name {
		case "source", "destination":
			option := map[string]string{"source": "-s", "destination": "-d"}[c.name]
			options, doubts, ok := l.address(f, c, option)
			if !ok {
				return
			}
			base.options, base.doubts = append(base.options, options...), append(base.doubts, doubts...)
		case "service", "port", "protocol", "source-port":
			kinds = l.opens(f, c)
		case "icmp-block", "icmp-type":
			options, ok := icmpOptions(f, c.attr("name"))
			if !ok {
				return
			}
			kinds = []some{{options: options}}
		case "masquerade", "forward-port":
			if f == iptables.IPv4 || r.attr("family") == "ipv6" {
				l.out.Lost(at, "NAT stays with netfilter, and what is routed is not translated")
			}
			return
		case "tcp-mss-clamp":
			l.out.Note(at, "it stays with netfilter")
			return
		case "log", "nflog", "audit":
			if f == iptables.IPv4 || r.attr("family") == "ipv6" {
				l.out.Note(at, "Portcullis counts what it drops, by reason, and logs only invalid packets")
			}
		case "accept", "reject", "drop", "mark":
		default:
			base.doubts = append(base.doubts, "<"+c.name+">")
		}
	}
	var target []string
	switch action := r.child(actions...); {
	case action == nil && r.child("icmp-block") != nil:
		target = []string{"-j", "REJECT"}
		if inverted {
			base.doubts = append(base.doubts, "icmp-block under inversion")
		}
	case action == nil || action.name == "mark":
		return
	default:
		target = []string{"-j", strings.ToUpper(action.name)}
		if kind := action.attr("type"); kind != "" && action.name == "reject" {
			target = append(target, "--reject-with", kind)
		}
		if limit := action.child("limit"); limit != nil {
			base.doubts = append(base.doubts, "limit "+limit.attr("value")+", which is one for all sources together and not for each,")
		}
	}
	for _, k := range kinds {
		l.out.Append(f, chain, at, slices.Concat(base.options, k.options, target), slices.Concat(base.doubts, k.doubts)...)
	}
}

// policiesOf are the policies about packets to this host from a zone, and
// whether these perhaps are: those before its own rules and those behind.
func (l *lowering) policiesOf(zone string) (before, behind []string) {
	names := slices.SortedFunc(maps.Keys(l.policies), func(a, b string) int {
		if d := priorityOf(l.policies[a]) - priorityOf(l.policies[b]); d != 0 {
			return d
		}
		return strings.Compare(a, b)
	})
	for _, name := range names {
		p := l.policies[name]
		if !hasZone(p, "egress-zone", "HOST") || !hasZone(p, "ingress-zone", "ANY") && !hasZone(p, "ingress-zone", zone) && !shuts(p) {
			continue
		}
		if priorityOf(p) < 0 {
			before = append(before, name)
		} else {
			behind = append(behind, name)
		}
	}
	return before, behind
}

// priorityOf is that of a policy, -1 where it does not say.
func priorityOf(p *node) int {
	if p.attr("priority") == "" {
		return -1
	}
	return priority(p)
}

func hasZone(p *node, kind, name string) bool {
	return slices.ContainsFunc(p.children, func(c *node) bool { return c.name == kind && c.attr("name") == name })
}

// shuts reports whether a policy may drop something.
func shuts(p *node) bool {
	target := p.attr("target")
	if target != "" && target != "CONTINUE" && target != "ACCEPT" {
		return true
	}
	return slices.ContainsFunc(p.children, func(c *node) bool { return c.name == "icmp-block" || c.name == "rule" && denies(c) })
}

// jumpTo writes the chain of a policy, if that was not done, and leads there
// from a zone. Whether packets of a zone that it does not name get there is in
// doubt: firewalld asks for interfaces and sources anew.
func (l *lowering) jumpTo(f iptables.Family, chain, name, zone string) {
	p := l.policies[name]
	into := policyChain(name) + " from " + zone
	l.body(f, into, p)
	switch target := p.attr("target"); target {
	case "", "CONTINUE":
	default:
		l.out.Append(f, into, p.at, []string{"-j", verdictOf(target)})
	}
	l.out.AddChain(f, into)
	var doubts []string
	if !hasZone(p, "ingress-zone", "ANY") && !hasZone(p, "ingress-zone", zone) {
		doubts = []string{"policy " + name + " for packets of another zone"}
	}
	l.out.Append(f, chain, p.at, []string{"-j", into}, doubts...)
}
