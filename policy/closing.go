// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/portcullis-firewall/portcullis/policy/addrset"
)

// closeHint says how to get from the rules in by to what the removal of r
// meant: what of theirs to open by itself, and then which to close, so that
// nothing is shut out in between. Interfaces are those that are filtered, where
// that is known.
func closeHint(r Rule, by []Rule, interfaces []string) string {
	var closing, opening, staying []Rule
	whole := true
	for _, b := range by {
		if isAll(b.Ports) && !isAll(r.Ports) && slices.ContainsFunc(by, func(o Rule) bool { return !isAll(o.Ports) }) {
			staying = append(staying, b) // nobody closes that for one port
			continue
		}
		left, all := b.without(r, interfaces)
		closing, opening, whole = append(closing, b), append(opening, left...), whole && all
	}
	texts, complete := wholeTexts(opening)
	whole = whole && complete
	opens, hint := "open ", "close "+quoteWhole(closing)
	if r.Forward {
		opens, hint = "open --forward ", "close --forward "+quoteWhole(closing)
	}
	switch {
	case len(texts) == 0 && !whole:
		hint = "open what should stay, then " + hint
	case !whole:
		hint = opens + joinWords(append(texts, "what else should stay"), "and") + ", then " + hint
	case len(texts) > 0:
		hint = opens + joinWords(texts, "and") + ", then " + hint
	}
	if len(staying) > 0 {
		hint += "; what is left comes in by " + quoteRules(staying)
	}
	return hint
}

// mostWhole is how long a rule is at most that is printed to be pasted.
const mostWhole = 500

// wholeTexts quotes rules to be pasted, which nothing may be cut off. Those that
// would fill a screen are left out.
func wholeTexts(rules []Rule) (texts []string, complete bool) {
	for _, r := range rules {
		if text := r.String(); len(text) <= mostWhole {
			texts = append(texts, strconv.Quote(text))
		}
	}
	return texts, len(texts) == len(rules)
}

// quoteWhole is quoteRules for rules to be pasted.
func quoteWhole(rules []Rule) string {
	if texts, complete := wholeTexts(rules); complete && len(texts) <= 5 {
		return joinWords(texts, "and")
	}
	return quoteRules(rules)
}

// without returns rules that let in what r does and o does not. If rules cannot
// say all of that, whole is false, and they say some of it.
func (r Rule) without(o Rule, interfaces []string) (left []Rule, whole bool) {
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
	of := r.On
	if len(of) == 0 {
		of = interfaces
	}
	switch on, expressible := subtractPatterns(of, o.On); {
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
	if r.lists.from == "" {
		gone := o.sources()
		r.From = slices.DeleteFunc(slices.Clone(r.From), func(p netip.Prefix) bool {
			return addrset.Within([]addrset.Range{addrset.RangeOf(p)}, gone)
		})
	}
	have := r.sources()
	more := slices.DeleteFunc(slices.Clone(o.From), func(p netip.Prefix) bool {
		return len(addrset.Intersect(have, addrset.Of([]netip.Prefix{p}))) == 0
	})
	except := r.Except
	if r.lists.except == "" {
		except = slices.DeleteFunc(slices.Clone(except), func(p netip.Prefix) bool {
			return len(addrset.Intersect(addrset.Of(r.From), addrset.Of([]netip.Prefix{p}))) == 0 && len(r.From) > 0
		})
	}
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
