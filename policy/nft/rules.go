// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/portcullis-firewall/portcullis/policy/addrset"
	"github.com/portcullis-firewall/portcullis/policy/iptables"
)

// copied is a chain, and those that it leads to, as iptables has them for one
// family. What they accept goes on to wherever accept says.
type copied struct {
	*lowering
	family iptables.Family
	table  *table
	accept []string // options
	suffix string   // of the names of its chains
	policy string
}

// packets are those of a rule, or some of them, and what becomes of them.
type packets struct {
	terms   *terms
	verdict verdict
}

func (c *copied) nameOf(chain string) string {
	return fmt.Sprintf("%s in %s %s%s", chain, c.table.family, c.table.name, c.suffix)
}

// rulesOf appends the rules of a chain to one of iptables.
func (c *copied) rulesOf(of *chain, into string) {
	for _, r := range of.rules {
		c.rule(r, into)
	}
}

// jumpTo is the name of a chain, which it writes if that was not done.
func (c *copied) jumpTo(name string) (string, bool) {
	of := c.table.chain(name)
	if of == nil {
		return "", false
	}
	into := c.nameOf(name)
	if key := fmt.Sprint(c.family, into); !c.done[key] {
		c.done[key] = true
		c.out.AddChain(c.family, into)
		c.rulesOf(of, into)
	}
	return into, true
}

// rule appends what one rule does.
func (c *copied) rule(r *rule, into string) {
	c.dropUntracked(r, into)
	c.ruleOf(r, into)
}

func (c *copied) ruleOf(r *rule, into string) {
	list := c.packetsOf(r)
	for _, p := range list {
		p.terms.settle(p.verdict)
		switch p.verdict.kind { // what nft prints leaves it at that
		case "icmp":
			p.terms.only(iptables.IPv4)
		case "icmpv6":
			p.terms.only(iptables.IPv6)
		case "tcp":
			p.terms.among(protocolsOf(6))
		}
		if p.terms.frames && (p.verdict.name == "drop" || p.verdict.name == "reject") {
			c.out.Note(r.at, "frames to a group or to everybody are told by the address of the packet in them")
		}
		if others := p.terms.protocols; p.terms.nextHeader && p.verdict.name == "accept" {
			if others[icmpProtocol[iptables.IPv6]] = false; others.count() > 0 {
				c.out.Note(r.at, "ip6 nexthdr is taken for the protocol, whatever extension headers come before")
			}
		}
		list := p.terms.spell(c.family)
		if len(list) == 0 {
			continue // and no chain need be there for it
		}
		if target := c.target(p.verdict); target != nil {
			for _, s := range list {
				c.append(into, r.at, s, target, p.terms)
			}
		}
	}
}

// append appends one rule of iptables. What it is not for returns from a chain
// of its own before.
func (c *copied) append(into string, at iptables.Position, s spelled, target []string, t *terms) {
	doubts := t.doubts
	returns := slices.Contains(target, "RETURN") || target[0] == "-g" && !slices.Equal(target, c.accept)
	if len(s.excluded) > 0 && returns {
		doubts = append(slices.Clone(doubts), "what it is not for")
	} else if len(s.excluded) > 0 {
		c.made++
		name := fmt.Sprintf("%s, others %d", into, c.made)
		for _, options := range s.excluded {
			c.out.Append(c.family, name, at, append(slices.Clone(options), "-j", "RETURN"))
		}
		c.out.Append(c.family, name, at, target)
		target = []string{"-j", name}
	}
	options := slices.Concat(s.options, t.limit.options(c.family), target)
	c.out.Append(c.family, into, at, options, doubts...)
}

// options are those of a limit for each source.
func (b *bounded) options(f iptables.Family) []string {
	if b == nil {
		return nil
	}
	bound, mask := "--hashlimit-upto", [...]string{"32", "128"}[f]
	if b.over {
		bound = "--hashlimit-above"
	}
	if b.wide {
		mask = "64"
	}
	out := []string{"-m", "hashlimit", bound, b.rate + "/" + b.unit, "--hashlimit-mode", "srcip", "--hashlimit-srcmask", mask, "--hashlimit-name", b.set}
	if b.burst != "" && b.burst != "0" {
		out = append(out, "--hashlimit-burst", b.burst)
	}
	return out
}

// target is a verdict in options of iptables; nil is none.
func (c *copied) target(v verdict) []string {
	switch v.name {
	case "accept":
		return c.accept
	case "drop":
		return []string{"-j", "DROP"}
	case "reject":
		if v.with != "" {
			return []string{"-j", "REJECT", "--reject-with", v.with}
		}
		return []string{"-j", "REJECT"}
	case "return":
		return []string{"-j", "RETURN"}
	case "log":
		return []string{"-j", "LOG"}
	case "queue":
		return []string{"-j", "NFQUEUE"}
	case "jump", "goto":
		name, ok := c.jumpTo(v.chain)
		if ok {
			return []string{map[string]string{"jump": "-j", "goto": "-g"}[v.name], name}
		}
	case "", "continue":
		return nil
	case whoKnows:
		return []string{"-j", inQuotes(v.chain) + v.with} // no chain is called so
	}
	return []string{"-j", inQuotes(v.String())}
}

// inQuotes is a statement as it is to be read in a sentence.
func inQuotes(text string) string {
	if strings.Contains(text, `"`) {
		return "(" + text + ")"
	}
	return quoted(text)
}

