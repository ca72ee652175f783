// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/portcullis-firewall/portcullis/policy/addrset"
)

// closeHint says how to get from the rules in by to what the removal of r
// meant: which to close, and what of theirs to open again.
func closeHint(r Rule, by []Rule) string {
	var opening []Rule
	whole := true
	for _, b := range by {
		left, all := b.without(r)
		opening = append(opening, left...)
		whole = whole && all
	}
	flag := ""
	if r.Forward {
		flag = "--forward "
	}
	hint := "close " + flag + quoteRules(by)
	if len(opening) > 0 {
		hint += ", then open " + flag + quoteRules(opening)
	}
	if !whole {
		hint += ", then open again what should stay"
	}
	return hint
}

// without returns rules that let in what r does and o does not. If rules cannot
// say all of that, whole is false, and they say some of it.
func (r Rule) without(o Rule) (left []Rule, whole bool) {
	if !r.Overlaps(o) {
		return r.Spelled(), true
	}
	whole = true
	if ports := subtractPorts(r.Ports, o.Ports); len(ports) > 0 {
		rest := r
		rest.Ports, rest.what = ports, ""
		if isAll(r.Ports) {
			whole = false // hundreds of protocols, ICMP among them, which goes by a key of its own
		} else {
			left = append(left, rest.Spelled()...)
		}
	}
	// What is left of the ports that both open.
	both := r
	both.Ports = intersectPorts(r.Ports, o.Ports)
	if !slices.Equal(both.Ports, canonicalPorts(r.Ports)) {
		both.what = ""
	}
	add := func(rest Rule) { left = append(left, rest.Spelled()...) }
	if !isAll(both.Ports) && slices.ContainsFunc(both.Ports, func(p PortRange) bool { return p.Protocol == icmpv4 || p.Protocol == icmpv6 }) {
		return left, false
	}

	// One clause after the other: the interfaces that are left, then the addresses and the sources on the others.
	switch on, expressible := subtractPatterns(r.On, o.On); {
	case !expressible:
		whole = false
	case len(on) > 0:
		rest := both
		rest.On = on
		add(rest)
	}
	src, dst := both.reach()
	if dstLeft := addrset.Subtract(dst, o.destinations()); len(dstLeft) > 0 {
		if len(r.To) == 0 {
			whole = false // all other addresses of the host
		} else {
			rest := both
			rest.To, rest.lists.to = addrset.Prefixes(dstLeft), ""
			add(rest)
		}
	}
	if srcLeft := addrset.Subtract(src, o.sources()); len(srcLeft) > 0 {
		rest := both
		if len(o.Except) == 0 {
			rest = rest.exceptFrom(o)
		} else {
			rest.From, rest.Except, rest.lists = addrset.Prefixes(srcLeft), nil, listTexts{to: r.lists.to}
		}
		add(rest)
	}
	return left, whole
}

// exceptFrom returns the rule without the sources that o names.
func (r Rule) exceptFrom(o Rule) Rule {
	have := r.sources()
	more := slices.DeleteFunc(slices.Clone(o.From), func(p netip.Prefix) bool {
		return len(addrset.Intersect(have, addrset.Of([]netip.Prefix{p}))) == 0
	})
	except := r.Except
	r.Except = append(slices.Clone(except), more...)
	if r.lists.except != "" || o.lists.from != "" {
		var texts []string
		for _, part := range []struct {
			text    string
			numbers []netip.Prefix
		}{{r.lists.except, except}, {o.lists.from, more}} {
			if part.text == "" {
				var b strings.Builder
				writePrefixes(&b, "", part.numbers, "")
				part.text = b.String()
			}
			if part.text != "" {
				texts = append(texts, part.text)
			}
		}
		r.lists.except = strings.Join(texts, ",")
	}
	return r
}

// intersectPorts returns the ports that are in a and in b.
func intersectPorts(a, b []PortRange) []PortRange {
	return subtractPorts(a, subtractPorts(a, b))
}

// subtractPatterns returns the interfaces of a that are not among those of b, if
// that can be said: "all but eth0" cannot.
func subtractPatterns(a, b []string) (left []string, ok bool) {
	if len(b) == 0 {
		return nil, true
	}
	if len(a) == 0 {
		return nil, false
	}
	for _, p := range a {
		if slices.ContainsFunc(b, func(q string) bool { return withinPattern(p, q) }) {
			continue
		}
		if slices.ContainsFunc(b, func(q string) bool { return patternsOverlap(p, q) }) {
			return nil, false
		}
		left = append(left, p)
	}
	return left, true
}