// packetsOf takes a rule apart into packets and their verdicts, in order.
func (c *copied) packetsOf(r *rule) []packets {
	var families [2]bool
	families[c.family] = true
	list := []*terms{newTerms(families)}
	each := func(do func(t *terms)) {
		for _, t := range list {
			do(t)
		}
	}
	end := verdict{}
	for _, s := range r.statements {
		switch s.kind {
		case isMatch:
			var next []*terms
			for _, t := range list {
				if t.limit != nil {
					t.doubt("%s, which counts before %s is asked,", t.limit.limit, s)
				}
				next = append(next, c.table.match(t, s)...)
			}
			if list = next; len(list) > maxRules {
				list = []*terms{newTerms(families)}
				list[0].doubt("%s, with what it is asked with,", s)
			}
		case isUnknown, isCount:
			each(func(t *terms) { t.doubt("%s", s.text) })
		case isLimit:
			each(func(t *terms) { t.doubt("%s, which is one for all sources together and not for each,", s.limit) })
		case isUpdate:
			each(func(t *terms) { t.update(s) })
		case isVerdictMap:
			var out []packets
			for _, t := range list {
				out = append(out, c.table.byMap(t, s)...)
			}
			return out
		case isLog:
			end = verdict{name: "log"}
		case isVerdict:
			end = s.verdict
		}
		if s.kind == isVerdict {
			break
		}
	}
	out := make([]packets, len(list))
	for i, t := range list {
		out[i] = packets{t, end}
	}
	return out
}

// byMap are the packets of each entry of a verdict map, and its verdict. What
// stands for all others comes last.
func (t *table) byMap(of *terms, s statement) (out []packets) {
	const most = 4096
	list, changing, ok := t.members(s.right)
	left := s.left
	if !ok || len(list) > most || overlap(list) || left.kind != isField && left.kind != isConcat {
		of.implied(s.left)
		return []packets{{of, unknownTo(s.String())}}
	}
	var others *verdict
	back := false
	for _, el := range list {
		v := unknownTo(s.left.String() + " vmap { " + el.key.String() + " }")
		if el.value != nil {
			v = *el.value
		}
		back = back || !v.terminates()
		if el.key.kind == isAny {
			others = &v
			continue
		}
		one := of.clone()
		if changing != "" {
			one.doubt(comesAndGoes, changing)
		}
		for _, p := range one.askAll(left, el.key, s.left.String()+" "+el.key.String()) {
			out = append(out, packets{p, v})
		}
	}
	if others != nil {
		one := of.clone()
		if back {
			one.doubt("%s, for all that it does not name,", s.left)
		}
		out = append(out, packets{one, *others})
	}
	return out
}

// overlap reports whether two entries of a verdict map are for the same key. What
// nft loads has none of these, so it is not known which of them is meant.
func overlap(list []element) bool {
	var numbers, addresses []addrset.Range
	names := make(map[string]bool)
	for _, el := range list {
		if r, ok := addressesOf(el.key); ok {
			addresses = append(addresses, r)
			continue
		}
		first, last := el.key, el.key
		if el.key.kind == isRange {
			first, last = el.key.of[0], el.key.of[1]
		}
		if isNumber(first.text) && isNumber(last.text) && first.kind == isLiteral && last.kind == isLiteral {
			numbers = append(numbers, addrset.Range{First: addressOf(number(first.text)), Last: addressOf(number(last.text))})
			continue
		}
		text := el.key.String()
		if names[text] {
			return true
		}
		names[text] = true
	}
	for _, of := range [][]addrset.Range{numbers, addresses} {
		slices.SortFunc(of, func(a, b addrset.Range) int { return a.First.Compare(b.First) })
		for i := range of {
			if i > 0 && !of[i-1].Last.Less(of[i].First) {
				return true
			}
		}
	}
	return false
}

// addressOf is a number in a form that can be compared as addresses are.
func addressOf(n int) netip.Addr {
	return netip.AddrFrom4([4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})
}

// update is about a statement that counts packets in a set, which is a limit if
// it is one for each source.
func (t *terms) update(s statement) {
	f, wide, isSource := sourceOf(s.left)
	for _, inner := range s.inner {
		switch {
		case inner.kind == isLimit && isSource && !inner.limit.bytes && t.limit == nil:
			t.only(f)
			t.limit = &bounded{inner.limit, s.set, wide}
		default:
			t.implied(s.left)
			t.doubt("%s", s)
		}
	}
	if len(s.inner) == 0 {
		switch s.left.kind {
		case isField:
			t.implied(s.left)
		case isMasked:
			t.implied(s.left.of[0])
		case isConcat:
			for _, e := range s.left.of {
				t.implied(e)
			}
		}
	}
}

// sourceOf reports whether an expression is the source of a packet, or the /64
// of one.
func sourceOf(e expr) (f iptables.Family, wide, ok bool) {
	if e.kind == isMasked && e.of[0].text == "ip6 saddr" && e.of[1].text == "ffff:ffff:ffff:ffff::" {
		return iptables.IPv6, true, true
	}
	switch {
	case e.kind != isField:
	case e.text == "ip saddr":
		return iptables.IPv4, false, true
	case e.text == "ip6 saddr":
		return iptables.IPv6, false, true
	}
	return 0, false, false
}

// settle doubts what only shows when all of a rule is read.
func (t *terms) settle(v verdict) {
	if t.ports != nil {
		others := t.protocols
		for _, n := range append([]int{33}, ported...) {
			others[n] = false
		}
		if others.count() > 0 {
			t.ports = nil
			t.doubt("th dport of protocols that have no ports")
		}
	}
	switch {
	case t.redirected && v.name == "accept":
		// The policy sees them as they come, and what to open for each is listed.
		t.never = true
	case t.redirected:
		t.doubt("ct status dnat")
	}
	if t.frames && v.name != "drop" && v.name != "reject" {
		others := t.protocols
		others[6] = false
		if others.count() > 0 {
			t.doubt("pkttype, which is about the frame,")
		}
	}
}
